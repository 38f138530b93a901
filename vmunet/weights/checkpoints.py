"""Weights on disk: this project's safetensors, which describe themselves, and published files.

A file of this project holds the model's arguments and a run's provenance in its header, so one
file is enough to build the model. Published files are read without running any code in them.
"""

import json
import os
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from vmunet.architecture import Model
from vmunet.data.synapse.official import CLASSES, WINDOW
from vmunet.errors import InputError
from vmunet.files import naming
from vmunet.models import model_class, name_of
from vmunet.weights.header import check_arguments, check_size, read_entry

HEADER = "vmunet"  # the entry of a safetensors header that describes the model
# Wrappers' names before those of a state dict: parallel training, torch.compile, trainers, and the
# module of the published VM-UNet.
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "vmunet.")
COUNTERS = ("total_ops", "total_params")  # buffers that thop adds to every module
# Keys of a state dict in a training's file; the first is taken, so EMA weights come first (a
# reader may put another one before them).
STATE_DICTS = (
    *("model_ema", "ema", "ema_state_dict", "state_dict_ema", "model_ema_state_dict"),
    *("model", "model_state_dict", "state_dict", "net", "net_state_dict", "network_weights"),
    *("params", "module"),
)
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
SHOWN = 3  # names of a list in a message


class Inert:
    """In place of what is no tensor, such as a loss of numpy's: it keeps and runs nothing."""

    def __init__(self, *arguments: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


# What training files hold beside tensors. Configurations are read as plain dictionaries.
INERT: list[Any] = [
    *((OrderedDict, name) for name in ("yacs.config.CfgNode", "easydict.EasyDict")),
    *(
        (OrderedDict, f"{name}.AttributeDict")
        for name in (
            "lightning_fabric.utilities.data",
            "lightning.fabric.utilities.data",
            "pytorch_lightning.utilities.parsing",
        )
    ),
    *(
        (Inert, f"numpy.{core}.multiarray.{name}")
        for core in ("core", "_core")
        for name in ("scalar", "_reconstruct")
    ),
    *((Inert, name) for name in ("numpy.dtype", "numpy.ndarray", "argparse.Namespace")),
]


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
            write_tensors(temporary, tensors, header)
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_tensors(
    path: Path, tensors: dict[str, Tensor], header: dict[str, str] | None = None
) -> None:
    """Write a safetensors file with the umask's mode; safetensors' own `save_file` gives 0600."""
    path.write_bytes(save(tensors, metadata=header))


def load_checkpoint(path: Path) -> tuple[Model, dict[str, Any]]:
    """The model of a checkpoint, in eval mode on the CPU, and its metadata.

    Args:
        path: a `.safetensors` file of this project, or a `.pth` of the published code
            (`read_tensors` says in which forms). Such a file does not describe itself: it gets the
            paper's settings, those of Synapse if it has 9 classes and otherwise those of ISIC.

    Raises:
        InputError: the file is missing, not a checkpoint, or of another architecture.
    """
    path = Path(path)
    tensors, header = read_tensors(path)
    try:
        own = read_entry(header.get(HEADER, "{}"))
        config = own["config"] if own else config_of(tensors, path)
        metadata = (ISIC if own else published_settings(config)) | own.get("metadata", {})
        check_arguments(config)
        check_size(metadata)
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


def read_tensors(path: Path, first: Sequence[str] = ()) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors of a `.safetensors` or `.pth` file by name, and its text header.

    A `.pth` has no header: `TAKEN` then names the state dict that was read. Floating values are
    float32, whatever the file holds. If this project did not write the file, FLOP counters' buffers
    and the prefixes that all names share (PREFIXES) are left out.

    Args:
        first: keys of state dicts that are taken before STATE_DICTS.

    Raises:
        InputError: the file is missing, broken, or a pickle that holds more than tensors, numbers
            and settings.
    """
    tensors, header = _stored_tensors(path, first)
    if HEADER not in header:
        tensors = unwrapped(tensors)
    return {n: t.float() if t.is_floating_point() else t for n, t in tensors.items()}, header


def unwrapped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors without FLOP counters and without the PREFIXES that all names share."""
    kept = {n: t for n, t in tensors.items() if n.rpartition(".")[2] not in COUNTERS}
    while shared := [p for p in PREFIXES if kept and all(n.startswith(p) for n in kept)]:
        kept = {name.removeprefix(shared[0]): t for name, t in kept.items()}
    return kept


def listed(names: Iterable[str]) -> str:
    """The number of names and the first of them, for a message: "4 (a, b, c, ...)"."""
    every = list(names)
    first = ", ".join(every[:SHOWN]) + (", ..." if every[SHOWN:] else "")
    return f"{len(every)} ({first})" if every else "0"


def _stored_tensors(path: Path, first: Sequence[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
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
            "more, such as a whole model, may run code: save its state dict by itself, or as "
            "safetensors"
        ) from None
    tensors, taken = tensors_of(content, path, first)
    return tensors, {TAKEN: taken}


def tensors_of(
    content: Any, path: Path, first: Sequence[str] = ()
) -> tuple[dict[str, Tensor], str]:
    """The state dict in a loaded `.pth`, and its key, such as `model_ema` or `ema.module`.

    It is the content itself (the key is ''), or lies under the first of `first` and STATE_DICTS
    that holds one, or under another key, if it is the only one.

    Raises:
        InputError: the file holds no state dict, or several under unknown keys.
    """
    found = _find(content, (*first, *STATE_DICTS))
    if len(found) == 1:
        (taken, tensors), *_ = found.items()
        return dict(tensors), taken
    what = f"{listed(found)} state dicts" if found else "no state dict"
    raise InputError(
        f"{path}: holds {what}; expected names and tensors, or those under one of "
        f"{', '.join(STATE_DICTS)}"
    )


def _find(content: Any, keys: Sequence[str]) -> dict[str, dict[str, Tensor]]:
    """The state dicts in a dictionary, by their keys; one alone if its key is known."""
    if not isinstance(content, dict) or not content:
        return {}
    if all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items()):
        return {"": content}
    others = [key for key in content if isinstance(key, str) and key not in keys]
    for key in keys:
        if inside := _find(content.get(key), keys):
            return {f"{key}.{deeper}".rstrip("."): value for deeper, value in inside.items()}
    return {key: inside[""] for key in others if (inside := _find(content[key], keys)).get("")}


def config_of(tensors: dict[str, Tensor], path: Path) -> dict[str, Any]:
    """The VMUNet arguments that a published state dict's names and shapes imply."""
    names = {name: tuple(t.shape) for name, t in tensors.items()}

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
    except (KeyError, IndexError, ValueError) as missing:
        raise InputError(
            f"{path}: not a VM-UNet checkpoint but another model's: it has no {missing}, and its "
            f"tensors are {listed(names)}; give weights trained by this project or by the "
            "published VM-UNet code"
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
    wrong_shapes = (f"{n} of {given[n]}, not {expected[n]}" for n in sorted(shapes))
    # With the same names, the last layer alone differs by the classes, all layers by the width.
    reason = "another model, or another number of blocks"
    if not missing and not extra:
        few = 2 * len(shapes) < len(expected)
        reason = "another number of classes" if few else "another width"
    raise InputError(
        f"{path}: weights of another architecture than {model.title}'s ({reason}): missing "
        f"{listed(missing)}, unexpected {listed(extra)}, of another shape {listed(wrong_shapes)}"
    )
