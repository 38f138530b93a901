"""Cross-dataset tests, read and checked: the same images for models trained there or elsewhere."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from reports.make.results.metrics import ImageResult, score_again
from reports.make.tables.protocols import mean_and_std
from reports.make.tables.sound import run_order
from vmunet.errors import InputError

if TYPE_CHECKING:
    from pipeline.config.params import Params

COUNTS = ("paper_tp", "paper_fp", "paper_fn")


@dataclass(frozen=True)
class Scores:
    """Of one run, on the images that are not shared: percentages, None where undefined."""

    miou: float | None
    dsc: float | None
    mean_dice: float | None


@dataclass(frozen=True)
class CrossRow:
    """One cell under one protocol, tested on `test`, by seed: trained there, trained elsewhere."""

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


def read_cross(
    root: Path, params: "Params", declared: Mapping[str, Any], results: Sequence[ImageResult]
) -> list[CrossRow]:
    """The cross tests that params.yaml's `grid.cross` declares and that were made.

    Raises:
        InputError: a file of one is missing beside the other, broken, or of other images or runs.
    """
    ordered = sorted(results, key=run_order(params, declared))
    rows = []
    for name in getattr(params.grid, "cross", None) or {}:
        folder = Path("metrics", params.profile_name, "cross", name)
        if (root / folder / "metrics.json").is_file():
            rows += _rows(root, name, folder, ordered)
    return rows


def _rows(root: Path, name: str, folder: Path, results: Sequence[ImageResult]) -> list[CrossRow]:
    path = (folder / "metrics.json").as_posix()
    again = f"measure the cross test {name} again"
    content = _content(root, path, again)
    shared = set(content["shared"])
    table = _per_image(root, (folder / "per_image.csv").as_posix(), again, with_run=True)
    tested = list(dict.fromkeys(table["id"]))
    if len(tested) != content["tested"] or shared & set(tested):
        raise InputError(
            f"{path}: field 'tested' is {content['tested']}, but per_image.csv beside it has "
            f"{len(tested)} images, {len(shared & set(tested))} of them among the shared; {again}"
        )
    by_run = dict(list(table.groupby("run")))
    if set(by_run) != set(content["runs"]):
        raise InputError(f"{path}: field 'runs' names other runs than per_image.csv; {again}")
    found: dict[tuple[str, str], dict[int, Scores]] = {}
    trained = [result for result in results if result.run.view == content["train"]]
    for result in trained:
        run = result.run
        own = by_run.pop(f"{run.cell}-{run.protocol}-{run.seed}", None)
        if own is not None:
            scores = _scores(own.set_index("id"), tested, path)
            found.setdefault((run.cell, run.protocol), {})[run.seed] = scores
    if by_run:
        raise InputError(
            f"{path}: field 'runs' names {next(iter(by_run))}, which is no run of the grid on "
            f"{content['train']}; {again}"
        )
    rows = []
    for (cell, protocol), other in found.items():
        homes = [
            r
            for r in results
            if (r.run.view, r.run.cell, r.run.protocol) == (content["test"], cell, protocol)
            and r.run.seed in other
        ]
        used = [r for r in trained if (r.run.cell, r.run.protocol) == (cell, protocol)]
        rows.append(
            CrossRow(
                name=name,
                train=content["train"],
                test=content["test"],
                cell=cell,
                protocol=protocol,
                images=len(tested),
                left_out=len(shared),
                same={r.run.seed: _at_home(root, r, tested) for r in homes},
                other=other,
                results=[*homes, *(r for r in used if r.run.seed in other)],
            )
        )
    return rows


def _at_home(root: Path, result: ImageResult, tested: Sequence[str]) -> Scores:
    """The scores of a run on its own dataset, on the tested images alone."""
    path = Path(result.path).with_name("per_image.csv").as_posix()
    return _scores(_per_image(root, path, score_again(result.run)).set_index("id"), tested, path)


def _scores(own: pd.DataFrame, tested: Sequence[str], path: str) -> Scores:
    missing = [one for one in tested if one not in own.index]
    if missing or own.index.has_duplicates:
        raise InputError(
            f"{path}: image {missing[0] if missing else own.index[own.index.duplicated()][0]} is "
            "missing or there twice among a run's; evaluate the run and the cross test again"
        )
    own = own.loc[list(tested)]
    tp, fp, fn = (float(own[column].sum()) for column in COUNTS)
    union, sizes = tp + fp + fn, 2 * tp + fp + fn
    dice = own["native_size_dice"].mean()  # nan is an image without the score
    return Scores(
        miou=100 * tp / union if union else None,
        dsc=100 * 2 * tp / sizes if sizes else None,
        mean_dice=None if pd.isna(dice) else 100 * float(dice),
    )


def _per_image(root: Path, path: str, again: str, with_run: bool = False) -> pd.DataFrame:
    wanted = [*(["run"] if with_run else []), "id", *COUNTS, "native_size_dice"]
    try:
        table = pd.read_csv(root / path, dtype={"id": str, "run": str})
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; {again}") from None
    except ValueError as error:
        raise InputError(f"{path}: not a CSV of scores ({error}); {again}") from None
    for column in wanted:
        if column not in table or (column in COUNTS and not _counts(table[column])):
            raise InputError(f"{path}: column '{column}' is missing or holds no counts; {again}")
    dice = pd.to_numeric(table["native_size_dice"], errors="coerce")
    if ((dice < 0) | (dice > 1)).any() or (dice.isna() & table["native_size_dice"].notna()).any():
        raise InputError(f"{path}: column 'native_size_dice' is not in 0..1; {again}")
    return table[wanted]


def _counts(column: pd.Series) -> bool:
    numbers = pd.to_numeric(column, errors="coerce")
    return bool(numbers.notna().all() and (numbers >= 0).all())


def _content(root: Path, path: str, again: str) -> dict[str, Any]:
    try:
        content = json.loads((root / path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}); delete it and {again}") from None
    kinds = {"train": str, "test": str, "tested": int, "shared": list, "runs": dict}
    for field, kind in kinds.items():
        if not isinstance(content, dict) or not isinstance(content.get(field), kind):
            raise InputError(f"{path}: field '{field}' is missing or no {kind.__name__}; {again}")
    return content
