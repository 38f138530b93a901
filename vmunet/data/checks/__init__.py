"""What may be wrong with a dataset, measured, listed and drawn."""
