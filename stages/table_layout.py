"""What a table prints, before LaTeX or Markdown: header, lines, cells, and which is the best."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from stages.table_metrics import ImageResult, Result
from stages.table_rows import Figure, Row, Table
from stages.table_scores import SOUND_SIZES, Estimate
from stages.table_views import DASH

if TYPE_CHECKING:
    from pipeline.params import Params

# The columns between label and scores: heading, then sub-heading -> its column in the CSV.
EXTRA: dict[str, list[tuple[str, dict[str, str]]]] = {
    "complexity": [
        ("#Params (M)", {"publ.": "published_params_M", "comp.": "params_M"}),
        (
            "FLOPs (G)",
            {
                "publ.": "published_flops_G",
                "paper's way": "macs_paper_G",
                "complete": "macs_complete_G",
            },
        ),
    ],
    "size": [("", {"Size here": "size_here"})],
}

# The columns of the sound metrics at each size: the score, its heading, with its interval or not.
SOUND = (
    ("miou", "pooled mIoU", False),
    ("mean_iou", "mean IoU", True),
    ("mean_dice", "mean Dice", True),
    ("thresholded_jaccard", "thr. J", False),
)
SOUND_HEADINGS = ("At the training size", "At the masks' own size")


@dataclass(frozen=True)
class Cell:
    text: str
    bold: bool = False


@dataclass(frozen=True)
class Line:
    """A row as it is printed; `cells` are published, measured, difference for each metric."""

    label: str
    extra: tuple[str, ...]
    cells: list[tuple[Cell, Cell, Cell]]
    ours: bool
    protocol: str


@dataclass(frozen=True)
class Span:
    """A heading over columns `first` to `last`, counted from 1."""

    text: str
    first: int
    last: int

    @property
    def width(self) -> int:
        return self.last - self.first + 1


def extra_columns(table: Table) -> list[tuple[str, dict[str, str]]]:
    return EXTRA.get(table.spec.get("extra", ""), [])


def number(value: float | None, std: float | None = None) -> str:
    if value is None:
        return DASH
    return f"{value:.2f}" if std is None else f"{value:.2f} ± {std:.2f}"


def signed(value: float | None) -> str:
    """A difference with its sign (a true minus); a rounded zero has none."""
    if value is None:
        return DASH
    text = f"{abs(value):.2f}"
    if text == "0.00":
        return text
    return ("+" if value > 0 else "\u2212") + text


def label(row: Row) -> str:
    return row.label if row.reference is None else f"{row.label} [{row.reference}]"


def lines(table: Table, declared: Mapping[str, Any], datasets: Sequence[str]) -> list[Line]:
    """The rows that say something about any of `datasets`, the best of each column in bold."""
    rows = [row for row in table.rows if any(dataset in row.figures for dataset in datasets)]
    cells: list[list[tuple[Cell, Cell, Cell]]] = [[] for _ in rows]
    for dataset in datasets:
        for metric in table.spec["metrics"]:
            better = declared["metrics"][metric]["better"]
            for row_cells, three in zip(cells, _column(rows, dataset, metric, better), strict=True):
                row_cells.append(three)
    extra = sum(len(subs) for _, subs in extra_columns(table))
    return [
        Line(
            label=label(row),
            # A sound row would repeat the columns of the row above.
            extra=("",) * extra if row.protocol == "sound" or not row.extra else row.extra,
            cells=row_cells,
            ours=row.cell is not None,
            protocol=row.protocol,
        )
        for row, row_cells in zip(rows, cells, strict=True)
    ]


def _column(
    rows: list[Row], dataset: str, metric: str, better: str
) -> list[tuple[Cell, Cell, Cell]]:
    figures = [row.figures.get(dataset, {}).get(metric, Figure()) for row in rows]
    # The paper reports nothing under the sound protocol: that row only compares with it.
    published = [
        DASH if row.protocol == "sound" else number(figure.published)
        for row, figure in zip(rows, figures, strict=True)
    ]
    measured = [number(figure.measured) for figure in figures]
    best_published, best_measured = _best(published, better), _best(measured, better)
    return [
        (
            Cell(published[i], published[i] == best_published),
            Cell(number(figure.measured, figure.std), measured[i] == best_measured),
            Cell(signed(figure.difference)),
        )
        for i, figure in enumerate(figures)
    ]


def _best(texts: list[str], better: str) -> str | None:
    """The best of a column as printed, so that ties are bold; None below two values."""
    values = [text for text in texts if text != DASH]
    if len(values) < 2:
        return None
    return min(values, key=float) if better == "lower" else max(values, key=float)


def header(table: Table, declared: Mapping[str, Any]) -> list[list[Span]]:
    """The rows of headings of a side-by-side table, without the last (publ., meas., diff.)."""
    metrics = [declared["metrics"][metric]["heading"] for metric in table.spec["metrics"]]
    extra = extra_columns(table)
    column = 2
    lower = []
    for top, subs in extra:
        lower.append(Span(top, column, column + len(subs) - 1))
        column += len(subs)
    upper = [Span("", 2, column - 1)] if extra else []
    datasets = table.spec["datasets"] if table.spec["layout"] == "columns" else [""]
    for dataset in datasets:
        name = declared["datasets"].get(dataset, "")
        upper.append(Span(name, column, column + 3 * len(metrics) - 1))
        for metric in metrics:
            lower.append(Span(metric, column, column + 2))
            column += 3
    return [upper, lower] if table.spec["layout"] == "columns" else [lower]


def last_header(table: Table, header: list[list[Span]]) -> list[str]:
    """The headings of the single columns."""
    subs = [sub for _, subs in extra_columns(table) for sub in subs]
    scores = (header[-1][-1].last - 1 - len(subs)) // 3
    return [table.spec["heading"], *subs, *(["publ.", "meas.", "diff."] * scores)]


def sound_head() -> list[str]:
    """The headings of the single columns of the sound metrics' table."""
    scores = [heading for _, heading, _ in SOUND]
    return ["Cell", "Protocol", "Seed", "Paper's mIoU", *scores * len(SOUND_SIZES)]


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


def sound_blocks(
    params: "Params", declared: Mapping[str, Any], results: Sequence[ImageResult]
) -> list[tuple[str, list[list[str]]]]:
    """A block for each view, its dataset and size for a title; a row of texts for each run.

    The paper-set mIoU comes first, then pooled and per-image scores at both sizes, in percent.
    """
    place = run_order(params, declared)
    return [
        (f"{declared['datasets'][dataset]} at {size}×{size}", [_sound_row(one) for one in found])
        for (dataset, size), found in groupby(
            sorted(results, key=place), key=lambda result: (result.dataset, result.size)
        )
    ]


def _sound_row(result: ImageResult) -> list[str]:
    run, miou = result.run, result.scores.get("miou")
    texts = [run.cell, run.protocol, str(run.seed), number(None if miou is None else 100 * miou)]
    for size in SOUND_SIZES:
        texts += [estimate(result.sound[size][name], interval) for name, _, interval in SOUND]
    return texts


def estimate(score: Estimate, interval: bool) -> str:
    """A score in percent, with its interval where asked and where there is one."""
    if score.value is None:
        return DASH
    text = number(100 * score.value)
    if not interval:
        return text
    if score.low is None or score.high is None:
        return f"{text} [{DASH}]"
    return f"{text} [{number(100 * score.low)}, {number(100 * score.high)}]"
