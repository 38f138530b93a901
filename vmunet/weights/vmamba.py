"""Published VMamba v0 files in any of their layouts, converted once to safetensors.

It reads the release's dictionaries, the VM-UNet authors' copies (`vmamba_small_e238_ema.pth`: EMA
weights under `model`) and plain state dicts, with or without wrappers' prefixes
(`vmunet.weights.checkpoints.read_tensors`). The blocks in a file, not its name, say which VMamba it
holds.

If a file holds both plain weights (`model`) and EMA weights (`model_ema`), those are taken that the
paper's runs had. The VM-UNet authors' loader takes `model` from any file. Their copy of VMamba-S
holds EMA weights there, so of VMamba-S the EMA weights are taken, and of VMamba-T the plain ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from vmunet.errors import InputError
from vmunet.files import whole_file
from vmunet.model import VMUNet
from vmunet.weights.checkpoints import TAKEN, listed, read_tensors, write_tensors
from vmunet.weights.initial import fill_from_vmamba
from vmunet.weights.pretraining import VMAMBA_DEPTHS

V0_BLOCK = ".self_attention.A_logs"  # every block of VMamba v0 has one
PLAIN_FIRST = {"vmamba-t": ("model",)}  # state dicts that go before EMA weights
GIVE = "give the v0 release of VMamba-T or VMamba-S"


@dataclass(frozen=True)
class Converted:
    """A published file as safetensors in VMamba v0's names.

    Attributes:
        name: `vmamba-t` or `vmamba-s`.
        source: the published file.
        path: the converted file.
        taken: the key of the source's state dict, '' for the file itself.
    """

    name: str
    source: Path
    path: Path
    taken: str


@dataclass(frozen=True)
class Coverage:
    """The tensors of the paper's VM-UNet that a file fills, and those that it does not.

    Attributes:
        encoder, decoder: names of VM-UNet's tensors that the file fills.
        unfilled: names of VM-UNet's tensors that keep their own initial values.
        unused: names of the file's tensors that fill none of VM-UNet's.
    """

    encoder: list[str]
    decoder: list[str]
    unfilled: list[str]
    unused: list[str]


def convert(source: Path, sha256: str, cache: Path) -> Converted:
    """Convert the file to safetensors in `cache`, if the same bytes were not converted before.

    Args:
        source: a `.pth` or `.safetensors` file.
        sha256: the source's SHA-256, which names the converted file.
        cache: folder of converted files.

    Raises:
        InputError: the source is missing, damaged, holds code, or is not VMamba-T or VMamba-S v0.
    """
    kept = cache / f"{sha256}-as-published.safetensors"
    if not kept.exists():
        tensors, header = read_tensors(source)
        name = recognise(tensors, source)
        if first := PLAIN_FIRST.get(name):
            tensors, header = read_tensors(source, first)
            recognise(tensors, source)
        plain = {key: tensor.detach().clone().contiguous() for key, tensor in tensors.items()}
        # One entry: safetensors writes several entries in an order that differs between processes.
        about = {"vmamba": f"{name} {header.get(TAKEN, '')}"}
        with whole_file(kept) as part:
            write_tensors(part, plain, about)
    _, header = read_tensors(kept)
    name, _, taken = header["vmamba"].partition(" ")
    return Converted(name, source, kept, taken)


def recognise(tensors: dict[str, Tensor], path: Path) -> str:
    """`vmamba-t` or `vmamba-s`, by the blocks of the four stages.

    Raises:
        InputError: the file is neither; the message says what it seems to be.
    """
    depths = _depths(list(tensors))
    for name, expected in VMAMBA_DEPTHS.items():
        if depths == expected:
            return name
    if any(depths):
        t, s = VMAMBA_DEPTHS["vmamba-t"], VMAMBA_DEPTHS["vmamba-s"]
        what = f"its stages have {depths} blocks, VMamba-T's {t} and VMamba-S's {s}"
    elif later := [name for name in tensors if ".op." in name]:
        what = f"a later VMamba's, with names such as {later[0]}, where v0's hold{V0_BLOCK}"
    else:
        what = f"another model's, whose tensors are {listed(tensors)}"
    raise InputError(f"{path}: not VMamba v0 weights but {what}; {GIVE}")


def _depths(names: Sequence[str]) -> tuple[int, ...]:
    blocks = [name.split(".") for name in names if name.endswith(V0_BLOCK)]
    return tuple(
        len({parts[3] for parts in blocks if parts[:3] == ["layers", str(stage), "blocks"]})
        for stage in range(4)
    )


def coverage_of(converted: Converted, dims: Sequence[int], states: int = 16) -> Coverage:
    """The tensors that a converted file fills in VM-UNet with the paper's depths.

    Args:
        dims: the model's channels by stage.
        states: its state size.

    Raises:
        InputError: a tensor does not fit, because it is of another width or state size.
    """
    model = VMUNet(dims=tuple(dims), d_state=states)
    tensors, _ = read_tensors(converted.path)
    filled = fill_from_vmamba(model, tensors, converted.source)
    filled_names = {*filled.encoder, *filled.decoder}
    unfilled = [name for name in model.state_dict() if name not in filled_names]
    return Coverage(filled.encoder, filled.decoder, unfilled, filled.unused)


def describe(converted: Converted, coverage: Coverage) -> str:
    """One line for people: how many tensors the file fills."""
    key = f" ('{converted.taken}')" if converted.taken else ""
    encoder, decoder = len(coverage.encoder), len(coverage.decoder)
    unfilled, unused = len(coverage.unfilled), len(coverage.unused)
    return (
        f"{converted.name} from {converted.source.name}{key}: {encoder} tensors fill "
        f"the encoder, {decoder} the decoder; {unfilled} of VM-UNet's keep their own "
        f"initial values, {unused} of the file's are unused"
    )
