"""The paper's tables on the page: published next to measured, measured figures with their runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from reports.make.main_comparison import SAME_IMAGES
from reports.make.page.layout import DASH, Column, PageCell, PageTable, Source, source
from reports.make.report import Figure, PaperTable, Part, Report, Row
from reports.make.typeset.sheet import Caption, Origin
from reports.make.typeset.words import DASH as NOTHING
from reports.make.typeset.words import best, bracketed, number, probability, signed

LEGEND = (
    "diff.: measured minus published, in points. A measured figure is a link to its metrics file; "
    "the arrow \u2197 opens the run on MLflow's page (make ui starts it). Every column can be "
    "sorted: click its heading, or press Enter on it."
)
INFERENCE = (
    "In brackets: the 95% bootstrap interval of the measured figure over the test images or cases. "
    f"{SAME_IMAGES} \u2605: a method that differs from VM-UNet's own row over three seeds or more "
    "of both (p < 0.05 after Holm's correction)."
)


@dataclass(frozen=True)
class Section:
    """A table of the paper with its caption, in one part or in one for each dataset."""

    key: str
    title: str
    caption: Caption
    tables: list[PageTable]


def sections(report: Report) -> list[Section]:
    """A section for each table of the paper."""
    return [
        Section(
            key=part.table.name,
            title=f"Table {part.table.key}. {part.sheet.caption.title}",
            caption=part.sheet.caption,
            tables=_PaperTable(part, part.table, report).parts(),
        )
        for part in report.parts
        if part.table
    ]


def run_sources(report: Report) -> dict[str, Source]:
    """The links of each run, by its name."""
    return {
        str(run["run"]): source(
            str(run["run"]), str(run["metrics_file"]), str(run["mlflow_run_id"] or "")
        )
        for run in report.runs.records()
    }


def has_inference(report: Report) -> bool:
    """Whether any figure has an interval or a test to explain."""
    tables = [part.table for part in report.parts if part.table]
    return any(figure.inference is not None for table in tables for figure in table.figures)


class _PaperTable:
    """One of the paper's tables, with the report's datasets, metrics and runs."""

    def __init__(self, part: Part, table: PaperTable, report: Report) -> None:
        self.table, self.spec = table, table.spec
        named = zip(self.spec["datasets"], part.sheet.caption.origins, strict=True)
        self.origins: Mapping[str, Origin] = dict(named)
        self.metrics = report.metrics
        self.sources = run_sources(report)

    def parts(self) -> list[PageTable]:
        datasets = list(self.spec["datasets"])
        if self.spec["layout"] == "stacked":
            return [self._stacked(dataset) for dataset in datasets]
        columns = self.spec["layout"] == "columns"
        groups = [datasets] if columns else [[name] for name in datasets]
        return [self._side_by_side(group) for group in groups]

    def _side_by_side(self, datasets: Sequence[str]) -> PageTable:
        """Published, measured and difference next to each other under each metric."""
        rows, extra = self._rows(datasets), list(self.table.extra_columns)
        columns = [Column(text, number=False) for text in (self.spec["heading"], *extra)]
        upper, lower = [("", len(columns))], [("", len(columns))]
        cells = [[PageCell(row.label)] for row in rows]
        for row, of_row in zip(rows, cells, strict=True):
            if extra:
                of_row += [_plain(text) for text in row.extra or (DASH,) * len(extra)]
        for dataset in datasets:
            upper.append((self.origins[dataset].tagged, 3 * len(self.spec["metrics"])))
            for metric in self.spec["metrics"]:
                heading = self.metrics[metric]["heading"]
                lower.append((heading, 3))
                of = f"{self.origins[dataset].name} {heading}"
                columns += [Column(text, of=of) for text in ("publ.", "meas.", "diff.")]
                for of_row, three in zip(cells, self._three(rows, dataset, metric), strict=True):
                    of_row += three
        titles = " and ".join(self.origins[dataset].tagged for dataset in datasets)
        return PageTable(
            key=f"{self.table.name}-{'-'.join(datasets)}",
            caption=f"Table {self.table.key}, {titles}",
            origins=tuple(self.origins[dataset] for dataset in datasets),
            groups=[upper, lower] if len(datasets) > 1 else [lower],
            columns=columns,
            rows=cells,
            references=[row.reference for row in rows],
        )

    def _stacked(self, dataset: str) -> PageTable:
        """Many metrics: a row of published figures, and one of measured ones below it.

        Sorting then ranks the measured figures among the published ones.
        """
        extra = list(self.table.extra_columns)
        columns = [Column(text, number=False) for text in (self.spec["heading"], "Figures", *extra)]
        columns += [Column(self.metrics[metric]["heading"]) for metric in self.spec["metrics"]]
        cells: list[list[PageCell]] = []
        references: list[int | None] = []
        rows = self._rows([dataset])
        by_metric = [self._three(rows, dataset, metric) for metric in self.spec["metrics"]]
        for i, row in enumerate(rows):
            published, measured, difference = zip(*(three[i] for three in by_metric), strict=True)
            if row.protocol == "paper":
                nothing = [PageCell(DASH)] * len(extra)
                cells.append([PageCell(row.label), PageCell("published"), *nothing, *published])
                references.append(row.reference)
            if row.cell is not None and self.table.runs:
                pairs = zip(measured, difference, strict=True)
                below = (_with_difference(*pair) for pair in pairs)
                own = map(_plain, row.extra)
                cells.append([PageCell(row.label), PageCell("measured"), *own, *below])
                references.append(None)
        return PageTable(
            key=f"{self.table.name}-{dataset}",
            caption=f"Table {self.table.key}, {self.origins[dataset].tagged}; below a measured "
            "figure its difference to the published one",
            origins=(self.origins[dataset],),
            groups=[],
            columns=columns,
            rows=cells,
            references=references,
        )

    def _rows(self, datasets: Sequence[str]) -> list[Row]:
        """The rows that have a figure for any of the datasets."""
        return [row for row in self.table.rows if any(name in row.figures for name in datasets)]

    def _three(
        self, rows: Sequence[Row], dataset: str, metric: str
    ) -> list[tuple[PageCell, PageCell, PageCell]]:
        """Published, measured and difference of each row, the best of the first two in bold."""
        figures = [row.figures.get(dataset, {}).get(metric, Figure()) for row in rows]
        # The paper reports nothing under the sound protocol: that row only compares with it.
        published = [
            None if row.protocol == "sound" else figure.published
            for row, figure in zip(rows, figures, strict=True)
        ]
        better = self.metrics[metric]["better"]
        best_published = best([number(value) for value in published], better)
        best_measured = best([number(figure.measured) for figure in figures], better)
        return [
            (
                _figure(value, bold=number(value) == best_published),
                self._measured(row, dataset, figure, number(figure.measured) == best_measured),
                _difference(figure),
            )
            for row, figure, value in zip(rows, figures, published, strict=True)
        ]

    def _measured(self, row: Row, dataset: str, figure: Figure, bold: bool) -> PageCell:
        if figure.measured is None:
            return PageCell(DASH)
        inference = figure.inference
        interval: tuple[str, ...] = ()
        star = ""
        if inference is not None and inference.low is not None:
            interval = (bracketed(inference.low, inference.high),)
        if inference is not None and inference.significant:
            star = f"differs from VM-UNet's row, p {_p(inference.p)}"
        return PageCell(
            number(figure.measured, figure.std),
            sort=figure.measured,
            bold=bold,
            star=star,
            small=interval,
            sources=tuple(self.sources[name] for name in row.runs.get(dataset, [])),
        )


def _plain(text: str) -> PageCell:
    """A text's cell; a dash of the tables becomes the page's dash."""
    return PageCell(DASH if text == NOTHING else text)


def _figure(value: float | None, bold: bool) -> PageCell:
    return PageCell(_text(value), sort=value, bold=bold)


def _difference(figure: Figure) -> PageCell:
    if figure.difference is None:
        return PageCell(DASH)
    return PageCell(signed(figure.difference), sort=figure.difference)


def _with_difference(measured: PageCell, difference: PageCell) -> PageCell:
    """A measured figure with its difference in the line below."""
    if difference.text == DASH:
        return measured
    return replace(measured, small=(*measured.small, difference.text))


def _p(p: float | None) -> str:
    """A probability with its sign: < or =."""
    text = probability(p)
    return text if text.startswith("<") else f"= {text}"


def _text(value: float | None) -> str:
    return DASH if value is None else number(value)
