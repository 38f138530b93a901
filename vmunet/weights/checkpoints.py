"""Weights on disk: this project's safetensors, which describe themselves, and published files.

A file of this project holds the model's arguments and a run's provenance in its header, so one
file is enough to build the model. Published files are read without running any code in them.
"""

import json
import os
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vmunet.architecture import Model
from vmunet.data.synapse.official import CLASSES, WINDOW
from vmunet.errors import InputError
from vmunet.files import naming
from vmunet.models import model_class, name_of

HEADER = "vmunet"  # the entry of a safetensors header that describes the model
PUBLISHED_PREFIX = "vmunet."  # the published model is wrapped in a module of this name
TAKEN = "state_dict"  # header entry of a .pth: the key under which the file held its tensors
# The paper's settings of training (section IV-B), for files that do not state theirs.
ISIC: dict[str, Any] = {"normalisation": "minmax", "size": 256, "protocol": "paper"}
SYNAPSE: dict[str, Any] = {
    "normalisation": "window",
    "window": list(WINDOW),
    "classes": list(CLASSES),
    "size": 224,
    "protocol": "paper",
}
# Release dictionaries may hold their training configuration: read as a plain dictionary.
INERT: list[Any] = [(OrderedDict, "yacs.config.CfgNode")]


def save_checkpoint(path: Path, model: Model, metadata: dict[str, Any]) -> None:
    """Write weights, the model's name and arguments, and `metadata` to a file.

    `metadata` is anything that JSON can hold. The file is written completely or not at all.

    Raises:
        OSError: the disk is full, or cannot be written.
    """
    # One entry: safetensors writes several entries in an order that differs between processes.
    content = {"model": name_of(model), "config": model.config, "metadata": metadata}
    header = {HEADER: json.dumps(content)}
    tensors = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    path = Path(path)
    temporary = path.with_name(path.name + ".tmp")
    try:
        with naming(path):
            save_file(tensors, temporary, metadata=header)
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load_checkpoint(path: Path) -> tuple[Model, dict[str, Any]]:
    """The model of a checkpoint, in eval mode on the CPU, and its metadata.

    Args:
        path: a `.safetensors` file of this project, or a published `.pth` with the prefix
            `vmunet.`. A published file does not describe itself: it gets the paper's settings,
            those of Synapse if it has 9 classes and otherwise those of ISIC.

    Raises:
        InputError: the file is missing, not a checkpoint, or of another architecture.
    """
    path = Path(path)
    tensors, header = read_tensors(path)
    tensors = {name.removeprefix(PUBLISHED_PREFIX): t for name, t in tensors.items()}
    try:
        own = json.loads(header.get(HEADER, "{}"))
        config = own["config"] if own else config_of(tensors, path)
        metadata = (ISIC if own else published_settings(config)) | own.get("metadata", {})
        chosen = model_class(own.get("model", "vmunet"))  # older files hold VM-UNet and no name
        with torch.device("meta"):
            model = chosen(**config)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"{path}: its header is not one that this project writes ({error}); give weights "
            "trained by this project or by the published VM-UNet code"
        ) from None
    check_fits(model, tensors, path)
    model.load_state_dict(tensors, assign=True)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return model.eval(), metadata


def published_settings(config: dict[str, Any]) -> dict[str, Any]:
    """The settings that a published model of this configuration was trained with."""
    return SYNAPSE if config["num_classes"] == len(CLASSES) + 1 else ISIC


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors of a `.safetensors` or `.pth` file by name, and its text header.

    A `.pth` has no header: `TAKEN` then names the state dict that was read.

    Raises:
        InputError: the file is missing, broken, or a pickle that holds more than tensors.
    """
    if not path.is_file():
        raise InputError(
            f"{path}: no such file; give a .safetensors checkpoint or a .pth of tensors"
        )
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt") as file:
                header = file.metadata() or {}
                return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118
        except SafetensorError as error:
            raise InputError(f"{path}: not a whole safetensors file ({error})") from None
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(INERT):
            warnings.simplefilter("ignore")  # torch warns of old pickle protocols
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError) as error:  # torch's errors for a zip that is cut short
        reason = str(error).splitlines()[0][:200] if str(error) else "it ends too early"
        raise InputError(
            f"{path}: damaged, cut short or no checkpoint ({reason}); copy or download it again"
        ) from None
    except Exception:  # a file that is not a checkpoint can make the unpickler raise anything
        raise InputError(
            f"{path}: not loaded, because it is not a file of tensors alone. A pickle that holds "
            "more may run code: save its state dict by itself, or as safetensors"
        ) from None
    tensors, taken = tensors_of(content, path)
    return tensors, {TAKEN: taken}


def tensors_of(content: Any, path: Path) -> tuple[dict[str, Tensor], str]:
    """The state dict in a loaded `.pth`, and its key: `model_ema`, `model`, `state_dict` or ''.

    If a file holds both, the EMA weights are taken. '' means the file itself.

    Raises:
        InputError: the file holds no state dict.
    """
    if isinstance(content, dict):
        keys = [k for k in ("model_ema", "model", "state_dict") if isinstance(content.get(k), dict)]
        taken = next((key for key in keys if content[key]), "")
        tensors = content[taken] if taken else content
        if tensors and all(isinstance(value, Tensor) for value in tensors.values()):
            return dict(tensors), taken
    raise InputError(
        f"{path}: holds no state dict; expected names and tensors, or those under 'model_ema' or "
        "'model'"
    )


def config_of(tensors: dict[str, Tensor], path: Path) -> dict[str, Any]:
    """The VMUNet arguments that a published state dict's names and shapes imply."""
    names = {name.removeprefix(PUBLISHED_PREFIX): tuple(t.shape) for name, t in tensors.items()}

    def blocks(part: str, stage: int) -> int:
        prefix = f"{part}.{stage}.blocks."
        return len({name.split(".")[3] for name in names if name.startswith(prefix)})

    try:
        dim, in_channels = names["patch_embed.proj.weight"][:2]
        return {
            "in_channels": in_channels,
            "num_classes": names["final_conv.weight"][0],
            "depths": [blocks("layers", i) for i in range(4)],
            "depths_decoder": [blocks("layers_up", i) for i in range(4)],
            "dims": [dim * 2**i for i in range(4)],
            "d_state": names["layers.0.blocks.0.self_attention.A_logs"][1],
        }
    except KeyError as missing:
        raise InputError(
            f"{path}: not a VM-UNet checkpoint, it has no {missing}; give weights trained by this "
            "project or by the published VM-UNet code"
        ) from None


def check_fits(model: Model, tensors: dict[str, Tensor], path: Path) -> None:
    """Raise InputError if names or shapes of `tensors` are not exactly the model's."""
    expected = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    given = {name: tuple(t.shape) for name, t in tensors.items()}
    if expected == given:
        return
    missing = sorted(expected.keys() - given.keys())
    extra = sorted(given.keys() - expected.keys())
    shapes = [n for n in expected.keys() & given.keys() if expected[n] != given[n]]
    example = (
        f"missing {missing[0]}"
        if missing
        else f"unexpected {extra[0]}"
        if extra
        else f"{shapes[0]} is {given[shapes[0]]}, not {expected[shapes[0]]}"
    )
    raise InputError(
        f"{path}: weights of another architecture than {model.title}'s ({len(missing)} missing, "
        f"{len(extra)} unexpected, {len(shapes)} of another shape; first: {example})"
    )
