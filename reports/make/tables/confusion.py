"""The confusion matrices of Table I: those that the printed scores imply, and the measured ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reports.make.report import PaperTable, Row
from reports.make.results.metrics import Result
from reports.make.results.scores import mean_and_std
from reports.make.tables.captions import runs_caption
from reports.make.tables.inputs import Inputs
from reports.make.tidy import Tidy, tidy
from reports.make.typeset.sheet import Block, Line, Sheet, plain
from reports.make.typeset.words import bracketed, number, percent
from vmunet.data.checks.printed import Printed, Shares, bounds, shares

SCORES = ("acc", "spe", "sen")
NOTES = (
    "In percent of all test pixels. TP: lesion that is found; FN: lesion that is missed; FP: "
    "background that is taken for lesion; TN: the rest.",
    "Published: accuracy is the mean of sensitivity and specificity, weighted by the shares of "
    "lesion and background, so that the three printed scores give the matrix. In brackets what "
    "their rounding to 0.01 leaves open.",
    "Measured: the same of each run's own scores, which are not rounded.",
)


@dataclass(frozen=True)
class Matrix:
    """A row's matrices; `published` is its least, its likeliest and its largest shares."""

    dataset: str
    row: Row
    published: tuple[Shares, Shares, Shares] | None
    measured: Sequence[Shares]
    results: Sequence[Result]


def matrices(tables: Sequence[PaperTable], inputs: Inputs) -> list[Matrix]:
    """Every row of Table I with measured scores, by dataset."""
    found = []
    for table in tables:
        if table.key != "I":
            continue
        for dataset in table.spec["datasets"]:
            for row in table.rows:
                results = inputs.of(row.runs.get(dataset, []))
                # With equal scores every share of lesion gives the same accuracy.
                if not results or any(of.scores["spe"] == of.scores["sen"] for of in results):
                    continue
                measured = [shares(*(of.scores[name] for name in SCORES)) for of in results]
                found.append(Matrix(dataset, row, _published(row, dataset), measured, results))
    return found


def _published(row: Row, dataset: str) -> tuple[Shares, Shares, Shares] | None:
    if row.protocol != "paper":  # the row above has the same published figures
        return None
    figures = row.figures.get(dataset, {})
    acc, spe, sen = (figures[name].published if name in figures else None for name in SCORES)
    if acc is None or spe is None or sen is None:
        return None
    printed: Printed = (acc, spe, sen)
    low, high = bounds(printed)
    return low, shares(acc / 100, spe / 100, sen / 100), high


def confusion_sheet(inputs: Inputs, rows: Sequence[Matrix]) -> Sheet:
    blocks: dict[str, list[Line]] = {}
    for of in rows:
        lines = blocks.setdefault(f"{inputs.heading(of.dataset)} (% of pixels)", [])
        if of.published:
            low, middle, high = (map(percent, each) for each in of.published)
            texts = (
                f"{number(value)} {bracketed(least, most)}"
                for least, value, most in zip(low, middle, high, strict=True)
            )
            lines.append(Line(plain((of.row.label, "publ.", *texts))))
        ours = (mean_and_std(list(map(percent, each))) for each in zip(*of.measured, strict=True))
        label = of.row.label
        lines.append(Line(plain((label, "meas.", *(number(*each) for each in ours)))))
    results = [result for of in rows for result in of.results]
    return Sheet(
        name="confusion",
        caption=runs_caption(inputs, "Confusion matrices behind Table I", NOTES, results),
        head=("Row", "Origin", "TP", "FN", "FP", "TN"),
        blocks=tuple(Block(title, tuple(lines)) for title, lines in blocks.items()),
        left=2,
        source="reports/published.yaml",
    )


def confusion_data(rows: Sequence[Matrix]) -> Tidy:
    """Tidy: a line for each row; percent of all test pixels, rounded to 6 decimals."""
    records: list[dict[str, Any]] = []
    for of in rows:
        run = of.results[0].run
        record: dict[str, Any] = {"row": of.row.label, "dataset": of.dataset, "view": run.view}
        record |= {"cell": run.cell, "protocol": run.protocol, "n_seeds": len(of.results)}
        for place, name in enumerate(Shares._fields):
            low, middle, high = (
                (percent(each[place]) for each in of.published) if of.published else (None,) * 3
            )
            record |= {f"published_{name}": middle}
            record |= {f"published_{name}_low": low, f"published_{name}_high": high}
            mean, std = mean_and_std([percent(each[place]) for each in of.measured])
            record |= {f"measured_{name}": mean, f"measured_{name}_std": std}
        records.append(record | {"metrics_files": ";".join(one.path for one in of.results)})
    return tidy(records)
