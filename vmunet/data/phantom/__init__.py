"""Synthetic images and CT volumes with known masks, for runs without a download."""
