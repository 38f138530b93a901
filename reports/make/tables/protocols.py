"""The paper protocol against the sound one: every cell that was run under both."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

import pandas as pd

from reports.make.results.metrics import ImageResult, Result, VolumeResult
from reports.make.results.statistics import LEVEL, Statistics
from reports.make.results.units import MEAN
from reports.make.tables.captions import runs_caption
from reports.make.tables.sound import run_order
from reports.make.typeset.sheet import (
    Block,
    Cell,
    Line,
    Sheet,
    Span,
    bracketed,
    number,
    plain,
    probability,
    signed,
)

if TYPE_CHECKING:
    from pipeline.config.params import Params

IMAGE_METRICS = {
    "miou": "Pooled mIoU, training size",
    "dsc": "Pooled DSC, training size",
    "mean_dice": "Mean Dice, masks' own size",
}
VOLUME_METRICS = {"dsc": "DSC, paper's convention"}
NOTES = (
    "Figures are percentages; pooled mIoU and DSC are the lesion's, of one confusion matrix over "
    "all test pixels as the published code computes them; mean Dice is a mean over the images.",
    "Both protocols are scored on the same test images (cases) with the same metrics. They differ "
    "in how a model is trained and chosen: on images the paper protocol chooses the epoch by its "
    "loss on the test images themselves, the sound one on a held-out tenth of the training images; "
    "on volumes by the training loss, or on a held-out sixth of the training cases. So a paper "
    "protocol's figure on images is one of selection on the test set.",
    "Intervals: 95% bootstrap over the test images or cases, the difference's over the same "
    "resamples of both; p: paired permutation test of the difference. They say nothing of the "
    "randomness of training. A star: p < 0.05, not corrected for the number of rows.",
)


Bounds = tuple[float | None, float | None]


@dataclass(frozen=True)
class Difference:
    """A figure of two models on the same test images or cases, in percent; None where undefined.

    Attributes:
        first, second: each model's own 95% interval.
        low, high: that of the second's figure minus the first's.
        p: two-sided, of the paired permutation test.
    """

    first: Bounds
    second: Bounds
    low: float | None
    high: float | None
    p: float | None


# (runs of one model, runs of the other, metric): one for each seed
Paired = Callable[[Sequence[Result], Sequence[Result], str], Difference]


def paired_by(statistics: Statistics) -> Paired:
    """The comparison from the files beside the runs' metrics."""

    def compare(first: Sequence[Result], second: Sequence[Result], metric: str) -> Difference:
        if isinstance(first[0], VolumeResult):
            score, comparison = MEAN, "paper_dice"
        else:
            score, comparison = metric, "native_size" if metric == "mean_dice" else "paper"
        found = statistics.paired(first, second, score, comparison)
        one, other = (statistics.interval(of, score, comparison) for of in (first, second))
        return Difference(
            first=(_percent(one[0]), _percent(one[1])),
            second=(_percent(other[0]), _percent(other[1])),
            low=_percent(found.low),
            high=_percent(found.high),
            p=None if math.isnan(found.p) else found.p,
        )

    return compare


def _percent(value: float) -> float | None:
    return None if math.isnan(value) else 100 * value


@dataclass(frozen=True)
class Pair:
    """One metric of one cell on one view under both protocols, in percent."""

    metric: str
    heading: str
    paper: Sequence[Result]
    sound: Sequence[Result]
    found: Difference | None

    def mean(self, results: Sequence[Result]) -> tuple[float | None, float | None]:
        """Over the seeds: mean and sample standard deviation (None for one seed)."""
        return mean_and_std([_score(result, self.metric) for result in results])

    @property
    def difference(self) -> float | None:
        paper, sound = self.mean(self.paper)[0], self.mean(self.sound)[0]
        return None if paper is None or sound is None else sound - paper


def mean_and_std(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    """Mean and sample standard deviation; None where a value is, the second for a single one."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None, None
    return fmean(known), stdev(known) if len(known) > 1 else None


def _score(result: Result, metric: str) -> float | None:
    if metric == "mean_dice":
        assert isinstance(result, ImageResult)
        value = result.sound["native_size"]["mean_dice"].value
        return None if value is None else 100 * value
    return 100 * result.scores[metric]


def pairs(
    params: "Params", declared: Mapping[str, Any], results: Sequence[Result], paired: Paired | None
) -> list[Pair]:
    """Every view and cell with runs under both protocols, on the seeds that both have."""
    ordered = sorted(results, key=run_order(params, declared))
    places = dict.fromkeys((result.run.view, result.run.cell) for result in ordered)
    found = []
    for view, cell in places:
        by = {
            protocol: {
                result.run.seed: result
                for result in ordered
                if (result.run.view, result.run.cell, result.run.protocol) == (view, cell, protocol)
            }
            for protocol in ("paper", "sound")
        }
        seeds = [seed for seed in by["paper"] if seed in by["sound"]]
        if not seeds:
            continue
        paper, sound = ([by[p][seed] for seed in seeds] for p in ("paper", "sound"))
        volumes = isinstance(paper[0], VolumeResult)
        for metric, heading in (VOLUME_METRICS if volumes else IMAGE_METRICS).items():
            difference = paired(paper, sound, metric) if paired else None
            found.append(Pair(metric, heading, paper, sound, difference))
    return found


def protocols_sheet(
    params: "Params",
    declared: Mapping[str, Any],
    published: Mapping[str, Any],
    found: Sequence[Pair],
) -> Sheet:
    blocks: dict[str, list[Line]] = {}
    for pair in found:
        one, known = pair.paper[0], pair.found
        title = f"{declared['datasets'][one.dataset]} at {one.size}×{one.size}: {one.run.cell}"
        texts = (
            pair.heading,
            number(*pair.mean(pair.paper)),
            bracketed(*known.first) if known else bracketed(None, None),
            number(*pair.mean(pair.sound)),
            bracketed(*known.second) if known else bracketed(None, None),
            signed(pair.difference),
            bracketed(known.low, known.high, sign=True) if known else bracketed(None, None),
        )
        p = known.p if known else None
        star = p is not None and p < LEVEL
        blocks.setdefault(title, []).append(Line((*plain(texts), Cell(probability(p), star=star))))
    results = {result.path: result for pair in found for result in (*pair.paper, *pair.sound)}
    return Sheet(
        name="protocols",
        caption=runs_caption(
            "Paper protocol against sound protocol",
            NOTES,
            list(results.values()),
            params,
            declared,
            published,
        ),
        head=("Metric", *(("Figure", "95% interval") * 3), "p"),
        blocks=tuple(Block(title, tuple(lines), whole=True) for title, lines in blocks.items()),
        spans=(
            (
                Span("Paper protocol", 2, 3),
                Span("Sound protocol", 4, 5),
                Span("Sound minus paper", 6, 8),
            ),
        ),
    )


def protocols_frame(found: Sequence[Pair]) -> pd.DataFrame:
    """Tidy: a line for each view, cell and metric; percent, rounded to 6 decimals."""
    records = []
    for pair in found:
        run, known = pair.paper[0].run, pair.found
        record: dict[str, Any] = {"view": run.view, "cell": run.cell, "metric": pair.metric}
        for protocol, results in (("paper", pair.paper), ("sound", pair.sound)):
            record[protocol], record[f"{protocol}_std"] = pair.mean(results)
            low, high = (
                (known.first if protocol == "paper" else known.second) if known else (None, None)
            )
            record |= {f"{protocol}_low": low, f"{protocol}_high": high}
        record["difference"] = pair.difference
        record |= {
            f"difference_{name}": getattr(known, name) if known else None
            for name in ("low", "high")
        }
        record["p"] = known.p if known else None
        record["seeds"] = " ".join(str(result.run.seed) for result in pair.paper)
        record["metrics_files"] = ";".join(result.path for result in (*pair.paper, *pair.sound))
        records.append(record)
    return pd.DataFrame(records).round(6)
