"""Weights that were trained on ImageNet, for the models whose authors start from them."""
