"""Measure, list and draw what may be wrong with a dataset."""
