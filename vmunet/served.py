"""Where models that MLflow's registry holds from before look for `vmunet.inference.served`."""

from vmunet.inference.served import Segmenter, read_input

__all__ = ["Segmenter", "read_input"]
