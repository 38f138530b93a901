"""What others report of the published code, beside the paper and the runs here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reports.make.report import Figure, PaperTable, Row
from reports.make.results.metrics import VolumeResult
from reports.make.tables.captions import image_legend, runs_caption, volume_legend
from reports.make.tables.inputs import Inputs
from reports.make.tidy import Tidy, tidy
from reports.make.typeset.sheet import Block, Line, Sheet, Span, plain
from reports.make.typeset.words import DASH, bracketed, number
from vmunet.errors import InputError

DECLARED = "reports/published.yaml: reproductions"


@dataclass(frozen=True)
class Reproduction:
    """One entry: a range that others report of a published row's metric, and our rows of it."""

    dataset: str
    metric: str
    published_row: str
    low: float
    high: float
    verified: bool
    text: str
    rows: Mapping[str, Row]  # by protocol, if there are runs

    def figure(self, protocol: str) -> Figure:
        row = self.rows.get(protocol)
        return row.figures[self.dataset][self.metric] if row else Figure()


def reproductions(tables: Sequence[PaperTable], published: Mapping[str, Any]) -> list[Reproduction]:
    """The entries of published.yaml with the rows that measure the same.

    Raises:
        InputError: an entry lacks a field, or names what no table shows.
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
    for one in entries:
        texts = [
            f"{inputs.names[one.dataset]}, {inputs.declared['metrics'][one.metric]['heading']}",
            number(one.figure("paper").published),
            f"{one.low:.1f}–{one.high:.1f}",
        ]
        for protocol in ("paper", "sound"):
            figure = one.figure(protocol)
            known = figure.inference
            texts.append(number(figure.measured, figure.std))
            texts.append(bracketed(known.low, known.high) if known else DASH)
        lines.append(Line(plain(texts)))
    results = inputs.of(
        name
        for one in entries
        for row in one.rows.values()
        for name in row.runs.get(one.dataset, [])
    )
    doubtful = [one for one in entries if not one.verified]
    notes = ["Figures are percentages. 95% intervals: bootstrap over the test images or cases."]
    if doubtful:
        said = dict.fromkeys(one.text for one in doubtful)
        notes.append(
            f"Others' figures are unverified ({'; '.join(said)}): ranges without a source that we "
            "could check, given for orientation alone."
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
        head=("Dataset, metric", "publ.", "others", *(("meas.", "95% interval") * 2)),
        blocks=(Block("", tuple(lines)),),
        spans=((Span("Paper protocol", 4, 5), Span("Sound protocol", 6, 7)),),
        source="reports/published.yaml",
    )


def reproductions_data(entries: Sequence[Reproduction]) -> Tidy:
    """Tidy: a line for each entry; percent, rounded to 6 decimals."""
    records = []
    for one in entries:
        record: dict[str, Any] = {
            "dataset": one.dataset,
            "metric": one.metric,
            "published_row": one.published_row,
            "published": one.figure("paper").published,
            "others_low": one.low,
            "others_high": one.high,
            "verified": one.verified,
            "text": one.text,
        }
        for protocol in ("paper", "sound"):
            figure = one.figure(protocol)
            known = figure.inference
            record |= {
                f"{protocol}_measured": figure.measured,
                f"{protocol}_std": figure.std,
                f"{protocol}_low": known.low if known else None,
                f"{protocol}_high": known.high if known else None,
            }
        records.append(record)
    return tidy(records)
