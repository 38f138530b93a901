"""ImageNet weights as the initial weights of the models whose authors start from them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vmunet.architecture import Model
from vmunet.errors import InputError
from vmunet.models import name_of
from vmunet.weights.imagenet.files import FILES, files_for
from vmunet.weights.imagenet.read import read_published
from vmunet.weights.imagenet.rules import RULES, Source

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's colours, 0..1
# The first layer of a model in which no norm takes the images' scale away.
NORMALISED = {"transfuse": "transformer.patch_embed.proj"}


@dataclass(frozen=True)
class Filled:
    """What published files filled in a model.

    Attributes:
        taken: the files' tensors that fill something, as `<file>: <tensor>`.
        filled: the model's tensors that they fill; the others keep their random values.
        unused: the files' tensors that fill nothing.
    """

    taken: list[str]
    filled: list[str]
    unused: list[str]


@torch.no_grad()
def fill_from_imagenet(model: Model, files: Mapping[str, Path], brightest: float = 255.0) -> Filled:
    """Copy the published weights that the model's authors start from into the model.

    Args:
        model: a model of width 1, for images of any size that it takes.
        files: the path of each file of `files_for`, as published or as safetensors with the
            published names.
        brightest: the largest value of the images that the model will see; the smallest is 0.

    Raises:
        InputError: the model's authors start at random, or a file is missing, of another network,
            or does not fit. The model is then unchanged.
    """
    wanted = files_for(name_of(model))
    if not wanted:
        raise InputError(f"{model.title}: no ImageNet weights are known; start it at random")
    for file in wanted:
        if file not in files:
            raise InputError(f"{model.title} starts from {FILES[file].file}: give its path")
    published = {file: read_file(file, files[file]) for file in wanted}
    own = model.state_dict()
    sources = {target: RULES[name_of(model)](model, target) for target in own}
    values: dict[str, Tensor] = {}
    taken: set[tuple[str, str]] = set()
    missing: list[Source] = []
    misfits: list[tuple[Source, str]] = []
    for target, source in sources.items():
        if source is None:
            continue
        tensor = published[source.file].get(source.name)
        value = None if tensor is None else converted(tensor, source)
        if value is not None and value.shape == own[target].shape:
            values[target] = value
            taken.add((source.file, source.name))
        elif source.required and tensor is None:
            missing.append(source)
        elif source.required:
            misfits.append((source, target))
    if missing:
        first = missing[0]
        raise InputError(
            f"{files[first.file]}: not {FILES[first.file].file}: {len(missing)} of the tensors "
            f"that {model.title} starts from are missing, the first {first.name}"
        )
    if misfits:
        first, target = misfits[0]
        width = model.config.get("width", 1.0)
        reason = "" if width == 1 else f"; published weights fit the width 1, this one is {width:g}"
        raise InputError(
            f"{files[first.file]}: does not fit {len(misfits)} of {model.title}'s tensors, the "
            f"first {first.name} of {tuple(published[first.file][first.name].shape)} for {target} "
            f"of {tuple(own[target].shape)}{reason}"
        )
    if layer := NORMALISED.get(name_of(model)):
        weight, bias = f"{layer}.weight", f"{layer}.bias"
        values[weight], values[bias] = of_raw_images(values[weight], values[bias], brightest)
    for target, value in values.items():
        own[target].copy_(value)
    everything = [(file, name) for file, tensors in published.items() for name in tensors]
    return Filled(
        [f"{file}: {name}" for file, name in everything if (file, name) in taken],
        list(values),
        [f"{file}: {name}" for file, name in everything if (file, name) not in taken],
    )


def of_raw_images(weight: Tensor, bias: Tensor, brightest: float) -> tuple[Tensor, Tensor]:
    """A convolution of images of 0..`brightest`, from that of images that ImageNet's mean and
    standard deviation normalise. It is exact without padding.

    Args:
        weight: `(out, 3, height, width)`.
        bias: `(out,)`.
        brightest: a positive value.
    """
    mean, deviation = (torch.tensor(values)[:, None, None] for values in (MEAN, DEVIATION))
    return weight / (brightest * deviation), bias - (weight * mean / deviation).sum((1, 2, 3))


def read_file(name: str, path: Path) -> dict[str, Tensor]:
    """The tensors of a published file.

    Raises:
        InputError: it cannot be read, or is of a deeper network of the same kind.
    """
    tensors, _ = read_published(path)
    if FILES[name].lacks in tensors:
        raise InputError(
            f"{path}: not {FILES[name].file} but a deeper network, which has {FILES[name].lacks}"
        )
    return tensors


def converted(tensor: Tensor, source: Source) -> Tensor | None:
    """The model's tensor from a published one; None if that has other axes."""
    try:
        return source.convert(tensor)
    except (RuntimeError, IndexError):
        return None
