"""Measurements of a model: speed, receptive fields; of images: how hard they are."""
