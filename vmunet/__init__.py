"""VM-UNet: Vision Mamba UNet for medical image segmentation.

`from vmunet import VMUNet` gives the model, `from vmunet import Predictor` segments arrays with
trained weights. Everything else is a submodule: `vmunet.scan` (the 2D selective scan and its
backends), `vmunet.inference` (files and folders), `vmunet.weights.checkpoints`, `vmunet.data`,
`vmunet.training.loop`, `vmunet.training.losses`, `vmunet.evaluation.metrics`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from vmunet.errors import InputError

if TYPE_CHECKING:
    from vmunet.inference.predictor import Predictor
    from vmunet.model import VMUNet

__all__ = ["InputError", "Predictor", "VMUNet"]

# These bring torch; a command that only reads parameters should not wait for it.
LAZY = {"Predictor": "vmunet.inference.predictor", "VMUNet": "vmunet.model"}


def __getattr__(name: str) -> Any:
    if name in LAZY:
        return getattr(import_module(LAZY[name]), name)
    raise AttributeError(f"module 'vmunet' has no attribute {name!r}")
