"""The paper protocol against the sound one: every cell that was run under both."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reports.make.report import Difference
from reports.make.results.metrics import ImageResult, Result, VolumeResult
from reports.make.results.scores import mean_and_std
from reports.make.tables.captions import INTERVALS, METHODS, MODELS, runs_caption
from reports.make.tables.inputs import Inputs
from reports.make.tidy import Tidy, tidy
from reports.make.typeset.sheet import Block, Line, Sheet, SheetCell, Span, plain
from reports.make.typeset.words import DASH, bracketed, number, probability, signed

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
    f"{INTERVALS} The difference's is over the same resamples of both. p, not corrected "
    "for the number of rows, is of the difference.",
    MODELS,
    f"{METHODS} The difference's interval is that of the same test.",
)


UNKNOWN = Difference(
    (None, None), (None, None), None, None, None, methods=False
)  # without statistics


@dataclass(frozen=True)
class Pair:
    """One metric of one cell on one view under both protocols, in percent."""

    metric: str
    heading: str
    paper: Sequence[Result]
    sound: Sequence[Result]
    inferred: Difference

    def mean(self, results: Sequence[Result]) -> tuple[float | None, float | None]:
        """Over the seeds: mean and sample standard deviation (None for one seed)."""
        return mean_and_std([_score(result, self.metric) for result in results])

    @property
    def difference(self) -> float | None:
        paper, sound = self.mean(self.paper)[0], self.mean(self.sound)[0]
        return None if paper is None or sound is None else sound - paper


def _score(result: Result, metric: str) -> float | None:
    if metric == "mean_dice":
        assert isinstance(result, ImageResult)
        value = result.sound["native_size"]["mean_dice"].value
        return None if value is None else 100 * value
    return 100 * result.scores[metric]


def pairs(inputs: Inputs) -> list[Pair]:
    """Every view and cell with runs under both protocols, on the seeds that both have."""
    by_place: dict[tuple[str, str], dict[str, dict[int, Result]]] = {}
    for result in inputs.ordered:
        run = result.run
        protocols = by_place.setdefault((run.view, run.cell), {"paper": {}, "sound": {}})
        protocols[run.protocol][run.seed] = result
    metric_pairs = []
    for by_protocol in by_place.values():
        seeds = [seed for seed in by_protocol["paper"] if seed in by_protocol["sound"]]
        if not seeds:
            continue
        paper, sound = ([by_protocol[p][seed] for seed in seeds] for p in ("paper", "sound"))
        volumes = isinstance(paper[0], VolumeResult)
        for metric, heading in (VOLUME_METRICS if volumes else IMAGE_METRICS).items():
            inferred = UNKNOWN
            if inputs.statistics:
                inferred = inputs.statistics.difference(paper, sound, metric)
            metric_pairs.append(Pair(metric, heading, paper, sound, inferred))
    return metric_pairs


def protocols_sheet(inputs: Inputs, rows: Sequence[Pair]) -> Sheet:
    blocks: dict[str, list[Line]] = {}
    for pair in rows:
        first_result, inferred = pair.paper[0], pair.inferred
        texts = (
            pair.heading,
            number(*pair.mean(pair.paper)),
            bracketed(*inferred.first),
            number(*pair.mean(pair.sound)),
            bracketed(*inferred.second),
            signed(pair.difference),
            bracketed(inferred.low, inferred.high, sign=True),
        )
        p = SheetCell(probability(inferred.p), star=inferred.significant)
        of = "methods" if inferred.methods else "models"
        cells = (*plain(texts), p, SheetCell(DASH if inferred.p is None else of))
        title = f"{inputs.dataset_at_size(first_result)}: {first_result.run.cell}"
        blocks.setdefault(title, []).append(Line(cells))
    results = [result for pair in rows for result in (*pair.paper, *pair.sound)]
    return Sheet(
        name="protocols",
        caption=runs_caption(inputs, "Paper protocol against sound protocol", NOTES, results),
        head=("Metric", *(("Figure", "95% interval") * 3), "p", "of"),
        blocks=tuple(Block(title, tuple(lines), whole=True) for title, lines in blocks.items()),
        spans=(
            (
                Span("Paper protocol", 2, 3),
                Span("Sound protocol", 4, 5),
                Span("Sound minus paper", 6, 9),
            ),
        ),
    )


def protocols_data(rows: Sequence[Pair]) -> Tidy:
    """Tidy: a line for each view, cell and metric; percent, rounded to 6 decimals."""
    records = []
    for pair in rows:
        run, inferred = pair.paper[0].run, pair.inferred
        record: dict[str, Any] = {"view": run.view, "cell": run.cell, "metric": pair.metric}
        for protocol, results, (low, high) in (
            ("paper", pair.paper, inferred.first),
            ("sound", pair.sound, inferred.second),
        ):
            record[protocol], record[f"{protocol}_std"] = pair.mean(results)
            record |= {f"{protocol}_low": low, f"{protocol}_high": high}
        record |= {
            "difference": pair.difference,
            "difference_low": inferred.low,
            "difference_high": inferred.high,
            "p": inferred.p,
            "p_of": None if inferred.p is None else "methods" if inferred.methods else "models",
            "seeds": " ".join(str(result.run.seed) for result in pair.paper),
            "metrics_files": ";".join(result.path for result in (*pair.paper, *pair.sound)),
        }
        records.append(record)
    return tidy(records)
