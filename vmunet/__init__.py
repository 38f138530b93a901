"""VM-UNet: Vision Mamba UNet for medical image segmentation.

`from vmunet import VMUNet` gives the model. Everything else is a submodule: `vmunet.scan` (the 2D
selective scan and its backends), `vmunet.training.losses`, `vmunet.evaluation.metrics`,
`vmunet.data`, `vmunet.training.loop`, `vmunet.inference.images`, `vmunet.weights.checkpoints`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from vmunet.errors import InputError

if TYPE_CHECKING:
    from vmunet.model import VMUNet

__all__ = ["InputError", "VMUNet"]


def __getattr__(name: str) -> Any:
    # The model brings torch; a command that only reads parameters should not wait for it.
    if name == "VMUNet":
        return import_module("vmunet.model").VMUNet
    raise AttributeError(f"module 'vmunet' has no attribute {name!r}")
