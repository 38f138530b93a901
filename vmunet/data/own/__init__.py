"""Datasets of your own: files paired, split, and written as arrays."""
