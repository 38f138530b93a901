"""The metrics files of the declared grid, read and checked, one by one."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from reports.make.results.scores import (
    Estimate,
    OrganScores,
    image_scores,
    organ_scores,
    paper_scores,
)
from vmunet.errors import InputError

if TYPE_CHECKING:
    from pipeline.config.params import Params
    from pipeline.config.runs import Run

SOURCES = {
    "phantom": "phantom images (synthetic)",
    # A local copy may hold reduced images: nothing is said of the original ones.
    "file": "real images from local archives",
    "http": "images of the real archive (downloaded)",
    "prepared": "real images from the authors' prepared set (split as it came)",
}
VOLUME_SOURCES = {
    "phantom": "phantom CT volumes (synthetic)",
    "file": "raw CT volumes from a local folder",
    "synapse": "raw CT volumes (downloaded from synapse.org)",
    "prepared": "real CT volumes as TransUNet prepared them (without voxel spacing)",
}
# What a caption says of the data.
FACTS = ("source", "n_train", "n_test", "native_min", "native_max")
VOLUME_FACTS = (*FACTS, "train_slices", "test_slices", "classes")


@dataclass(frozen=True)
class Result:
    """One run's scores and where they come from; an `ImageResult` or a `VolumeResult`.

    Attributes:
        run: the declared run.
        path: its metrics file, relative to the repository root, with forward slashes.
        dataset, size: of the run's view; size in px.
        data: the manifest of the arrays that it was trained and tested on.
        checkpoint: the provenance of its weights.
        scores: the `paper` set, fractions 0..1 (distances in their own unit).
    """

    run: "Run"
    path: str
    dataset: str
    size: int
    data: Mapping[str, Any]
    checkpoint: Mapping[str, Any]
    scores: Mapping[str, float]


@dataclass(frozen=True)
class ImageResult(Result):
    """`sound` is the `sound` set, by size (`SOUND_SIZES`) and score (`SOUND_SCORES`)."""

    sound: Mapping[str, Mapping[str, Estimate]]


@dataclass(frozen=True)
class VolumeResult(Result):
    """`organs` and `mean` are both sets by organ, and over the organs.

    `spacing_known` tells whether every test case has its voxel spacing.
    """

    organs: Mapping[str, OrganScores]
    mean: OrganScores
    spacing_known: bool


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
        view = params.view(run.view)
        if view.dataset in wanted:
            results.append(_read(root, run, view, wanted[view.dataset], params))
    _same_data(results)
    return results


def metrics_path(run: "Run", params: "Params") -> str:
    """The run's metrics file, relative to the repository root, with forward slashes."""
    return (Path(run.metrics_folder(params.profile_name)) / "metrics.json").as_posix()


def score_again(run: "Run") -> str:
    """What to do about a run whose files are missing or wrong, for the end of a message."""
    return f"run `vmunet sweep --cells {run.name}`"


def load_metrics(root: Path, run: "Run", params: "Params") -> dict[str, Any]:
    """The run's metrics file, whose parts are mappings and which is the run's own.

    Raises InputError where it is missing, not JSON, or of another run.
    """
    path, again = metrics_path(run, params), score_again(run)
    content = _load(root, path, again)
    view = params.view(run.view)
    declared = {
        "profile": params.profile_name,
        "view": run.view,
        "size": view.size,
        "cell": run.cell,
        "protocol": run.protocol,
        "seed": run.seed,
    }
    for name, value in declared.items():
        if content["run"].get(name) != value:
            found = content["run"].get(name)
            raise InputError(f"{path}: field 'run.{name}' is {found!r}, not {value!r}; {again}")
    return content


def _read(root: Path, run: "Run", view: Any, units: Mapping[str, str], params: "Params") -> Result:
    volumes = run.view in params.grid.volumes
    path, again = metrics_path(run, params), score_again(run)
    content = load_metrics(root, run, params)
    data, sound = content["data"], content["sound"]
    for name in VOLUME_FACTS if volumes else FACTS:
        if name not in data:
            raise InputError(f"{path}: field 'data.{name}' is missing; {again}")
    sources = VOLUME_SOURCES if volumes else SOURCES
    if data["source"] not in sources:
        raise InputError(
            f"{path}: field 'data.source' is {data['source']!r}, not one of {', '.join(sources)}"
        )
    classes = data.get("classes", [])
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise InputError(f"{path}: field 'data.classes' is {classes!r}, not a list of names")
    scores = paper_scores(path, content["paper"], units)
    shared = (run, path, view.dataset, view.size, data, content["checkpoint"], scores)
    if not volumes:
        return ImageResult(*shared, image_scores(path, sound))
    organs, mean = organ_scores(path, content["paper"], sound, classes)
    return VolumeResult(*shared, organs, mean, sound["spacing_known"])


def _load(root: Path, path: str, again: str) -> dict[str, Any]:
    """The file's content, whose parts are mappings."""
    try:
        content = json.loads((root / path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no metrics for this run of the grid; {again}") from None
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}); delete it and {again}") from None
    for part in ("run", "data", "checkpoint", "paper", "sound"):
        if not isinstance(content, dict) or not isinstance(content.get(part), dict):
            raise InputError(f"{path}: field '{part}' is missing; {again}")
    return content


def _same_data(results: list[Result]) -> None:
    """A caption states one set of counts a view: every run of a view must share it."""
    first: dict[str, Result] = {}
    for result in results:
        other = first.setdefault(result.run.view, result)
        for name in VOLUME_FACTS if isinstance(result, VolumeResult) else FACTS:
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
