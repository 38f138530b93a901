"""VMamba weights as VM-UNet's initial weights (paper, sections III-A and IV-D.1, Table III).

The published VMamba v0 is an image classifier with a deeper version of VM-UNet's encoder. Its
checkpoint fills the encoder by name, and the decoder with the encoder's stages in reverse order.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vmunet.errors import InputError
from vmunet.model import VMUNet
from vmunet.weights.checkpoints import listed

_RELEASE = "https://github.com/MzeroMiko/VMamba/releases/download/%23v0cls"
# Published files and their SHA-256, None if no checksum is known.
VMAMBA_V0 = {
    "vmamba-t": (
        f"{_RELEASE}/vssmtiny_dp01_ckpt_epoch_292.pth",
        "dbc0cc4f5ec0e45db5fba7c939d2c7d9b617e891ac10766912a8d604c37c5e47",
    ),
    "vmamba-s": (f"{_RELEASE}/vssmsmall_dp03_ckpt_epoch_238.pth", None),
}


ENCODER = ("patch_embed.", "layers.")  # the tensors that VMamba and VM-UNet's encoder share


@dataclass(frozen=True)
class Filled:
    """Names of VM-UNet's tensors that a checkpoint filled, and the checkpoint's unused names."""

    encoder: list[str]
    decoder: list[str]
    unused: list[str]


@torch.no_grad()
def fill_from_vmamba(model: VMUNet, tensors: dict[str, Tensor], path: Path) -> Filled:
    """Copy a VMamba v0 checkpoint's tensors into VM-UNet's encoder and decoder.

    `layers.{0,1,2,3}` go to the encoder under their own names, and to `layers_up.{3,2,1,0}`.
    VMamba-S (446 tensors) fills 117 of the encoder and 91 of the decoder.

    Args:
        tensors: the checkpoint's state dict.
        path: the checkpoint's file, for error messages.

    Raises:
        InputError: the checkpoint lacks tensors of the encoder, or they have other shapes.
    """
    own = model.state_dict()
    missing = [n for n in own if n.startswith(ENCODER) and n not in tensors]
    if missing:
        raise InputError(
            f"{path}: not VMamba v0 weights: of the encoder's tensors {listed(missing)} are "
            "missing; give the v0 release of VMamba-T or VMamba-S"
        )
    encoder: list[str] = []
    decoder: list[str] = []
    used: set[str] = set()
    misfits: list[str] = []
    for name in sorted(tensors):
        if not name.startswith(ENCODER) or name.count(".") < 2:
            continue
        targets = [(name, encoder)]
        part, stage, rest = name.split(".", 2)
        if part == "layers" and stage.isdigit():
            targets.append((f"layers_up.{3 - int(stage)}.{rest}", decoder))
        for target, filled in targets:
            if target not in own:
                continue
            if own[target].shape != tensors[name].shape:
                misfits.append(
                    f"{name} is {tuple(tensors[name].shape)}, the model's {target} is "
                    f"{tuple(own[target].shape)}"
                )
                continue
            own[target].copy_(tensors[name])
            filled.append(target)
            used.add(name)
    if misfits:
        raise InputError(
            f"{path}: does not fit {len(misfits)} of the model's tensors: weights of another width "
            f"or state size than the profile's dims and states: {listed(misfits)}"
        )
    return Filled(encoder, decoder, sorted(tensors.keys() - used))
