"""Checked CT volumes as the arrays that training slices and evaluation scores.

data/arrays/<view>/cases/<case>/image.npy   float32 (depth, height, width), 0..1: HU windowed
data/arrays/<view>/cases/<case>/labels.npy  uint8, 0 the background, 1.. the classes
data/arrays/<view>/manifest.json            source, classes, split, spacing and voxel counts, and
                                            the size at which slices train

The arrays keep the volumes' own pixels: published training augments slices at that size and
resizes them afterwards. Slices run from the feet up, rows from front to back, columns from the
patient's right to left, if the source states its orientation (the prepared files do not).
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmunet.errors import InputError
from vmunet.files import whole_folder
from vmunet.threads import in_threads

AT_ONCE = 2  # volumes in memory: reading 150 slices of 512x512 takes 0.5 GB, and 700 take 2.4 GB


@dataclass(frozen=True)
class Pixels:
    """One case.

    Attributes:
        image: float32 (depth, height, width), 0..1.
        labels: uint8 of the same shape, 0..classes.
        spacing: mm per voxel along (depth, height, width), None if it is not known.
    """

    image: NDArray[np.float32]
    labels: NDArray[np.uint8]
    spacing: tuple[float, float, float] | None


@dataclass(frozen=True)
class Case:
    """A case by name, read when it is needed: thirty at once may not fit into memory."""

    name: str
    read: Callable[[], Pixels]


def write_volumes(
    target: Path,
    facts: dict[str, Any],
    classes: Sequence[str],
    train: Sequence[Case],
    test: Sequence[Case],
    slices: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """Read and check all cases and write `target`; return the manifest.

    Args:
        target: data/arrays/<view>, written completely or not at all.
        facts: further entries of the manifest: view, size, dataset, source, window.
        classes: foreground classes, the names of the labels 1, 2, ...
        train, test: cases of the two parts.
        slices: the number of slices that some of the cases must have, by name.

    Raises:
        InputError: a case is in both parts or twice in one, by name or by content, has labels of
            no class or another number of slices, or cannot be read; `target` is unchanged.
    """
    names = [case.name for case in (*train, *test)]
    for name in names:
        if names.count(name) > 1:
            both = {name} <= {case.name for case in train} & {case.name for case in test}
            where = "trains and tests" if both else "is there twice"
            raise InputError(f"{name}: this case {where}; every case belongs to one part, once")
    if not train or not test:
        raise InputError(f"{len(train)} training and {len(test)} test cases; at least one of each")
    with whole_folder(target) as folder:
        cases = [*train, *test]
        written = in_threads(
            lambda case: _write(case, folder, classes, (slices or {}).get(case.name)),
            cases,
            "reading volumes",
            AT_ONCE,
        )
        _refuse_copies(names, written)
        manifest = {**facts, **_counts(names, written, len(train), classes)}
        (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    return manifest


def _write(case: Case, folder: Path, classes: Sequence[str], slices: int | None) -> dict[str, Any]:
    pixels = case.read()
    if slices not in (None, len(pixels.image)):
        raise InputError(
            f"{case.name}: {len(pixels.image)} slices, the published list has {slices}; take the "
            "original volumes"
        )
    counts = np.bincount(pixels.labels.ravel(), minlength=len(classes) + 1)
    if len(counts) > len(classes) + 1:
        raise InputError(
            f"{case.name}: label {len(counts) - 1} is of no class; expected 0 to {len(classes)}"
        )
    place = folder / "cases" / case.name
    place.mkdir(parents=True)
    np.save(place / "image.npy", pixels.image)
    np.save(place / "labels.npy", pixels.labels)
    return {
        "shape": list(pixels.image.shape),
        "spacing": None if pixels.spacing is None else [round(mm, 6) for mm in pixels.spacing],
        "voxels": {name: int(count) for name, count in zip(classes, counts[1:], strict=True)},
        "digest": hashlib.sha256(np.ascontiguousarray(pixels.image).data).hexdigest(),
    }


def _refuse_copies(names: Sequence[str], written: Sequence[dict[str, Any]]) -> None:
    seen: dict[str, str] = {}
    for name, case in zip(names, written, strict=True):
        first = seen.setdefault(case["digest"], name)
        if first != name:
            raise InputError(f"{first} and {name} are the same volume; remove one of them")


def _counts(
    names: Sequence[str], written: Sequence[dict[str, Any]], n_train: int, classes: Sequence[str]
) -> dict[str, Any]:
    """The manifest's counts; sizes are [width, height] in pixels, as for images."""
    depths = [case["shape"][0] for case in written]
    heights, widths = ([case["shape"][axis] for case in written] for axis in (1, 2))
    return {
        "classes": list(classes),
        "train": list(names[:n_train]),
        "test": list(names[n_train:]),
        "n_train": n_train,
        "n_test": len(names) - n_train,
        "train_slices": sum(depths[:n_train]),
        "test_slices": sum(depths[n_train:]),
        "native_min": [min(widths), min(heights)],
        "native_max": [max(widths), max(heights)],
        "absent": {name: sum(case["voxels"][name] == 0 for case in written) for name in classes},
        "cases": dict(zip(names, written, strict=True)),
    }
