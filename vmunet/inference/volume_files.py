"""The files around a volume's segmentation: which are CT volumes, and the table of organs."""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vmunet.data.nifti import SUFFIXES, is_nifti
from vmunet.errors import InputError
from vmunet.files import whole_file

# Ours, and the usual names of label maps: BTCV calls them label0001.nii.gz.
LABELS = re.compile(r"(.*_(labels?|seg|segmentation|mask)|label\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class VolumePrediction:
    """One row of predictions.csv.

    Attributes:
        volume: the file's name.
        organ: the class's name.
        voxels: how many have its label; 0 where it was not found.
        ml: what they fill, millilitres.
    """

    volume: str
    organ: str
    voxels: int
    ml: float


def find_volumes(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The CT volumes that `paths` name, and the files left out.

    A folder gives its own `.nii` and `.nii.gz` files, sorted, not those of its subfolders. Left
    out are files whose names mark them as label maps, so that a second run over the same folder
    sees the same volumes.

    Raises:
        InputError: where a path is missing, is no NIfTI file by its name, nothing is left, or two
            volumes would write the same label map.
    """
    given: dict[Path, Path] = {}  # by folder and name: a file named twice counts once
    for path in map(Path, paths):
        if path.is_dir():
            files = [file for file in sorted(path.iterdir()) if is_nifti(file) and file.is_file()]
        elif not path.is_file():
            raise InputError(f"{path}: no such volume or folder")
        elif not is_nifti(path):
            raise InputError(f"{path}: not a CT volume; expected {' or '.join(SUFFIXES)}")
        else:
            files = [path]
        given.update((file.parent.resolve() / file.name, file) for file in files)
    volumes = [file for file in given.values() if not LABELS.fullmatch(stem_of(file))]
    skipped = [file for file in given.values() if LABELS.fullmatch(stem_of(file))]
    if not volumes:
        left_out = f" ({len(skipped)} left out as label maps)" if skipped else ""
        where = ", ".join(str(path) for path in paths)
        raise InputError(f"{where}: no CT volumes{left_out}; expected {', '.join(SUFFIXES)} files")
    stems: dict[str, Path] = {}
    for volume in volumes:
        if (other := stems.setdefault(stem_of(volume), volume)) is not volume:
            raise InputError(
                f"{other} and {volume} would both write {stem_of(volume)}_labels.nii.gz; rename "
                "one, or segment them into different folders"
            )
    return volumes, skipped


def stem_of(path: Path) -> str:
    """The file's name without .nii or .nii.gz."""
    return re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE)


def summary(
    file: Path, labels: NDArray[np.uint8], organs: Sequence[str], voxel_ml: float
) -> list[VolumePrediction]:
    """The table's rows for a volume.

    Args:
        labels: uint8, of any shape; label 1 is the first organ.
        organs: their names.
        voxel_ml: what a voxel fills, ml.
    """
    counts = np.bincount(labels.ravel(), minlength=len(organs) + 1)[1:].tolist()
    return [
        VolumePrediction(file.name, organ, count, count * voxel_ml)
        for organ, count in zip(organs, counts, strict=True)
    ]


def write_table(path: Path, predictions: Sequence[VolumePrediction]) -> None:
    """Write predictions.csv: millilitres with three decimals."""
    with whole_file(path) as part, open(part, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(field.name for field in fields(VolumePrediction))
        for row in predictions:
            writer.writerow([row.volume, row.organ, row.voxels, f"{row.ml:.3f}"])
