"""Searches for better settings, with Optuna."""
