"""Segmenting images and volumes with trained weights."""
