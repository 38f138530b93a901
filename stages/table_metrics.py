"""The metrics files of the declared grid, read and checked, one by one."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from vmunet.errors import InputError

if TYPE_CHECKING:
    from pipeline.grid import Run
    from pipeline.params import Params

SOURCES = {
    "phantom": "phantom images (synthetic)",
    # A local copy may hold reduced images: nothing is said of the original ones.
    "file": "real images from local archives",
    "http": "images of the real archive (downloaded)",
    "prepared": "real images from the authors' prepared set (split as it came)",
}
SOUND_SIZES = ("training_size", "native_size")
SOUND_SCORES = ("miou", "mean_iou", "mean_dice", "thresholded_jaccard")


@dataclass(frozen=True)
class Estimate:
    """A score with its 95% bootstrap interval over the test images: fractions 0..1 or None."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Result:
    """One run's scores and where they come from.

    Attributes:
        run: the declared run.
        path: its metrics file, relative to the repository root, with forward slashes.
        dataset, size: of the run's view; size in px.
        data: the manifest of the arrays that it was trained and tested on.
        checkpoint: the provenance of its weights.
        scores: the `paper` set, fractions 0..1 (distances in their own unit).
        sound: the `sound` set, by size (`SOUND_SIZES`) and score (`SOUND_SCORES`).
    """

    run: "Run"
    path: str
    dataset: str
    size: int
    data: Mapping[str, Any]
    checkpoint: Mapping[str, Any]
    scores: Mapping[str, float]
    sound: Mapping[str, Mapping[str, Estimate]]


def read_results(
    root: Path, params: "Params", runs: Iterable["Run"], wanted: Mapping[str, Mapping[str, str]]
) -> list[Result]:
    """The metrics of every run of the grid whose dataset some table shows.

    `wanted` maps a dataset to its metrics and their units (`percent`, `distance`).
    Raises InputError naming the file, and the field, where a file is missing, not JSON, of
    another run, without a field, or holds a score that is not a number in range.
    """
    results = []
    for run in dict.fromkeys(runs):
        view = params.grid.views[run.view]
        if view.dataset in wanted:
            folder = Path(run.metrics_folder(params.profile_name))
            relative = (folder / "metrics.json").as_posix()
            results.append(_read(root, relative, run, view, wanted[view.dataset], params))
    _same_data(results)
    return results


def _read(
    root: Path, path: str, run: "Run", view: Any, units: Mapping[str, str], params: "Params"
) -> Result:
    again = f"run `python -m stages.evaluate {run.view} {run.cell} {run.protocol} {run.seed}`"
    try:
        content = json.loads((root / path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no metrics for this run of the grid; {again}") from None
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}); delete it and {again}") from None
    for part in ("run", "data", "checkpoint", "paper", "sound"):
        if not isinstance(content, dict) or not isinstance(content.get(part), dict):
            raise InputError(f"{path}: field '{part}' is missing; {again}")
    declared = {
        "profile": params.profile_name,
        "view": run.view,
        "cell": run.cell,
        "protocol": run.protocol,
        "seed": run.seed,
    }
    for name, value in declared.items():
        if content["run"].get(name) != value:
            found = content["run"].get(name)
            raise InputError(f"{path}: field 'run.{name}' is {found!r}, not {value!r}; {again}")
    data = content["data"]
    for name in ("source", "n_train", "n_test", "native_min", "native_max"):
        if name not in data:
            raise InputError(f"{path}: field 'data.{name}' is missing; {again}")
    if data["source"] not in SOURCES:
        raise InputError(
            f"{path}: field 'data.source' is {data['source']!r}, not one of {', '.join(SOURCES)}"
        )
    scores = {
        name: _score(path, f"paper.{name}", content["paper"].get(name), unit)
        for name, unit in units.items()
    }
    sound = {}
    for size in SOUND_SIZES:
        found = content["sound"].get(size)
        if not isinstance(found, dict):
            raise InputError(f"{path}: field 'sound.{size}' is missing; {again}")
        sound[size] = {name: _estimate(path, f"sound.{size}", name, found) for name in SOUND_SCORES}
    return Result(run, path, view.dataset, view.size, data, content["checkpoint"], scores, sound)


def _score(path: str, field: str, value: Any, unit: str = "percent") -> float:
    high, words = (1, "in 0..1") if unit == "percent" else (math.inf, "of at least 0")
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and math.isfinite(value) and 0 <= value <= high):
        raise InputError(
            f"{path}: field '{field}' is {value!r}, not a finite number {words}; "
            "evaluate the run again"
        )
    return float(value)


def _estimate(path: str, place: str, name: str, scores: Mapping[str, Any]) -> Estimate:
    """A score and its interval; null is one that no test image defines."""
    intervals = scores.get("intervals")
    interval = intervals.get(name) if isinstance(intervals, dict) else None
    if name not in scores or not isinstance(interval, list) or len(interval) != 2:
        raise InputError(
            f"{path}: field '{place}' lacks '{name}' or its interval [low, high]; "
            "evaluate the run again"
        )
    fields = (f"{place}.{name}", *[f"{place}.intervals.{name}"] * 2)
    values = (scores[name], *interval)
    return Estimate(
        *(
            None if value is None else _score(path, field, value)
            for field, value in zip(fields, values, strict=True)
        )
    )


def _same_data(results: list[Result]) -> None:
    """A caption states one set of image counts a view: every run of a view must share it."""
    first: dict[str, Result] = {}
    for result in results:
        other = first.setdefault(result.run.view, result)
        for name in ("source", "n_train", "n_test", "native_min", "native_max"):
            if result.data[name] != other.data[name]:
                raise InputError(
                    f"{result.path}: field 'data.{name}' is {result.data[name]!r}, but "
                    f"{other.data[name]!r} in {other.path} of the same view; train and evaluate "
                    "both from the same data"
                )


def summarise(results: list[Result], metrics: Iterable[str]) -> pd.DataFrame:
    """Mean, sample standard deviation (NaN for one seed) and count over the seeds.

    Index (view, cell, protocol); columns (metric, mean | std | count).
    """
    keys = ["view", "cell", "protocol"]
    frame = pd.DataFrame(
        [
            {key: getattr(result.run, key) for key in keys} | dict(result.scores)
            for result in results
        ],
        columns=[*keys, *metrics],
    )
    return frame.groupby(keys).agg(["mean", "std", "count"])
