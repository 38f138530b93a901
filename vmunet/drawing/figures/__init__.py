"""The report's figures, one file for each: it takes arrays and returns a matplotlib Figure."""
