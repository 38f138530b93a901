"""Sweeps: many stages at once, recorded as DVC records them."""
