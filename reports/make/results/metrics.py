"""The metrics files of the declared grid: one `Result` for each run."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reports.make.files import read_json, trusted
from reports.make.results.scores import Estimate, OrganScores, image_scores, organ_scores
from vmunet.errors import InputError

if TYPE_CHECKING:
    from pipeline.config.params import Params
    from pipeline.config.runs import Run

SOURCES = {
    "phantom": "phantom images (synthetic)",
    "sample": "real images, a sample of the dataset",
    # A local copy may hold reduced images, so a caption says nothing about the original ones.
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
# The fields that a caption prints once for a view: all its runs must have the same.
SAID = ("source", "n_train", "n_test", "native_min", "native_max")
SAID_OF_VOLUMES = (*SAID, "train_slices", "test_slices", "classes")
SCORES = "the scores of a run"


@dataclass(frozen=True)
class Result:
    """One run's scores and their origin; an `ImageResult` or a `VolumeResult`.

    Attributes:
        run: the declared run.
        path: its metrics file, relative to the repository root, with forward slashes.
        dataset, size: of the run's view; size in px.
        data: the manifest of the arrays that it was trained and tested on.
        checkpoint: the provenance of its weights.
        epochs: of the whole training; None in a file of an earlier version, which lacks them.
        scores: the `paper` set, fractions 0..1 (distances in their own unit).
    """

    run: "Run"
    path: str
    dataset: str
    size: int
    data: Mapping[str, Any]
    checkpoint: Mapping[str, Any]
    epochs: int | None
    scores: Mapping[str, float]

    @property
    def mlflow_run(self) -> str:
        """The id of the run in MLflow; '' if none is recorded."""
        return str(self.checkpoint.get("mlflow_run_id") or "")


@dataclass(frozen=True)
class ImageResult(Result):
    """`sound` is the set `sound`, by size and score; see `image_scores`.

    `hd95_n` counts the images that define HD95 in px; None in a file of an earlier version.
    """

    sound: Mapping[str, Mapping[str, Estimate]]
    hd95_n: int | None


@dataclass(frozen=True)
class VolumeResult(Result):
    """`organs` and `mean` are both sets by organ, and over the organs.

    `spacing_known` tells whether every test case has its voxel spacing.
    """

    organs: Mapping[str, OrganScores]
    mean: OrganScores
    spacing_known: bool


def read_results(
    root: Path, params: "Params", runs: Iterable["Run"], wanted: Mapping[str, Iterable[str]]
) -> list[Result]:
    """The metrics of every run of the grid whose dataset some table shows.

    `wanted` maps a dataset to the names of its metrics in the `paper` set.

    Raises:
        InputError: a run's file is missing, unreadable or of another run, two runs of a view were
            made from different data, or two seeds of a cell were trained for different epochs.
    """
    results = [
        _read(root, run, wanted[params.view(run.view).dataset], params)
        for run in dict.fromkeys(runs)
        if params.view(run.view).dataset in wanted
    ]
    first: dict[str, Result] = {}
    for result in results:
        other = first.setdefault(result.run.view, result)
        for name in SAID_OF_VOLUMES if isinstance(result, VolumeResult) else SAID:
            if result.data[name] != other.data[name]:
                raise InputError(
                    f"{result.path}: 'data.{name}' is {result.data[name]!r}, but "
                    f"{other.data[name]!r} in {other.path} of the same view; train and evaluate "
                    "both from the same data"
                )
    check_epochs((result.run, result.path, result.epochs) for result in results)
    return results


def recorded_epochs(content: Mapping[str, Any]) -> int | None:
    """The epochs of the whole training; None in a file of an earlier version, without a history."""
    return len(content["history"]["epoch"]) if "history" in content else None


def check_epochs(trainings: Iterable[tuple["Run", str, int | None]]) -> None:
    """Refuse seeds of one cell that were trained for different epochs: they repeat nothing.

    Args:
        trainings: runs with their metrics files and epochs.

    Raises:
        InputError: two seeds have different epochs, or only one is of an earlier version, which
            lacks them.
    """
    first: dict[tuple[str, str, str], tuple[str, int | None]] = {}
    for run, path, epochs in trainings:
        place = (run.view, run.cell, run.protocol)
        other, expected = first.setdefault(place, (path, epochs))
        if epochs != expected:
            here, there = ("unknown" if n is None else n for n in (epochs, expected))
            raise InputError(
                f"{path}: its number of epochs is {here}, but that of {other}, another seed of the "
                f"same cell, is {there}; {score_again(run)}, which trains it again if the "
                "profile's epochs have changed"
            )


def metrics_path(run: "Run", params: "Params") -> str:
    """The run's metrics file, relative to the repository root, with forward slashes."""
    return (Path(run.metrics_folder(params.profile_name)) / "metrics.json").as_posix()


def score_again(run: "Run") -> str:
    """The end of a message about missing or wrong files of a run: how to make them again."""
    return f"run `vmunet sweep --cells {run.name}`"


def load_metrics(root: Path, run: "Run", params: "Params") -> dict[str, Any]:
    """The content of a run's metrics file.

    Raises:
        InputError: the file is missing, not JSON, or of another run or profile.
    """
    path, again = metrics_path(run, params), score_again(run)
    content = read_json(root, path, SCORES, again)
    declared = {
        "profile": params.profile_name,
        "view": run.view,
        "size": params.view(run.view).size,
        "cell": run.cell,
        "protocol": run.protocol,
        "seed": run.seed,
    }
    with trusted(path, SCORES, again):
        recorded = {name: content["run"].get(name) for name in declared}
    if recorded != declared:
        name = next(name for name in declared if recorded[name] != declared[name])
        raise InputError(
            f"{path}: is of another run: its {name} is {recorded[name]!r}, not "
            f"{declared[name]!r}; {again}"
        )
    return content


def _read(root: Path, run: "Run", metrics: Iterable[str], params: "Params") -> Result:
    path, view = metrics_path(run, params), params.view(run.view)
    content = load_metrics(root, run, params)
    with trusted(path, SCORES, score_again(run)):
        data, paper, sound = content["data"], content["paper"], content["sound"]
        volumes = run.view in params.grid.volumes
        sources = VOLUME_SOURCES if volumes else SOURCES
        if data["source"] not in sources:
            raise ValueError(f"its data.source is {data['source']!r}, none of {', '.join(sources)}")
        for name in SAID_OF_VOLUMES if volumes else SAID:
            data[name]  # a field that a caption needs: if it is missing, the error names this file
        scores = finite_scores(paper, metrics)
        epochs = recorded_epochs(content)
        shared = (run, path, view.dataset, view.size, data, content["checkpoint"], epochs, scores)
        if not volumes:
            hd95_n = sound["native_size"].get("boundary", {}).get("hd95_n")
            return ImageResult(*shared, image_scores(sound), hd95_n)
        organs, mean = organ_scores(paper, sound, data["classes"])
        return VolumeResult(*shared, organs, mean, sound["spacing_known"])


def finite_scores(paper: Mapping[str, Any], metrics: Iterable[str]) -> dict[str, float]:
    """The named scores of a file's `paper` block; ValueError if one is not a finite number."""
    scores = {name: float(paper[name]) for name in metrics}
    for name, score in scores.items():
        if not math.isfinite(score):
            raise ValueError(f"its paper.{name} is {score}")
    return scores


def run_order(
    params: "Params", declared: Mapping[str, Any]
) -> Callable[[Result], tuple[int, int, int, str, int]]:
    """The key that sorts results as reports/tables.yaml and params.yaml declare them."""
    datasets, cells = list(declared["datasets"]), list(params.cells)

    def place(result: Result) -> tuple[int, int, int, str, int]:
        run = result.run
        dataset = datasets.index(result.dataset)
        return dataset, result.size, cells.index(run.cell), run.protocol, run.seed

    return place
