"""Checkpoints, published VMamba files, initial weights, pre-training."""
