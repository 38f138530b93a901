"""The source of the figures: the runs of the declared grid, and their files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from reports.make.files import trusted
from reports.make.results.data import origins
from reports.make.results.metrics import (
    ImageResult,
    Result,
    VolumeResult,
    read_results,
    score_again,
)
from reports.make.results.views import load_yaml
from reports.make.typeset.words import listed
from vmunet.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipeline.config.params import Params
    from pipeline.config.runs import Run

NAMED = 4  # the most runs that a caption lists by name
MAIN, SCRATCH = "base", "scratch"
Variant = tuple[str, str]  # a cell and a protocol


@dataclass(frozen=True)
class Drawn:
    """A figure with its texts.

    Attributes:
        name: of its files, without suffix.
        title, caption: for a person who sees the figure; alt: for a person who cannot see it.
        results: the results of the runs that it shows.
        figure: a matplotlib Figure.
    """

    name: str
    title: str
    caption: str
    alt: str
    results: Sequence[Result]
    figure: "Figure"

    @property
    def data(self) -> str:
        """`phantom`, `real` or `mixed`."""
        kinds = {"phantom" if _is_phantom(result) else "real" for result in self.results}
        return kinds.pop() if len(kinds) == 1 else "mixed"


class Runs:
    """Every run of the declared grid, with its scores.

    Args:
        root: of the repository.
        params: the content of params.yaml and its profile.
        declared_runs: of `pipeline.config.runs.runs`.

    Raises:
        InputError: a metrics file or one of reports/*.yaml is missing or broken.
    """

    def __init__(self, root: Path, params: "Params", declared_runs: Sequence["Run"]) -> None:
        self.root, self.params = root, params
        self.settings = load_yaml(root / "reports/figures.yaml")
        tables = load_yaml(root / "reports/tables.yaml")
        self.limits: dict[str, float] = tables["strata"]
        self.names: dict[str, str] = tables["datasets"]
        self.organs = {name: metric["heading"] for name, metric in tables["metrics"].items()}
        wanted: dict[str, list[str]] = {name: [] for name in self.names}
        self.results = read_results(root, params, declared_runs, wanted)
        order = {name: place for place, name in enumerate(self.names)}
        by_dataset = sorted(self.results, key=lambda result: order[result.dataset])
        self.views = list(dict.fromkeys(result.run.view for result in by_dataset))

    @property
    def image_views(self) -> list[str]:
        """The views whose images are shown: those on which every cell is run, or else all."""
        images = [v for v in self.views if v not in self.params.grid.volumes]
        return [v for v in images if v in self.params.grid.ablation_views] or images

    @property
    def volume_views(self) -> list[str]:
        return [view for view in self.views if view in self.params.grid.volumes]

    def of(self, view: str, variant: Variant) -> list[Result]:
        """The runs of a cell and protocol on a view, one for each seed, in the declared order."""
        return [
            result
            for result in self.results
            if (result.run.view, (result.run.cell, result.run.protocol)) == (view, variant)
        ]

    def variants(self, view: str) -> list[Variant]:
        """Every cell and protocol that is run on a view."""
        view_runs = [result.run for result in self.results if result.run.view == view]
        return list(dict.fromkeys((run.cell, run.protocol) for run in view_runs))

    def compared(self, view: str) -> list[Variant]:
        """The main cell's runs, then those from scratch; rules choose images by the first one.

        The main cell is `base`, or the grid's first cell if `base` is not run.
        """
        run_variants = self.variants(view)
        cell = MAIN if any(name == MAIN for name, _ in run_variants) else run_variants[0][0]
        preferred = [(name, p) for name in (cell, SCRATCH) for p in ("paper", "sound")]
        return [variant for variant in dict.fromkeys(preferred) if variant in run_variants]

    def models(self, view: str) -> list[Variant]:
        """The main cell and every other model that was run like it; empty without another model."""
        cell, protocol = self.compared(view)[0]
        main = self.params.cells[cell].model
        others = [
            (name, own)
            for name, own in self.variants(view)
            if own == protocol and self.params.cells[name].model != main
        ]
        return [(cell, protocol), *others] if others else []

    def label(self, variant: Variant, between: str = ", ") -> str:
        """The name of a cell under a protocol."""
        cell, protocol = variant
        return f"{self.cell(cell)}{between}{protocol}"

    def cell(self, cell: str) -> str:
        return self.settings["cells"].get(cell, cell)

    def title(self, view: str) -> str:
        """A view's name for a reader, such as `ISIC17, 256 px`."""
        declared = self.params.view(view)
        return f"{self.names[declared.dataset]}, {declared.size} px"

    def source(self, results: Sequence[Result]) -> str:
        """The end of a caption: data, profile and seeds of these runs."""
        datasets = {result.dataset for result in results}
        names = {key: name for key, name in self.names.items() if key in datasets}
        seeds = listed([str(seed) for seed in sorted({result.run.seed for result in results})])
        plural = "s" if len({result.run.seed for result in results}) > 1 else ""
        run_names = list(dict.fromkeys(result.run.name for result in results))
        listing = (
            f"Run{'s' * (len(run_names) > 1)}: {', '.join(run_names)}."
            if len(run_names) <= NAMED
            else ""
        )
        if not listing:
            listing = f"{len(run_names)} runs of the grid."
        made_from = [origin.sentences for origin in origins(results, names)]
        return " ".join(
            [
                *made_from,
                listing,
                f"Profile {self.params.profile_name}, seed{plural} {seeds}.",
            ]
        )

    def first_seed(self) -> str:
        """The sentence below a picture of one seed if there are several seeds."""
        seeds = self.params.grid.seeds
        return f" Of {len(seeds)} seeds the first declared one, {seeds[0]}." if seeds[1:] else ""

    def several_seeds(self, words: str) -> str:
        """A sentence on the seeds, if there are several."""
        seeds = self.params.grid.seeds
        return f" {words} the {len(seeds)} seeds." if seeds[1:] else ""

    def warning(self, results: Sequence[Result]) -> str:
        """The text of the band over a figure of phantoms; '' if the data are real."""
        phantoms = [result for result in results if _is_phantom(result)]
        if not phantoms:
            return ""
        of_datasets = ""
        if len(phantoms) < len(results):
            of_datasets = f" ({', '.join(dict.fromkeys(self.names[r.dataset] for r in phantoms))})"
        kinds = []
        if any(isinstance(result, ImageResult) for result in phantoms):
            kinds.append("lesions")
        if any(isinstance(result, VolumeResult) for result in phantoms):
            kinds.append("organs")
        return f"phantom data{of_datasets}: says nothing about real {' or '.join(kinds)}"

    def folder(self, result: Result) -> Path:
        """The run's metrics folder."""
        return (self.root / result.path).parent

    def table(self, result: Result, name: str, columns: Sequence[str]) -> pd.DataFrame:
        """Columns of a run's per_image.csv or per_case.csv (`name`).

        Raises:
            InputError: the file is missing, or lacks a column.
        """
        path = self.folder(result) / name
        with trusted(path, "the scores of each test image or case", score_again(result.run)):
            return pd.read_csv(path, dtype={"id": str, "case": str, "organ": str})[list(columns)]

    def mean_dice(self, results: Sequence[Result], column: str) -> pd.Series:
        """A column of per_image.csv by id, its mean over the runs (one for each seed).

        Raises:
            InputError: the runs were scored on different images.
        """
        columns = []
        for result in results:
            table = self.table(result, "per_image.csv", ["id", column])
            columns.append(table.set_index("id")[column])
            if not columns[-1].index.equals(columns[0].index):
                raise InputError(
                    f"{self.folder(result) / 'per_image.csv'}: other images than in "
                    f"{self.folder(results[0]) / 'per_image.csv'}; "
                    f"{score_again(result.run)}"
                )
        return pd.concat(columns, axis=1).mean(axis=1)


def floats(series: pd.Series) -> np.ndarray:
    """float64, nan if empty."""
    return series.to_numpy(dtype=np.float64, na_value=np.nan)


def _is_phantom(result: Result) -> bool:
    return result.data["source"] == "phantom"
