"""What surrounds the library: parameters, the grid, tracking, provenance, the command line."""

import os

# Before torch is loaded. Idle threads must sleep: when they spin, as they do by default, a machine
# that is busy with anything else slows a small model's step a hundredfold.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
