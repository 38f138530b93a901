"""Table rows: what the paper reported beside what the declared grid measured."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from reports.make.results.metrics import Result, summarise
from reports.make.results.statistics import Inference, Statistics
from reports.make.results.views import DASH, TableViews
from vmunet.errors import InputError

if TYPE_CHECKING:
    from pipeline.config.params import Params


@dataclass(frozen=True)
class Figure:
    """One metric of one row: percent (HD95: its own unit), None where there is none.

    `inference` is there where the figure is measured, and the tables are made with statistics.
    """

    published: float | None = None
    measured: float | None = None
    std: float | None = None
    inference: Inference | None = None

    @property
    def difference(self) -> float | None:
        """Measured minus published, in points."""
        if self.published is None or self.measured is None:
            return None
        return self.measured - self.published

    @property
    def difference_interval(self) -> tuple[float, float] | None:
        """The 95% interval of the difference: the published value is taken as exact."""
        inferred = self.inference
        if self.published is None or inferred is None or inferred.low is None:
            return None
        return inferred.low - self.published, inferred.high - self.published


@dataclass(frozen=True)
class Row:
    """A row of a table under one protocol.

    `published` names the row of published.yaml. Under the sound protocol it is the row that
    the measured figures are compared with; the paper reports no such run.
    `figures[dataset][metric]` lacks the datasets that the row says nothing about.
    """

    label: str
    protocol: str
    cell: str | None
    published: str | None
    reference: int | None
    figures: dict[str, dict[str, Figure]]
    results: dict[str, list[Result]]
    extra: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    key: str
    spec: Mapping[str, Any]
    rows: list[Row]

    @property
    def name(self) -> str:
        return f"table{_NUMERALS.index(self.key) + 1}"

    @property
    def results(self) -> list[Result]:
        return [result for row in self.rows for found in row.results.values() for result in found]


_NUMERALS = ("I", "II", "III", "IV", "V", "VI")


def wanted_metrics(declared: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Which metrics, with their units, the tables want of each dataset."""
    wanted: dict[str, dict[str, str]] = {}
    for spec in declared["tables"].values():
        for dataset in spec["datasets"]:
            units = {name: declared["metrics"][name]["unit"] for name in spec["metrics"]}
            wanted.setdefault(dataset, {}).update(units)
    return wanted


class Assembler:
    """Builds each declared table from the published figures and the grid's results."""

    def __init__(
        self,
        params: "Params",
        declared: Mapping[str, Any],
        published: Mapping[str, Any],
        results: list[Result],
        statistics: Statistics | None = None,
    ):
        """`statistics` brings intervals and tests to the figures, and wants each run's files."""
        self.params = params
        self.declared = declared
        self.published = published
        self.results = results
        self.summary = summarise(results, declared["metrics"])
        self.views = TableViews(params, declared, published)
        self.statistics = statistics

    def tables(self) -> list[Table]:
        return [self.table(key, spec) for key, spec in self.declared["tables"].items()]

    def table(self, key: str, spec: Mapping[str, Any]) -> Table:
        rows = [row for declared in self.views.rows(spec) for row in self._rows(spec, declared)]
        return Table(key, spec, self._inferred(spec, rows) if self.statistics else rows)

    def _inferred(self, spec: Mapping[str, Any], rows: list[Row]) -> list[Row]:
        """The rows with their figures' intervals, and tests against VM-UNet's row."""
        figures = [{dataset: dict(of) for dataset, of in row.figures.items()} for row in rows]
        scales = {metric: self._scale(metric) for metric in spec["metrics"]}
        for dataset in spec["datasets"]:
            base_view = self.views.views[dataset].get(self.views.base_sizes[dataset])
            inferred = self.statistics.inferences(
                rows=[row.results.get(dataset, []) for row in rows],
                published=[self._published(row.published).get(dataset, {}) for row in rows],
                base=self._runs_of(base_view, "base", "paper"),
                scales=scales,
            )
            for of_row, found in zip(figures, inferred, strict=True):
                for metric, inference in found.items():
                    figure = of_row[dataset][metric]
                    of_row[dataset][metric] = replace(figure, inference=inference)
        return [replace(row, figures=of) for row, of in zip(rows, figures, strict=True)]

    def _runs_of(self, view: str | None, cell: str | None, protocol: str) -> list[Result]:
        return [
            result
            for result in self.results
            if (result.run.view, result.run.cell, result.run.protocol) == (view, cell, protocol)
        ]

    def _scale(self, metric: str) -> int:
        """What takes a score to its figure."""
        return 100 if self.declared["metrics"][metric]["unit"] == "percent" else 1

    def _published(self, reference: str | None) -> Mapping[str, Any]:
        if reference is None:
            return {}
        table, _, row = reference.partition(".")
        try:
            return self.published["tables"][table][row]
        except KeyError:
            raise InputError(
                f"reports/tables.yaml: published: {reference} is no row of reports/published.yaml"
            ) from None

    def _rows(self, spec: Mapping[str, Any], declared: Mapping[str, Any]) -> list[Row]:
        """The row under the paper's protocol and, where such runs exist, the sound one."""
        reported = self._published(declared.get("published"))
        cell = declared.get("cell")
        if cell is None and declared.get("published") is None:
            raise InputError(
                f"reports/tables.yaml: row '{declared['label']}' has neither `published` nor "
                "`cell`: nothing would be shown of it"
            )
        if cell is not None and cell not in self.params.cells:
            raise InputError(
                f"reports/tables.yaml: row '{declared['label']}' of '{spec['title']}': params.yaml "
                f"has no cell '{cell}'; give both files the same name"
            )
        row_views = self.views.of_row(spec, declared)
        cite = reported.get("cite")
        rows = []
        for protocol in ("paper", "sound"):
            results = {
                dataset: self._runs_of(view, cell, protocol) for dataset, view in row_views.items()
            }
            if protocol == "sound" and not any(results.values()):
                continue
            figures = {
                dataset: self._figures(
                    spec["metrics"], reported.get(dataset, {}), results.get(dataset, [])
                )
                for dataset in spec["datasets"]
                if cell or dataset in reported
            }
            label = (
                declared["label"] if protocol == "paper" else f"{declared['label']}, sound protocol"
            )
            sizes = {found[0].size for found in results.values() if found}
            rows.append(
                Row(
                    label=label,
                    protocol=protocol,
                    cell=cell,
                    published=declared.get("published"),
                    reference=self.published["references"][cite]["number"] if cite else None,
                    figures=figures,
                    results=results,
                    extra=self._extra(spec, cell, reported, sizes),
                )
            )
        return rows

    def _figures(
        self, metrics: Sequence[str], reported: Mapping[str, float], results: list[Result]
    ) -> dict[str, Figure]:
        figures = {}
        for metric in metrics:
            mean = std = None
            if results:
                run = results[0].run
                found = self.summary.loc[(run.view, run.cell, run.protocol), metric]
                scale = self._scale(metric)
                mean = scale * float(found["mean"])
                std = None if pd.isna(found["std"]) else scale * float(found["std"])
            figures[metric] = Figure(reported.get(metric), mean, std)
        return figures

    def _extra(
        self,
        spec: Mapping[str, Any],
        cell: str | None,
        reported: Mapping[str, Any],
        sizes: set[int],
    ) -> tuple[str, ...]:
        """The columns between the label and the scores, as text."""
        if spec.get("extra") == "size":
            return (" or ".join(f"{size}×{size}" for size in sorted(sizes)) or DASH,)
        if spec.get("extra") == "complexity" and cell:
            return complexity_columns(self.params.cells[cell], reported, self.published["settings"])
        return ()


def complexity_columns(
    cell: Any, reported: Mapping[str, Any], settings: Mapping[str, Any]
) -> tuple[str, ...]:
    """Parameters (M) published and computed; FLOPs (G) published, the paper's way, complete."""
    from vmunet.complexity import complexity  # brings torch; only Table V needs it

    cost = complexity(cell.depths, cell.depths_decoder, settings["dims"], settings["size"])
    columns = (
        reported.get("params", math.nan),
        cost.parameters / 1e6,
        reported.get("flops", math.nan),
        cost.macs_paper / 1e9,
        cost.macs_complete / 1e9,
    )
    return tuple(DASH if math.isnan(value) else f"{value:.2f}" for value in columns)
