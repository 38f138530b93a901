"""Made-up files of ImageNet weights: the names and axes of the published ones, at any width.

Every tensor has its own random values. `width` 1 gives the published shapes.
"""

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tests.helpers.rivals import value

Shapes = dict[str, tuple[int, ...]]


def tensors(shapes: Shapes) -> dict[str, Tensor]:
    batches = torch.tensor(7)
    return {
        name: batches.clone() if name.endswith("num_batches_tracked") else value(name, shape)
        for name, shape in shapes.items()
    }


def batch_norm(name: str, channels: int, counts: bool = True) -> Shapes:
    parts = ("weight", "bias", "running_mean", "running_var")
    norm: Shapes = {f"{name}.{part}": (channels,) for part in parts}
    return norm | ({f"{name}.num_batches_tracked": ()} if counts else {})


def resnet34(base: int = 64, classes: int = 1000, counts: bool = True) -> Shapes:
    """torchvision's ResNet-34; `counts`: whether its norms count batches, as in newer files."""
    shapes: Shapes = {"conv1.weight": (base, 3, 7, 7)} | batch_norm("bn1", base, counts)
    inputs = base
    for stage, units in enumerate((3, 4, 6, 3)):
        width = base * 2**stage
        for unit in range(units):
            place = f"layer{stage + 1}.{unit}"
            shapes[f"{place}.conv1.weight"] = (width, inputs, 3, 3)
            shapes |= batch_norm(f"{place}.bn1", width, counts)
            shapes[f"{place}.conv2.weight"] = (width, width, 3, 3)
            shapes |= batch_norm(f"{place}.bn2", width, counts)
            if unit == 0 and stage:
                shapes[f"{place}.downsample.0.weight"] = (width, inputs, 1, 1)
                shapes |= batch_norm(f"{place}.downsample.1", width, counts)
            inputs = width
    return shapes | {"fc.weight": (classes, inputs), "fc.bias": (classes,)}


def res2net50(base: int = 64, inner: int = 26, units: tuple[int, ...] = (3, 4, 6, 3)) -> Shapes:
    """Res2Net-50 v1b, 26w x 4s: `inner` channels in each of four parts of the first stage."""
    stem = base // 2
    shapes: Shapes = {"conv1.0.weight": (stem, 3, 3, 3)} | batch_norm("conv1.1", stem)
    shapes |= {"conv1.3.weight": (stem, stem, 3, 3)} | batch_norm("conv1.4", stem)
    shapes |= {"conv1.6.weight": (base, stem, 3, 3)} | batch_norm("bn1", base)
    inputs = base
    for stage, count in enumerate(units):
        width, outputs = inner * 2**stage, 4 * base * 2**stage
        for unit in range(count):
            place = f"layer{stage + 1}.{unit}"
            shapes[f"{place}.conv1.weight"] = (4 * width, inputs, 1, 1)
            shapes |= batch_norm(f"{place}.bn1", 4 * width)
            for i in range(3):
                shapes[f"{place}.convs.{i}.weight"] = (width, width, 3, 3)
                shapes |= batch_norm(f"{place}.bns.{i}", width)
            shapes[f"{place}.conv3.weight"] = (outputs, 4 * width, 1, 1)
            shapes |= batch_norm(f"{place}.bn3", outputs)
            if unit == 0:
                shapes[f"{place}.downsample.1.weight"] = (outputs, inputs, 1, 1)
                shapes |= batch_norm(f"{place}.downsample.2", outputs)
            inputs = outputs
    return shapes | {"fc.weight": (1000, inputs), "fc.bias": (1000,)}


def affine(name: str, channels: int) -> Shapes:
    return {f"{name}.weight": (channels,), f"{name}.bias": (channels,)}


def linear(name: str, inputs: int, outputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def transformer_block(place: str, dim: int) -> Shapes:
    return (
        affine(f"{place}.norm1", dim)
        | linear(f"{place}.attn.qkv", dim, 3 * dim)
        | linear(f"{place}.attn.proj", dim, dim)
        | affine(f"{place}.norm2", dim)
        | linear(f"{place}.mlp.fc1", dim, 4 * dim)
        | linear(f"{place}.mlp.fc2", 4 * dim, dim)
    )


def deit_small(dim: int = 384, depth: int = 12, side: int = 14) -> Shapes:
    """DeiT without distillation, for `side` patches of 16 px along each axis."""
    shapes: Shapes = {"cls_token": (1, 1, dim), "pos_embed": (1, 1 + side**2, dim)}
    shapes |= {"patch_embed.proj.weight": (dim, 3, 16, 16), "patch_embed.proj.bias": (dim,)}
    for i in range(depth):
        shapes |= transformer_block(f"blocks.{i}", dim)
    return shapes | affine("norm", dim) | linear("head", dim, 1000)


def swin_tiny(dim: int = 96, depths: tuple[int, ...] = (2, 2, 6, 2)) -> Shapes:
    """Swin-T, windows of 7: the tables and masks that it computes are in the file too."""
    shapes: Shapes = {"patch_embed.proj.weight": (dim, 3, 4, 4), "patch_embed.proj.bias": (dim,)}
    shapes |= affine("patch_embed.norm", dim)
    for stage, depth in enumerate(depths):
        width, windows = dim * 2**stage, (8 // 2**stage) ** 2
        for i in range(depth):
            place = f"layers.{stage}.blocks.{i}"
            shapes |= transformer_block(place, width)
            shapes[f"{place}.attn.relative_position_bias_table"] = (169, 3 * 2**stage)
            shapes[f"{place}.attn.relative_position_index"] = (49, 49)
            if i % 2 and stage < 3:
                shapes[f"{place}.attn_mask"] = (windows, 49, 49)
        if stage < 3:
            shapes[f"layers.{stage}.downsample.reduction.weight"] = (2 * width, 4 * width)
            shapes |= affine(f"layers.{stage}.downsample.norm", 4 * width)
    return shapes | affine("norm", 8 * dim) | linear("head", 8 * dim, 1000)


def r50_vit_b16(base: int = 64, dim: int = 768, depth: int = 12, side: int = 14) -> Shapes:
    """Google's R50+ViT-B/16, for `side` tokens along each axis; kernels are HWIO."""

    def group_norm(name: str, channels: int) -> Shapes:
        return {f"{name}/scale": (1, 1, 1, channels), f"{name}/bias": (1, 1, 1, channels)}

    shapes: Shapes = {"conv_root/kernel": (7, 7, 3, base)} | group_norm("gn_root", base)
    inputs = base
    for block, units in enumerate((3, 4, 9)):
        width, outputs = base * 2**block, 4 * base * 2**block
        for unit in range(units):
            place = f"block{block + 1}/unit{unit + 1}"
            shapes[f"{place}/conv1/kernel"] = (1, 1, inputs, width)
            shapes[f"{place}/conv2/kernel"] = (3, 3, width, width)
            shapes[f"{place}/conv3/kernel"] = (1, 1, width, outputs)
            for i, channels in enumerate((width, width, outputs)):
                shapes |= group_norm(f"{place}/gn{i + 1}", channels)
            if unit == 0:
                shapes[f"{place}/conv_proj/kernel"] = (1, 1, inputs, outputs)
                shapes |= group_norm(f"{place}/gn_proj", outputs)
            inputs = outputs
    shapes |= {"embedding/kernel": (1, 1, inputs, dim), "embedding/bias": (dim,)}
    shapes |= {
        "cls": (1, 1, dim),
        "Transformer/posembed_input/pos_embedding": (1, 1 + side**2, dim),
    }
    head = (12, dim // 12)
    for i in range(depth):
        place = f"Transformer/encoderblock_{i}"
        for norm in ("LayerNorm_0", "LayerNorm_2"):
            shapes |= {f"{place}/{norm}/scale": (dim,), f"{place}/{norm}/bias": (dim,)}
        attention = f"{place}/MultiHeadDotProductAttention_1"
        for part in ("query", "key", "value"):
            shapes |= {f"{attention}/{part}/kernel": (dim, *head), f"{attention}/{part}/bias": head}
        shapes |= {f"{attention}/out/kernel": (*head, dim), f"{attention}/out/bias": (dim,)}
        dense = {"Dense_0": (dim, 4 * dim), "Dense_1": (4 * dim, dim)}
        for layer, (i_dim, o_dim) in dense.items():
            shapes[f"{place}/MlpBlock_3/{layer}/kernel"] = (i_dim, o_dim)
            shapes[f"{place}/MlpBlock_3/{layer}/bias"] = (o_dim,)
    norm = {"Transformer/encoder_norm/scale": (dim,), "Transformer/encoder_norm/bias": (dim,)}
    logits = {"pre_logits/kernel": (dim, dim), "pre_logits/bias": (dim,)}
    return shapes | norm | logits | {"head/kernel": (dim, 21843), "head/bias": (21843,)}


def save(path: Path, content: object) -> Path:
    """Write tensors, or what torch.save takes, to a `.npz` or `.pth`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npz":
        assert isinstance(content, dict)
        np.savez(path, **{name: tensor.numpy() for name, tensor in content.items()})
    else:
        torch.save(content, path)
    return path


def parameters(shapes: Shapes) -> int:
    """The numbers in a file, without what batch norms and Swin blocks keep."""
    kept = ("running_mean", "running_var", "num_batches_tracked", "_index", "attn_mask")
    return sum(math.prod(shape) for name, shape in shapes.items() if not name.endswith(kept))
