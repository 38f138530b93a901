"""The scripts of dvc.yaml, one for each stage: they read parameters and files, and write files."""

import pipeline  # noqa: F401  (its environment, before a stage imports torch)
