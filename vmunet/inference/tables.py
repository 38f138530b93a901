"""The rows of predictions.csv: the results for an image, a class or an organ."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from vmunet.classes import Floats, Labels
from vmunet.csv_cells import UnixLines, to_cells

TABLE = "predictions.csv"


class Row(Protocol):
    """What predictions.csv needs of a row."""

    HEADER: ClassVar[Sequence[str]]

    def lines(self) -> list[list[Any]]:
        """The cells of one or more lines of the table."""
        ...


@dataclass(frozen=True)
class Prediction:
    """The lesion of an image.

    Attributes:
        image: the file's name.
        width, height: its own size, px.
        lesion_fraction: the mask's share of the image's pixels, 0..1.
        mean_probability: mean probability inside the mask, 0..1; None if the mask is empty.
    """

    HEADER: ClassVar[Sequence[str]] = (
        "image",
        "width",
        "height",
        "lesion_fraction",
        "mean_probability",
    )

    image: str
    width: int
    height: int
    lesion_fraction: float
    mean_probability: float | None

    @classmethod
    def of(
        cls, file: Path, probability: NDArray[np.float32], mask: NDArray[np.bool_]
    ) -> "Prediction":
        """The row of an image file; `probability` and `mask` are (height, width)."""
        height, width = mask.shape
        inside = float(probability[mask].mean(dtype=np.float64)) if mask.any() else None
        return cls(file.name, width, height, float(mask.mean()), inside)

    def lines(self) -> list[list[Any]]:
        """One line, fractions with six decimals."""
        fraction, mean = f"{self.lesion_fraction:.6f}", _decimals(self.mean_probability)
        return [[self.image, self.width, self.height, fraction, mean]]


@dataclass(frozen=True)
class ClassPrediction:
    """The classes of an image.

    Attributes:
        image: the file's name.
        width, height: its own size, px.
        classes: their names.
        fractions: each class's share of the image's pixels, 0..1.
        mean_probabilities: each class's mean probability inside its own region, 0..1; None if the
            class has no pixel.
    """

    HEADER: ClassVar[Sequence[str]] = (
        "image",
        "width",
        "height",
        "class",
        "fraction",
        "mean_probability",
    )

    image: str
    width: int
    height: int
    classes: tuple[str, ...]
    fractions: tuple[float, ...]
    mean_probabilities: tuple[float | None, ...]

    @classmethod
    def of(
        cls, file: Path, labels: Labels, probability: Floats, classes: Sequence[str]
    ) -> "ClassPrediction":
        """The row of an image file; `labels` and their `probability` are (height, width)."""
        height, width = labels.shape
        pixels = np.bincount(labels.ravel(), minlength=len(classes) + 1)[1:]
        totals = np.bincount(
            labels.ravel(), weights=probability.ravel(), minlength=len(classes) + 1
        )[1:]
        return cls(
            file.name,
            width,
            height,
            tuple(classes),
            tuple(float(n) / labels.size for n in pixels),
            tuple(float(t / n) if n else None for t, n in zip(totals, pixels, strict=True)),
        )

    def lines(self) -> list[list[Any]]:
        """A line for each class, fractions with six decimals."""
        rows = zip(self.classes, self.fractions, self.mean_probabilities, strict=True)
        return [
            [self.image, self.width, self.height, name, f"{fraction:.6f}", _decimals(mean)]
            for name, fraction, mean in rows
        ]


@dataclass(frozen=True)
class VolumePrediction:
    """An organ of a volume.

    Attributes:
        volume: the file's name.
        organ: the class's name.
        voxels: the number of voxels with its label; 0 if there are none.
        ml: their volume, millilitres.
    """

    HEADER: ClassVar[Sequence[str]] = ("volume", "organ", "voxels", "ml")

    volume: str
    organ: str
    voxels: int
    ml: float

    @classmethod
    def each(
        cls, file: Path, labels: Labels, organs: Sequence[str], voxel_ml: float
    ) -> "list[VolumePrediction]":
        """The rows of a volume.

        Args:
            labels: uint8, of any shape; label 1 is the first organ.
            organs: their names.
            voxel_ml: the volume of a voxel, ml.
        """
        counts = np.bincount(labels.ravel(), minlength=len(organs) + 1)[1:].tolist()
        return [
            cls(file.name, organ, count, count * voxel_ml)
            for organ, count in zip(organs, counts, strict=True)
        ]

    def lines(self) -> list[list[Any]]:
        """One line, millilitres with three decimals."""
        return [[self.volume, self.organ, self.voxels, f"{self.ml:.3f}"]]


def append_rows(path: Path, rows: Sequence[Row], begin: bool) -> None:
    """Append rows to predictions.csv at once, so that it is whole if the program is killed.

    A cell without a value is empty.

    Args:
        begin: write a new table, in place of one that an earlier run left.
    """
    text = io.StringIO()
    writer = csv.writer(UnixLines(text))
    if begin:
        writer.writerow(rows[0].HEADER)
    for row in rows:
        writer.writerows(map(to_cells, row.lines()))
    with open(path, "w" if begin else "a", encoding="utf-8", newline="") as file:
        file.write(text.getvalue())


def _decimals(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"
