"""Synapse (BTCV): raw volumes and the prepared sets."""
