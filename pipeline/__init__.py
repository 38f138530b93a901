"""The code around the library: parameters, grid, sweeps, searches, tracking, command line."""

import os

# This must be set before torch is loaded, so that idle threads sleep. By default they spin; then a
# small model's step is a hundred times slower on a machine that also runs other programs.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
