"""Datasets: the official archives, phantoms that replace them, arrays, augmentation.

Nothing is imported here, so that a stage loads (and depends on) only the modules that it names.
"""
