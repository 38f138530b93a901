"""Your own datasets: files paired, split, and written as arrays."""
