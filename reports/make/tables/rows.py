"""Table rows: the paper's figures next to those that the declared grid measured."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from reports.make.main_comparison import MAIN
from reports.make.report import Figure, PaperTable, Row
from reports.make.results.foreign import FOREIGN
from reports.make.results.metrics import Result
from reports.make.results.scores import mean_and_std
from reports.make.results.statistics import Statistics
from reports.make.results.views import TableViews
from reports.make.tables.inputs import Inputs
from reports.make.typeset.words import DASH
from vmunet.errors import InputError

if TYPE_CHECKING:
    from pipeline.config.params import Params

# Initial weights, as the tables print them.
INITIAL = {
    "none": "none",
    "imagenet": "ImageNet",
    "vmamba-t": "VMamba-T",
    "vmamba-s": "VMamba-S",
}


class Assembler:
    """Builds each declared table from the published figures and the grid's results."""

    def __init__(self, inputs: Inputs) -> None:
        self.inputs = inputs
        self.params, self.published = inputs.params, inputs.published
        self.views = TableViews(inputs.params, inputs.declared, inputs.published)

    def tables(self) -> list[PaperTable]:
        declared = self.inputs.declared["tables"]
        return [self.table(key, spec) for key, spec in declared.items()]

    def table(self, key: str, spec: Mapping[str, Any]) -> PaperTable:
        rows = [row for declared in self.views.rows(spec) for row in self._rows(spec, declared)]
        if self.inputs.statistics:
            rows = self._inferred(spec, rows, self.inputs.statistics)
        if key in MAIN:
            rows += self._foreign(spec)
        return PaperTable(key, {name: spec[name] for name in spec if name != "rows"}, rows)

    def _foreign(self, spec: Mapping[str, Any]) -> list[Row]:
        """The row of nnU-Net, if it was scored on one of the table's datasets."""
        of = {name: self.inputs.foreign.get(name) for name in spec["datasets"]}
        there = {name: scores for name, scores in of.items() if scores is not None}
        if not there:
            return []
        trainers = sorted({scores.trainer for scores in there.values() if scores.short})
        label = "nnU-Net 2D, its own protocol, same images"
        figures: dict[str, dict[str, Figure]] = {name: {} for name in of if self._measured(name)}
        for name, scores in there.items():
            for metric in spec["metrics"]:
                value = self._scale(metric) * scores.scores[metric]
                figures[name][metric] = Figure(measured=value)
        return [
            Row(
                label=f"{label} ({', '.join(trainers)})" if trainers else label,
                protocol=FOREIGN,
                cell=FOREIGN,
                published=None,
                reference=None,
                figures=figures,
                runs={},
                extra=("none",) if spec.get("extra") == "initial" else (),
            )
        ]

    def _measured(self, dataset: str) -> bool:
        return any(result.dataset == dataset for result in self.inputs.results)

    def _inferred(
        self, spec: Mapping[str, Any], rows: list[Row], statistics: Statistics
    ) -> list[Row]:
        """The rows with their figures' intervals, and tests against VM-UNet's row."""
        figures = [{dataset: dict(of) for dataset, of in row.figures.items()} for row in rows]
        scales = {metric: self._scale(metric) for metric in spec["metrics"]}
        for dataset in spec["datasets"]:
            base_view = self.views.views[dataset].get(self.views.base_sizes[dataset])
            of_volumes = base_view in self.params.grid.volumes
            main = "base" if of_volumes else self.params.grid.main_cell
            inferences = statistics.inferences(
                rows=[self.inputs.of(row.runs.get(dataset, [])) for row in rows],
                base=self._runs_of(base_view, main, "paper"),
                scales=scales,
            )
            for of_row, inferred in zip(figures, inferences, strict=True):
                for metric, inference in inferred.items():
                    figure = of_row[dataset][metric]
                    of_row[dataset][metric] = replace(figure, inference=inference)
        return [replace(row, figures=of) for row, of in zip(rows, figures, strict=True)]

    def _runs_of(self, view: str | None, cell: str | None, protocol: str) -> list[Result]:
        return [
            result
            for result in self.inputs.results
            if (result.run.view, result.run.cell, result.run.protocol) == (view, cell, protocol)
        ]

    def _scale(self, metric: str) -> int:
        """The factor from a score to its figure."""
        return 100 if self.inputs.declared["metrics"][metric]["unit"] == "percent" else 1

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
        """The row under the paper's protocol and, if such runs exist, the sound one."""
        reported = self._published(declared.get("published"))
        cell = declared.get("cell")
        if declared.get("optional") and cell not in self.params.cells:
            return []
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
            shown = protocol == "paper" and "published" in declared
            if not shown and not any(results.values()):
                continue
            figures = {
                dataset: self._figures(
                    spec["metrics"], reported.get(dataset, {}), results.get(dataset, [])
                )
                for dataset in spec["datasets"]
                if dataset in reported or results.get(dataset)
            }
            label = (
                declared["label"] if protocol == "paper" else f"{declared['label']}, sound protocol"
            )
            measured = [results_of for results_of in results.values() if results_of]
            rows.append(
                Row(
                    label=label,
                    protocol=protocol,
                    cell=cell,
                    published=declared.get("published"),
                    reference=self.published["references"][cite]["number"] if cite else None,
                    figures=figures,
                    runs={
                        dataset: [result.run.name for result in dataset_results]
                        for dataset, dataset_results in results.items()
                    },
                    extra=self._extra(spec, cell, reported, measured),
                    model=self.params.cells[cell].model if cell else "",
                )
            )
        return rows

    def _figures(
        self, metrics: Sequence[str], reported: Mapping[str, float], results: list[Result]
    ) -> dict[str, Figure]:
        figures = {}
        for metric in metrics:
            scale = self._scale(metric)
            mean, std = mean_and_std([result.scores[metric] for result in results])
            figures[metric] = Figure(
                reported.get(metric),
                None if mean is None else scale * mean,
                None if std is None else scale * std,
            )
        return figures

    def _extra(
        self,
        spec: Mapping[str, Any],
        cell: str | None,
        reported: Mapping[str, Any],
        measured: Sequence[Sequence[Result]],
    ) -> tuple[str, ...]:
        """The columns between the label and the scores, as text; `measured` are a row's results."""
        if spec.get("extra") == "size":
            sizes = sorted({results[0].size for results in measured})
            return (" or ".join(f"{size}×{size}" for size in sizes) or DASH,)
        if spec.get("extra") == "initial":
            return (initial_weights(self.params, cell) if cell and measured else DASH,)
        if spec.get("extra") == "complexity" and cell:
            return complexity_columns(self.params.cells[cell], reported, self.published["settings"])
        return ()


def initial_weights(params: "Params", cell: str) -> str:
    """What a cell's training starts from, in a word."""
    init = params.cells[cell].init
    if init.startswith("vmamba") and params.profile.weights.source == "phantom":
        return "phantoms"
    return INITIAL[init]


def complexity_columns(
    cell: Any, reported: Mapping[str, Any], settings: Mapping[str, Any]
) -> tuple[str, ...]:
    """Parameters (M): published, computed. FLOPs (G): published, as the paper counts, complete."""
    from vmunet.complexity import complexity  # this imports torch, which only Table V needs

    cost = complexity(cell.depths, cell.depths_decoder, settings["dims"], settings["size"])
    columns = (
        reported.get("params", math.nan),
        cost.parameters / 1e6,
        reported.get("flops", math.nan),
        cost.macs_paper / 1e9,
        cost.macs_complete / 1e9,
    )
    return tuple(DASH if math.isnan(value) else f"{value:.2f}" for value in columns)
