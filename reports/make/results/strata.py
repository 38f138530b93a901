"""Scores of parts of the test images: without those that are trained on too, by size and so on.

The parts come from the columns of per_image.csv that describe the image
(`vmunet.evaluation.image_columns`), the scores from those of the model.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from reports.make.files import read_rows, trusted
from reports.make.results.metrics import Result, score_again
from reports.make.results.scores import Estimate
from vmunet.errors import InputError
from vmunet.evaluation.few_units import NO_INTERVAL
from vmunet.evaluation.image_columns import IMAGE_COLUMNS
from vmunet.evaluation.metrics import COUNTS, pooled_scores
from vmunet.evaluation.samples import CaseSample
from vmunet.evaluation.statistics import intervals

Floats = npt.NDArray[np.float64]
MEANS = ("mean_dice", "mean_iou", "nsd", "hd95_px")
COLUMNS = ("native_size_dice", "native_size_iou", "native_size_nsd", "native_size_hd95_px")
COUNTED = tuple(f"paper_{count}" for count in COUNTS)


@dataclass(frozen=True)
class Stratum:
    """The scores of one part of the test images, means over the seeds.

    Attributes:
        by, part: what divides the images, and this part.
        images: their number; None if the file is of an earlier version, which does not tell.
        miou: pooled, 0..1, of the paper's comparison.
        means: `MEANS` over the images: fractions 0..1, HD95 in px; None if undefined.
            The Dice has its interval, if there are enough units.
    """

    by: str
    part: str
    images: int | None
    miou: float | None
    means: Mapping[str, Estimate]


NOTHING = dict.fromkeys(MEANS, Estimate(None, None, None))
UNKNOWN = Stratum("all", "all", None, None, NOTHING)


def read_strata(
    root: Path, results: Sequence[Result], limits: Mapping[str, float]
) -> list[Stratum]:
    """The strata of one model's runs on images, one run for each seed.

    Args:
        limits: `contrast` and `hair`, of reports/tables.yaml.

    Returns:
        The whole test set and its parts; `UNKNOWN` alone if a file is of an earlier version.

    Raises:
        InputError: a file is missing or unreadable, or the runs' images differ.
    """
    tables = [_read(root, result) for result in results]
    if any(table is None for table in tables):
        return [UNKNOWN]
    read = [table for table in tables if table is not None]
    first = read[0]
    for result, table in zip(results, read, strict=True):
        if table.ids != first.ids:
            raise InputError(
                f"{_path(result)}: other images than in {_path(results[0])}, another seed of the "
                f"same cell; {score_again(result.run)}"
            )
    return [
        _stratum(by, part, read, members(first.facts))
        for by, part, members in _parts(first.facts, limits)
    ]


@dataclass(frozen=True)
class _Table:
    """One file: the facts by column, (images,); scores (images, 4) and counts (images, 4)."""

    ids: list[str]
    groups: tuple[str, ...]
    facts: dict[str, Floats]
    scores: Floats
    counts: Floats


def _path(result: Result) -> str:
    return Path(result.path).with_name("per_image.csv").as_posix()


def _read(root: Path, result: Result) -> _Table | None:
    """None for a file of an earlier version."""
    path = _path(result)
    with trusted(path, "the scores of each test image", score_again(result.run)):
        rows = read_rows(root / path)
        if not {*IMAGE_COLUMNS, *COLUMNS} <= rows[0].keys():
            return None

        def column(name: str) -> Floats:
            return np.array([float(row[name] or math.nan) for row in rows])

        groups = tuple(row["patient"] for row in rows) if "patient" in rows[0] else ()
        return _Table(
            [row["id"] for row in rows],
            groups,
            {name: column(name) for name in IMAGE_COLUMNS},
            np.stack([column(name) for name in COLUMNS], axis=1),
            np.stack([column(name) for name in COUNTED], axis=1),
        )


Members = Callable[[Mapping[str, Floats]], npt.NDArray[np.bool_]]


def _parts(
    facts: Mapping[str, Floats], limits: Mapping[str, float]
) -> list[tuple[str, str, Members]]:
    """What divides the images, the part, and which images are in it; nan is in no part."""
    low, high = np.quantile(facts["lesion_share"], [1 / 3, 2 / 3])
    pale, hairy = limits["contrast"], limits["hair"]
    return [
        ("all", "all", lambda f: f["in_training"] >= 0),
        ("training", "not trained on", lambda f: f["in_training"] == 0),
        ("training", "trained on too", lambda f: f["in_training"] == 1),
        ("size", f"up to {low:.1%} of the image", lambda f: f["lesion_share"] <= low),
        (
            "size",
            f"{low:.1%} to {high:.1%}",
            lambda f: (f["lesion_share"] > low) & (f["lesion_share"] <= high),
        ),
        ("size", f"over {high:.1%}", lambda f: f["lesion_share"] > high),
        ("contrast", f"pale, below {pale:g}", lambda f: f["contrast"] < pale),
        ("contrast", f"{pale:g} and more", lambda f: f["contrast"] >= pale),
        ("hair", f"over {hairy:.0%} of the image", lambda f: f["hair"] > hairy),
        ("hair", f"up to {hairy:.0%}", lambda f: f["hair"] <= hairy),
    ]


def _stratum(
    by: str, part: str, tables: Sequence[_Table], members: npt.NDArray[np.bool_]
) -> Stratum:
    images = int(members.sum())
    if not images:
        return Stratum(by, part, 0, None, NOTHING)
    groups = tuple(np.array(tables[0].groups)[members]) if tables[0].groups else ()
    values = np.stack([table.scores[members] for table in tables])  # (seeds, images, scores)
    means = {}
    for i, name in enumerate(MEANS):
        sample = CaseSample(values[..., i : i + 1], (name,), groups)
        ends = intervals(sample)[name] if name == "mean_dice" else ()
        low, high = map(_defined, ends or NO_INTERVAL)
        means[name] = Estimate(_defined(sample.scores()[name]), low, high)
    mious = [pooled_scores(table.counts[members])["miou"] for table in tables]
    return Stratum(by, part, images, float(np.mean(mious)), means)


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
