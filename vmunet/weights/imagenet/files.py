"""The published files of ImageNet weights, and the models whose authors start from them.

This module imports no torch, because params.yaml is checked with it.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """A published file of a network's weights.

    Attributes:
        file: its published name.
        models: the models (`vmunet.models.MODELS`) that start from it.
        shapes: shapes of a few of its tensors, which no other file here has.
        lacks: a tensor that only a deeper network of the same kind has.
    """

    file: str
    models: tuple[str, ...]
    shapes: Mapping[str, tuple[int, ...]]
    lacks: str


FILES = {
    "r50-vit-b16": Published(
        file="R50+ViT-B_16.npz",
        models=("r50-unet", "transunet", "transnorm"),
        shapes={
            "block3/unit9/conv2/kernel": (3, 3, 256, 256),
            "embedding/kernel": (1, 1, 1024, 768),
            "Transformer/encoderblock_11/LayerNorm_2/scale": (768,),
        },
        lacks="Transformer/encoderblock_12/LayerNorm_2/scale",
    ),
    "swin-tiny": Published(
        file="swin_tiny_patch4_window7_224.pth",
        models=("swin-unet", "transdeeplab"),
        shapes={
            "patch_embed.proj.weight": (96, 3, 4, 4),
            "layers.2.blocks.5.attn.relative_position_bias_table": (169, 12),
        },
        lacks="layers.2.blocks.6.norm1.weight",
    ),
    "res2net50": Published(
        file="res2net50_v1b_26w_4s-3cf99910.pth",
        models=("sanet",),
        shapes={"conv1.0.weight": (32, 3, 3, 3), "layer3.5.convs.2.weight": (104, 104, 3, 3)},
        lacks="layer3.6.conv1.weight",
    ),
    "resnet34": Published(
        file="resnet34-b627a593.pth",
        models=("transfuse",),
        shapes={"conv1.weight": (64, 3, 7, 7), "layer3.5.conv1.weight": (256, 256, 3, 3)},
        lacks="layer3.6.conv1.weight",
    ),
    "deit-small": Published(
        file="deit_small_patch16_224-cd65a155.pth",
        models=("transfuse",),
        shapes={"pos_embed": (1, 197, 384), "blocks.11.mlp.fc1.weight": (1536, 384)},
        lacks="blocks.12.mlp.fc1.weight",
    ),
}


def files_for(model: str) -> list[str]:
    """The names in `FILES` that the model starts from; none if its authors start at random."""
    return [name for name, published in FILES.items() if model in published.models]
