"""Scores: of images, classes and volumes; metrics, statistics, calibration."""
