"""Which published tensor each tensor of a model starts from, by the models' authors' own rules.

Two sources are not names alone. Google's vision transformers have kernels of (height, width, in,
out) and of (in, heads, channels of a head), where PyTorch's layers have the outputs first. And a
decoder of Swin blocks starts from the encoder's stage of the same resolution, as far as the shapes
agree.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from vmunet.weights.imagenet.resize import resized_bias_table, resized_positions

R50_VIT = "r50-vit-b16"
SWIN = "swin-tiny"
RES2NET = "res2net50"
RESNET = "resnet34"
DEIT = "deit-small"


def unchanged(tensor: Tensor) -> Tensor:
    return tensor


@dataclass(frozen=True)
class Source:
    """A published tensor.

    Attributes:
        file: the name of the published file (`vmunet.weights.imagenet.files.FILES`).
        name: the tensor's name in it.
        convert: makes the model's tensor of it.
        required: whether it is an error if the file lacks it or its shape does not fit.
    """

    file: str
    name: str
    convert: Callable[[Tensor], Tensor] = unchanged
    required: bool = True


Rule = Callable[[Any, str], Source | None]  # a model, the name of one of its tensors


def conv_kernel(kernel: Tensor) -> Tensor:
    """`(height, width, in, out) -> (out, in, height, width)`."""
    return kernel.permute(3, 2, 0, 1)


def linear_kernel(kernel: Tensor) -> Tensor:
    """`(in, out) -> (out, in)`."""
    return kernel.t()


def heads_kernel(kernel: Tensor) -> Tensor:
    """`(in, heads, out / heads) -> (out, in)`."""
    return kernel.flatten(1).t()


def merging_kernel(kernel: Tensor) -> Tensor:
    """`(heads, in / heads, out) -> (out, in)`."""
    return kernel.flatten(0, 1).t()


# The layers of a transformer block: published name, and what is done with its kernel.
ATTENTION, MLP = "MultiHeadDotProductAttention_1", "MlpBlock_3"
BLOCK: Mapping[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "attn.query": (f"{ATTENTION}/query", heads_kernel),
    "attn.key": (f"{ATTENTION}/key", heads_kernel),
    "attn.value": (f"{ATTENTION}/value", heads_kernel),
    "attn.out": (f"{ATTENTION}/out", merging_kernel),
    "ffn.fc1": (f"{MLP}/Dense_0", linear_kernel),
    "ffn.fc2": (f"{MLP}/Dense_1", linear_kernel),
}
NORMS = {"attention_norm": "LayerNorm_0", "ffn_norm": "LayerNorm_2"}


def norm(layer: str, kind: str) -> Source:
    """A norm's weight or bias, which may be published with axes of length 1."""
    return Source(R50_VIT, f"{layer}/{'scale' if kind == 'weight' else kind}", Tensor.flatten)


def resnet_v2(name: str) -> Source:
    """The source of a tensor of `vmunet.models.parts.resnet_v2.ResNetV2`."""
    *place, layer, kind = name.removeprefix("body.").split(".")
    if place == ["root"]:
        place, layer = [], f"{layer}_root"
    layer = "/".join([*place, "conv_proj" if layer == "downsample" else layer])
    is_conv = layer.rpartition("/")[2].startswith("conv")
    return Source(R50_VIT, f"{layer}/kernel", conv_kernel) if is_conv else norm(layer, kind)


def transformer_block(index: str, layer: str, kind: str) -> Source | None:
    """The source of a tensor of `vmunet.models.parts.vit.Block`; TransNorm's `spatial` has none."""
    place = f"Transformer/encoderblock_{index}"
    if layer in NORMS:
        return norm(f"{place}/{NORMS[layer]}", kind)
    if layer not in BLOCK:
        return None
    published, convert = BLOCK[layer]
    if kind == "bias":
        return Source(R50_VIT, f"{place}/{published}/bias", Tensor.flatten)
    return Source(R50_VIT, f"{place}/{published}/kernel", convert)


def transunet(model: Any, name: str) -> Source | None:
    """TransUNet and TransNorm: the ResNet and the vision transformer, nothing of the decoder."""
    part, _, rest = name.removeprefix("transformer.").partition(".")
    if part == "embeddings":
        if rest.startswith("hybrid_model."):
            return resnet_v2(rest.removeprefix("hybrid_model."))
        if rest == "position_embeddings":
            grid = model.transformer.embeddings.grid
            positions = "Transformer/posembed_input/pos_embedding"
            return Source(R50_VIT, positions, partial(resized_positions, grid=grid))
        if rest == "patch_embeddings.weight":
            return Source(R50_VIT, "embedding/kernel", conv_kernel)
        return Source(R50_VIT, "embedding/bias")
    if part == "encoder":
        layer, _, kind = rest.rpartition(".")
        if layer == "encoder_norm":
            return norm("Transformer/encoder_norm", kind)
        _, index, layer = layer.split(".", 2)
        return transformer_block(index, layer, kind)
    return None


def r50_unet(model: Any, name: str) -> Source | None:
    """The R50 U-Net: the ResNet of TransUNet's file."""
    part, _, rest = name.partition(".")
    return resnet_v2(rest) if part == "hybrid_model" else None


def transfuse(model: Any, name: str) -> Source | None:
    """TransFuse: three of ResNet-34's four stages and eight of DeiT's twelve layers."""
    part, _, rest = name.partition(".")
    if part == "resnet":
        return batch_normalised(RESNET, rest)
    if part == "transformer":
        if rest == "pos_embed":
            return Source(DEIT, rest, partial(resized_positions, grid=model.transformer.grid))
        return Source(DEIT, rest)
    return None


def sanet(model: Any, name: str) -> Source | None:
    """SANet: Res2Net-50 without its classifier."""
    part, _, rest = name.partition(".")
    return batch_normalised(RES2NET, rest) if part == "bkbone" else None


def batch_normalised(file: str, name: str) -> Source:
    """A tensor of the same name; old files do not count the batches that a norm has seen."""
    return Source(file, name, required=not name.endswith("num_batches_tracked"))


def swin_unet(model: Any, name: str) -> Source | None:
    """Swin U-Net: the encoder, and stage i of the decoder from stage 3 - i of the encoder."""
    part, _, rest = name.partition(".")
    if part in ("patch_embed", "layers", "norm"):
        return swin(model, name, name)
    if part == "layers_up":
        return swin(model, name, mirrored(rest, 3), required=False)
    return None


def transdeeplab(model: Any, name: str) -> Source | None:
    """TransDeepLab: three stages of the encoder; stage i of the decoder from stage 1 - i."""
    part, _, rest = name.partition(".")
    if part == "encoder" and rest.startswith(("patch_embed.", "layers.")):
        return swin(model, name, rest)
    stages, _, rest = rest.partition(".")
    if part == "decoder" and stages in ("layers_up", "last_layers_up"):
        return swin(model, name, mirrored(rest, 1), required=False)
    return None


def mirrored(rest: str, last: int) -> str:
    """The encoder's name of `<stage>.<rest>` of a decoder: stage `last` - stage."""
    stage, _, rest = rest.partition(".")
    return f"layers.{last - int(stage)}.{rest}"


def swin(model: Any, name: str, published: str, required: bool = True) -> Source | None:
    """The source of a tensor of Swin blocks; what follows from the image's size has none."""
    layer, _, kind = name.rpartition(".")
    if kind in ("relative_position_index", "attn_mask"):
        return None
    convert = unchanged
    if kind == "relative_position_bias_table":
        window = model.get_submodule(layer.removesuffix(".attn")).window
        convert = partial(resized_bias_table, window=window)
    return Source(SWIN, published, convert, required)


RULES: Mapping[str, Rule] = {
    "r50-unet": r50_unet,
    "transunet": transunet,
    "transnorm": transunet,
    "swin-unet": swin_unet,
    "transdeeplab": transdeeplab,
    "transfuse": transfuse,
    "sanet": sanet,
}
