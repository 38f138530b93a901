"""The scripts that dvc.yaml runs, one a stage: they read parameters and files, and write files."""

import pipeline  # noqa: F401  (its environment, before a stage imports torch)
