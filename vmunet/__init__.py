"""VM-UNet: Vision Mamba UNet for medical image segmentation.

`from vmunet import VMUNet` gives the model. Everything else is a submodule: `vmunet.scan` (the
2D selective scan and its backends), `vmunet.losses`, `vmunet.metrics`, `vmunet.data`,
`vmunet.training`, `vmunet.inference`, `vmunet.checkpoints`.
"""

from vmunet.errors import InputError
from vmunet.model import VMUNet

__all__ = ["InputError", "VMUNet"]
