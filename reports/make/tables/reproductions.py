"""Others' figures of the published code, next to those of the paper and of the runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reports.make.main_comparison import MAIN, SAME_IMAGES
from reports.make.report import OURS, Figure, PaperTable, Row
from reports.make.results.metrics import VolumeResult
from reports.make.tables.captions import (
    INTERVALS,
    image_legend,
    runs_caption,
    volume_legend,
)
from reports.make.tables.inputs import Inputs
from reports.make.tidy import Tidy, tidy
from reports.make.typeset.sheet import Block, Line, Sheet, Span, plain
from reports.make.typeset.words import DASH, bracketed, number
from vmunet.errors import InputError

DECLARED = "reports/published.yaml: reproductions"


@dataclass(frozen=True)
class Reproduction:
    """One entry: the range that others report for a published row's metric, and our rows of it."""

    dataset: str
    metric: str
    published_row: str
    low: float
    high: float
    verified: bool
    text: str
    rows: Mapping[str, Row]  # by protocol; the sound one if there are runs

    def figure(self, protocol: str) -> Figure:
        row = self.rows.get(protocol)
        return row.figures[self.dataset][self.metric] if row else Figure()


def reproductions(tables: Sequence[PaperTable], published: Mapping[str, Any]) -> list[Reproduction]:
    """The entries of published.yaml with the rows that measure the same.

    Raises:
        InputError: an entry lacks a field, or names a row, metric or dataset that no table shows.
    """
    entries = []
    for place, entry in enumerate(published.get("reproductions", []), start=1):
        named = f"{DECLARED}, entry {place}"
        for field in ("dataset", "metric", "published", "low", "high", "verified", "text"):
            if field not in entry:
                raise InputError(f"{named}: lacks '{field}'")
        dataset, metric = entry["dataset"], entry["metric"]
        rows = [
            row
            for table in tables
            for row in table.rows
            if row.published == entry["published"] and metric in row.figures.get(dataset, {})
        ]
        if not rows:
            raise InputError(
                f"{named}: no table shows {metric} of {entry['published']} on {dataset}; name a "
                "row, metric and dataset of reports/tables.yaml"
            )
        entries.append(
            Reproduction(
                dataset,
                metric,
                entry["published"],
                entry["low"],
                entry["high"],
                entry["verified"],
                entry["text"],
                {row.protocol: row for row in reversed(rows)},
            )
        )
    return entries


def reproductions_sheet(inputs: Inputs, entries: Sequence[Reproduction]) -> Sheet:
    lines = []
    for entry in entries:
        metric = inputs.declared["metrics"][entry.metric]["heading"]
        texts = [
            f"{_model(entry)}{inputs.heading(entry.dataset)}, {metric}",
            number(entry.figure("paper").published),
            _range(entry),
        ]
        for protocol in ("paper", "sound"):
            figure = entry.figure(protocol)
            inference = figure.inference
            texts.append(number(figure.measured, figure.std))
            texts.append(bracketed(inference.low, inference.high) if inference else DASH)
        lines.append(Line(plain(texts)))
    results = inputs.of(
        name
        for entry in entries
        for row in entry.rows.values()
        for name in row.runs.get(entry.dataset, [])
    )
    doubtful = [entry for entry in entries if not entry.verified]
    notes = [f"Figures are percentages. {INTERVALS}", SAME_IMAGES]
    if doubtful:
        reasons = dict.fromkeys(entry.text for entry in doubtful)
        notes.append(
            f"Others' figures are unverified ({'; '.join(reasons)}): nobody here measured them, "
            "and they are given for orientation alone."
        )
    protocols = {result.run.protocol for result in results}
    kinds = {isinstance(result, VolumeResult) for result in results}
    notes += image_legend(protocols) if False in kinds else []
    notes += volume_legend(protocols) if True in kinds else []
    return Sheet(
        name="reproductions",
        caption=runs_caption(
            inputs, "Published, reproduced by others, and measured here", notes, results
        ),
        head=("Model, dataset, metric", "publ.", "others", *(("meas.", "95% interval") * 2)),
        blocks=(Block("", tuple(lines)),),
        spans=((Span("Paper protocol", 4, 5), Span("Sound protocol", 6, 7)),),
        source="reports/published.yaml",
    )


def _model(entry: Reproduction) -> str:
    """The name of a row other than VM-UNet's main one, before the dataset's."""
    row = entry.rows["paper"]
    main = row.model == OURS and entry.published_row.partition(".")[0] in MAIN
    return "" if main else f"{row.label}: "


def _range(entry: Reproduction) -> str:
    return "–".join(dict.fromkeys(f"{value:.1f}" for value in (entry.low, entry.high)))


def reproductions_data(entries: Sequence[Reproduction]) -> Tidy:
    """Tidy: a line for each entry; percent, rounded to 6 decimals."""
    records = []
    for entry in entries:
        record: dict[str, Any] = {
            "dataset": entry.dataset,
            "metric": entry.metric,
            "published_row": entry.published_row,
            "published": entry.figure("paper").published,
            "others_low": entry.low,
            "others_high": entry.high,
            "verified": entry.verified,
            "text": entry.text,
        }
        for protocol in ("paper", "sound"):
            figure = entry.figure(protocol)
            inference = figure.inference
            record |= {
                f"{protocol}_measured": figure.measured,
                f"{protocol}_std": figure.std,
                f"{protocol}_low": inference.low if inference else None,
                f"{protocol}_high": inference.high if inference else None,
            }
        records.append(record)
    return tidy(records)
