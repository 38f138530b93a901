"""Segment CT volumes: one array (`segment_volume`) or NIfTI files (`segment_volumes`).

As in the published test, the values are clipped to a window and stretched to 0..1, every
axial slice is resized to the square that the model was trained at, its most probable label is
taken there, and the label map is resized back without mixing labels. A model of three dimensions
sees windows of the resized slices (`vmunet.inference.windows`).
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import nn
from tqdm import tqdm

from vmunet.architecture import Model
from vmunet.data.nifti import Volume, read_volume, write_labels
from vmunet.data.patches import Sides, patches_of
from vmunet.data.slices import (
    Resize,
    check_resize,
    percentiles,
    resize_labels,
    resize_slice,
    window_ct,
)
from vmunet.drawing.sheets.volumes import draw_sheet
from vmunet.errors import InputError
from vmunet.inference.ensemble import choose_device, find_all_weights
from vmunet.inference.files import (
    VOLUMES,
    check_out,
    find_inputs,
    segment_each,
    stem_of,
    write_image,
)
from vmunet.inference.tables import VolumePrediction
from vmunet.inference.windows import window_probabilities
from vmunet.model import SIZE_MULTIPLE
from vmunet.protocols import PROTOCOLS
from vmunet.threads import in_threads
from vmunet.weights.checkpoints import (
    HEADER,
    config_of,
    load_checkpoint,
    published_settings,
    read_tensors,
)
from vmunet.weights.header import read_entry

NORMALISATIONS = ("window", "percentiles")  # in a volume model's metadata
BATCH = 24  # slices that a model sees at once


@dataclass(frozen=True)
class Setting:
    """What the models of an ensemble must share: their input and the meaning of their labels.

    size: side of the square, px. resize: how slices become it. window: low and high, HU; None for
        each volume's own percentiles (`vmunet.data.slices.percentiles`).
    organs: the names of labels 1, 2, ...; 0 is the background.
    patch: sides of the windows that models of three dimensions see; None for models of slices.
    """

    size: int
    resize: Resize
    window: tuple[float, float] | None
    organs: tuple[str, ...]
    patch: Sides | None = None

    def window_of(self, volume: NDArray) -> tuple[float, float]:
        """The lowest and the highest value that the models tell apart in a volume, HU."""
        return self.window or percentiles(volume)


class SegmentedVolumes(NamedTuple):
    """The result of `segment_volumes`: a row for each volume's organs, and the files left out."""

    predictions: list[VolumePrediction]
    volumes: int
    skipped: list[Path]


def segment_volume(
    models: Sequence[nn.Module],
    volume: NDArray,
    size: int,
    resize: Resize,
    window: tuple[float, float],
    batch_size: int = BATCH,
    patch: Sequence[int] | None = None,
) -> NDArray[np.uint8]:
    """The most probable label of each voxel.

    Args:
        models: trained at `size`, of the same classes; their probabilities are averaged before the
            label is chosen.
        volume: (depth, height, width), HU, from inferior to superior, anterior to posterior, right
            to left (vmunet.data.nifti).
        size: side of the square the models see, px, a multiple of 32.
        resize: how the training slices were resized: `cubic` (paper) or `area` (sound).
        window: low and high, HU, clipped to and stretched to 0..1.
        batch_size: slices that a model sees at once; for time and memory. It could change a label
            only if two are equally probable to the last bits of float32.
        patch: for models of three dimensions, the sides of the patches that they were trained on;
            they see windows of this size, as many at once as have the voxels of the slices.

    Returns:
        uint8 (depth, height, width), labels 0..classes-1.

    Raises:
        InputError: a wrong argument, NaN in the volume, models with one class or with different
            classes, or weights that give NaN or infinite values.
    """
    _check(models, volume, size, resize, batch_size)
    shape = volume.shape[1:]

    def small(plane: NDArray) -> NDArray[np.float32]:
        return resize_slice(window_ct(plane, *window), size, resize)

    # All slices at once: at the models' size they are small. Probabilities are kept for a batch.
    slices = in_threads(small, list(volume), "resizing")
    with _evaluating(models), torch.inference_mode():
        if patch is None:
            labels = _labels_of_slices(models, slices, batch_size)
        else:
            labels = _labels_by_windows(models, slices, patch, patches_of(batch_size, size, patch))
    return np.stack(in_threads(lambda m: resize_labels(m, shape, resize), labels, "resizing back"))


@contextmanager
def _evaluating(models: Sequence[nn.Module]) -> Iterator[None]:
    """The models in eval mode; afterwards in the modes that they were in."""
    modes = [model.training for model in models]
    try:
        for model in models:
            model.eval()
        yield
    finally:
        for model, mode in zip(models, modes, strict=True):
            model.train(mode)


def _labels_of_slices(
    models: Sequence[nn.Module], slices: Sequence[NDArray], batch_size: int
) -> list[NDArray[np.uint8]]:
    labels: list[NDArray[np.uint8]] = []
    with tqdm(total=len(slices), desc="slices", leave=False, disable=None) as bar:
        for start in range(0, len(slices), batch_size):
            batch = torch.from_numpy(np.stack(slices[start : start + batch_size]))[:, None]
            outputs = (model(batch.to(next(model.parameters()).device)) for model in models)
            labels.extend(_likeliest(torch.softmax(x.float(), dim=1).cpu() for x in outputs))
            bar.update(len(batch))
    return labels


def _labels_by_windows(
    models: Sequence[nn.Module], slices: Sequence[NDArray], patch: Sequence[int], batch_size: int
) -> list[NDArray[np.uint8]]:
    volume = torch.from_numpy(np.stack(slices))
    labels: list[NDArray[np.uint8]] = []
    for block in window_probabilities(models, volume, patch, batch_size):
        labels.extend(_likeliest(probability[None] for probability in block)[0])
    return labels


def segment_as(
    models: Sequence[nn.Module], setting: Setting, volume: NDArray, batch_size: int = BATCH
) -> NDArray[np.uint8]:
    """`segment_volume` with the models' own settings (`load_volume_models`)."""
    window = setting.window_of(volume)
    return segment_volume(
        models, volume, setting.size, setting.resize, window, batch_size, setting.patch
    )


def _check(
    models: Sequence[nn.Module], volume: NDArray, size: int, resize: str, batch_size: int
) -> None:
    if not models:
        raise InputError("models: expected one or more, got none")
    if volume.ndim != 3 or volume.size == 0 or volume.dtype.kind not in "iuf":
        raise InputError(
            f"volume: expected numbers (depth, height, width), got {volume.dtype} {volume.shape}"
        )
    # float64 so that huge values do not overflow to infinity in the sum
    if volume.dtype.kind == "f" and not np.isfinite(volume.sum(dtype=np.float64)):
        raise InputError("volume: holds NaN or infinite values; expected HU in every voxel")
    check_size(size)
    check_resize(resize)
    if batch_size < 1:
        raise InputError(f"batch_size {batch_size}: expected 1 or more")


def check_size(size: int) -> None:
    """Raise InputError if slices cannot be segmented at this size, px."""
    if size < SIZE_MULTIPLE or size % SIZE_MULTIPLE:
        raise InputError(
            f"size {size}: slices are segmented at a multiple of {SIZE_MULTIPLE} px, such as 224"
        )


def _likeliest(outputs: Iterable[torch.Tensor]) -> NDArray[np.uint8]:
    """Most probable labels (batch, ...), by each model's probabilities (batch, classes, ...)."""
    mean: torch.Tensor | None = None
    for probability in outputs:
        classes = probability.shape[1]
        if not 2 <= classes <= 256 or (mean is not None and mean.shape[1] != classes):
            raise InputError(
                f"a model has {classes} classes; expected the background and up to 255 organs, "
                "the same in all models"
            )
        mean = probability if mean is None else mean.add_(probability)
    assert mean is not None
    if not torch.isfinite(mean).all():
        raise InputError("the weights give NaN or infinite values: they cannot be used")
    return mean.argmax(dim=1).to(torch.uint8).numpy()


def is_volume_model(path: Path) -> bool:
    """Whether a checkpoint segments CT volumes; False if it cannot be read."""
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                header = read_entry((file.metadata() or {}).get(HEADER, "{}"))
            return header["metadata"]["normalisation"] in NORMALISATIONS
        config = config_of(read_tensors(path)[0], path)
        return published_settings(config)["normalisation"] in NORMALISATIONS
    except (InputError, SafetensorError, OSError, ValueError, KeyError, TypeError):
        return False


def load_volume_models(
    weights: Iterable[Path], device: str | None = None, size: int | None = None
) -> tuple[list[Model], Setting]:
    """Load every checkpoint that `weights` names as one ensemble for volumes.

    Args:
        weights: files, run folders, or folders of run folders
            (`vmunet.inference.ensemble.find_weights`).
        device: `cpu`, `cuda` or `cuda:N`; by default CUDA if there is a GPU.
        size: side of the square the models see, px; by default the training size.

    Raises:
        InputError: a checkpoint is missing, foreign or not for CT volumes, or two differ in their
            input or in their organs.
    """
    target = choose_device(device)
    loaded: dict[Path, tuple[Model, Setting]] = {}
    for path in find_all_weights(weights):
        model, metadata = load_checkpoint(path)
        loaded[path] = model.to(target), _setting(path, model, metadata, size)
    if not loaded:
        raise InputError("weights: expected one or more, got none")
    (first, (_, setting)), *others = loaded.items()
    for path, (_, other) in others:
        differ = [name for name in vars(setting) if getattr(setting, name) != getattr(other, name)]
        if differ:
            name = differ[0]
            raise InputError(
                f"{first} and {path} cannot be averaged, their {name} differ: "
                f"{getattr(setting, name)} and {getattr(other, name)}; segment with each by itself"
            )
    return [model for model, _ in loaded.values()], setting


def _setting(path: Path, model: Model, metadata: dict[str, Any], size: int | None) -> Setting:
    if metadata["normalisation"] not in NORMALISATIONS:
        raise InputError(
            f"{path}: its input normalisation is '{metadata['normalisation']}'; expected "
            f"{' or '.join(map(repr, NORMALISATIONS))}, a model of CT volumes"
        )
    if metadata["protocol"] not in PROTOCOLS:
        raise InputError(
            f"{path}: trained under the unknown protocol '{metadata['protocol']}'; known: "
            f"{', '.join(PROTOCOLS)}"
        )
    try:
        window = None
        if metadata["normalisation"] == "window":
            low, high = map(float, metadata["window"])
            window_ct(np.zeros(1), low, high)
            window = (low, high)
        organs = tuple(map(str, metadata["classes"]))
        trained_at = int(metadata["size"])
        patch = _patch(model, metadata)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: its header lacks the settings of a model of CT volumes ({error!r}); "
            "expected window, size and classes, and patch if its model takes volumes: train it "
            "with this project"
        ) from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    outputs, channels = model.config["num_classes"], model.config["in_channels"]
    if outputs != len(organs) + 1 or channels not in (1, 3):
        raise InputError(
            f"{path}: names {len(organs)} organs, and has {outputs} classes and {channels} "
            f"channels; expected {len(organs) + 1} classes, the background being one, and 1 or 3 "
            "channels"
        )
    try:
        check_size(size or trained_at)
    except InputError as error:
        raise error if size else InputError(f"{path}: {error}") from None
    resize = PROTOCOLS[metadata["protocol"]].slice_resize
    return Setting(size or trained_at, resize, window, organs, patch)


def _patch(model: Model, metadata: dict[str, Any]) -> Sides | None:
    """The sides of the patches that a model of three dimensions was trained on; None for others."""
    if model.dimensions == 2:
        return None
    depth, height, width = map(int, metadata["patch"])
    if any(side < 1 or side % model.stride for side in (depth, height, width)):
        raise ValueError(f"patch {metadata['patch']}, not multiples of {model.stride}")
    return depth, height, width


def segment_volumes(
    weights: Iterable[Path],
    volumes: Sequence[Path],
    out: Path,
    *,
    size: int | None = None,
    device: str | None = None,
    overlay: bool = False,
    batch_size: int = BATCH,
) -> SegmentedVolumes:
    """Segment NIfTI files and write their label maps into the folder `out`.

    Written for each volume, replacing what an earlier run left: `<stem>_labels.nii.gz` on the
    volume's own grid; with `overlay` `<stem>_overlay.png` (a sheet of slices with the organs'
    outlines). Then `predictions.csv`, a row for each organ of each volume (`VolumePrediction`).

    Args:
        weights, device, size: see `load_volume_models`.
        volumes: files and folders, see `find_inputs`.
        out: the folder is made if it does not exist; it cannot be the folder of the volumes.
        batch_size: see `segment_volume`.

    Raises:
        InputError: before anything is written if an argument is wrong; after the rest was
            segmented if single volumes could not be read, naming each.
    """
    out = Path(out)
    files, skipped = find_inputs(volumes, VOLUMES)
    check_out(out, files, VOLUMES)
    models, setting = load_volume_models(weights, device, size)

    def segment(file: Path) -> tuple[Volume, NDArray[np.uint8]]:
        volume = read_volume(file)
        return volume, segment_as(models, setting, volume.voxels, batch_size)

    def write(file: Path, segmented: tuple[Volume, NDArray[np.uint8]]) -> list[VolumePrediction]:
        volume, labels = segmented
        stem = stem_of(file)
        write_labels(out / f"{stem}_labels.nii.gz", labels, volume)
        if overlay:
            sheet = draw_sheet(
                volume.voxels,
                labels,
                setting.organs,
                setting.window_of(volume.voxels),
                volume.spacing,
                file.name,
            )
            write_image(out / f"{stem}_overlay.png", sheet)
        return VolumePrediction.each(file, labels, setting.organs, volume.voxel_ml)

    rows = segment_each(files, out, VOLUMES, segment, write)
    return SegmentedVolumes(rows, len(files), skipped)
