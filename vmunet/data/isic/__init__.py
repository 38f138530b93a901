"""ISIC 2017 and 2018: the official archives and the authors' prepared sets."""
