"""Cross-dataset tests: the same images for models trained on their dataset or on another one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reports.make.files import read_json, read_rows, trusted
from reports.make.results.metrics import ImageResult, Result, score_again
from reports.make.results.scores import mean_and_std

if TYPE_CHECKING:
    from pipeline.config.params import Params

COUNTS = ("paper_tp", "paper_fp", "paper_fn")
ImageScores = Mapping[str, str]  # a row of per_image.csv


@dataclass(frozen=True)
class Scores:
    """One run's scores on the images that are not shared: percentages, None if undefined."""

    miou: float | None
    dsc: float | None
    mean_dice: float | None


@dataclass(frozen=True)
class CrossRow:
    """One cell under one protocol, tested on `test`: by seed, if trained there and elsewhere."""

    name: str
    train: str
    test: str
    cell: str
    protocol: str
    images: int
    left_out: int
    same: Mapping[int, Scores]
    other: Mapping[int, Scores]
    results: Sequence[ImageResult]

    def figure(self, which: str, metric: str) -> tuple[float | None, float | None]:
        """Mean and sample standard deviation over the seeds."""
        own: Mapping[int, Scores] = getattr(self, which)
        return mean_and_std([getattr(scores, metric) for scores in own.values()])


def read_cross(root: Path, params: "Params", results: Sequence[Result]) -> list[CrossRow]:
    """The cross tests that `grid.cross` of params.yaml declares and that have results.

    `results` are the grid's, in the order of the rows.

    Raises:
        InputError: one of a test's two files is missing, or a file is of other images or runs.
    """
    images = [result for result in results if isinstance(result, ImageResult)]
    rows = []
    for name in params.grid.cross:
        folder = Path("metrics", params.profile_name, "cross", name)
        if (root / folder / "metrics.json").is_file():
            rows += _rows(root, name, folder, images)
    return rows


def _rows(root: Path, name: str, folder: Path, results: Sequence[ImageResult]) -> list[CrossRow]:
    path, again = folder / "metrics.json", f"run `python -m stages.cross {name}`"
    content = read_json(root, path, f"the cross test {name}", again)
    with trusted(path, f"the cross test {name}", again):
        train, test, left_out = content["train"], content["test"], len(content["shared"])
        if not content["tested"]:
            return []  # every test image is shared
    trained = [result for result in results if result.run.view == train]
    path = folder / "per_image.csv"
    with trusted(path, f"the cross test {name} of the grid's runs on {train}", again):
        by_run: dict[str, dict[str, ImageScores]] = {}
        for row in read_rows(root / path):
            by_run.setdefault(row["run"], {})[row["id"]] = row
        tested = list(dict.fromkeys(name for rows in by_run.values() for name in rows))
        if len(tested) != content["tested"]:
            raise ValueError(f"{len(tested)} of {content['tested']} images")
        others: dict[tuple[str, str], dict[int, Scores]] = {}
        for result in trained:
            run = result.run
            rows = by_run.pop(f"{run.cell}-{run.protocol}-{run.seed}", None)
            if rows is not None:
                of_cell = others.setdefault((run.cell, run.protocol), {})
                of_cell[run.seed] = _scores(rows, tested)
        if by_run:
            raise ValueError(f"{next(iter(by_run))} is no run of the grid")
    return [
        CrossRow(
            name=name,
            train=train,
            test=test,
            cell=cell,
            protocol=protocol,
            images=len(tested),
            left_out=left_out,
            same={r.run.seed: _at_home(root, r, tested) for r in homes},
            other=other,
            results=[*homes, *_of(trained, train, cell, protocol, other)],
        )
        for (cell, protocol), other in others.items()
        for homes in [_of(results, test, cell, protocol, other)]
    ]


def _of(
    results: Sequence[ImageResult], view: str, cell: str, protocol: str, seeds: Mapping[int, Scores]
) -> list[ImageResult]:
    """A cell's results on a view, of some seeds."""
    identity = (view, cell, protocol)
    return [
        result
        for result in results
        if (result.run.view, result.run.cell, result.run.protocol) == identity
        and result.run.seed in seeds
    ]


def _at_home(root: Path, result: ImageResult, tested: Sequence[str]) -> Scores:
    """The scores of a run on its own dataset, only on the tested images."""
    path = Path(result.path).with_name("per_image.csv")
    with trusted(path, "the scores of each tested image", score_again(result.run)):
        return _scores({row["id"]: row for row in read_rows(root / path)}, tested)


def _scores(rows: Mapping[str, ImageScores], tested: Sequence[str]) -> Scores:
    """The scores on the tested images. Raises KeyError if an image is missing."""
    tested_rows = [rows[name] for name in tested]
    tp, fp, fn = (sum(int(row[column]) for row in tested_rows) for column in COUNTS)
    union, sizes = tp + fp + fn, 2 * tp + fp + fn
    dice = [float(row["native_size_dice"]) for row in tested_rows if row["native_size_dice"]]
    return Scores(
        miou=100 * tp / union if union else None,
        dsc=100 * 2 * tp / sizes if sizes else None,
        mean_dice=100 * (sum(dice) / len(dice)) if dice else None,
    )
