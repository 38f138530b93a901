"""Datasets: the official archives, phantoms in their place, arrays, augmentation.

Nothing is imported here, so that a stage loads (and depends on) only the modules it names.
"""
