"""The honest evaluation of images: every run under the sound metrics, at both sizes."""

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import pandas as pd

from reports.make.results.metrics import ImageResult, Result
from reports.make.results.scores import SOUND_SCORES, SOUND_SIZES, Estimate
from reports.make.results.views import DASH
from reports.make.tables.captions import T_MAX, runs_caption
from reports.make.typeset.sheet import Block, Line, Sheet, bracketed, number, percent, plain

if TYPE_CHECKING:
    from pipeline.config.params import Params

# The columns: the score, its heading, with its interval or not.
COLUMNS = (
    ("miou", "Pooled mIoU", False),
    ("mean_iou", "Mean IoU", True),
    ("mean_dice", "Mean Dice", True),
    ("thresholded_jaccard", "Thr. J", False),
)
# Each size has a table of its own: its file, and how its title and its notes name it.
SIZES = {
    "training_size": (
        "sound",
        "at the training size",
        "Pooled mIoU: likewise, against masks resized to the nearest pixel.",
    ),
    "native_size": (
        "sound-native",
        "at the masks' own size",
        "Pooled mIoU: likewise, against the masks as they are stored, to whose sizes the "
        "probabilities are resized.",
    ),
}
NOTES = (
    "Scores are percentages of the test images. Paper's mIoU: the lesion's IoU of one confusion "
    "matrix over all pixels, at the training size against bilinearly resized masks, as published.",
    "Mean IoU and mean Dice: over images, in brackets their 95% bootstrap interval over the test "
    "images, which says nothing of the spread between seeds; 100 for an image with neither lesion "
    "nor prediction, 0 for one with only one of the two.",
    "Thr. J: the ISIC 2018 challenge's thresholded Jaccard, the mean over images of the IoU with 0 "
    "for an IoU below 65.",
    T_MAX,
)


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


def sound_sheets(
    params: "Params",
    declared: Mapping[str, Any],
    published: Mapping[str, Any],
    results: Sequence[ImageResult],
) -> list[Sheet]:
    """A table for each size: a block for each view, a row for each run."""
    ordered = sorted(results, key=run_order(params, declared))
    head = ("Cell", "Protocol", "Seed", "Paper's mIoU", *(heading for _, heading, _ in COLUMNS))
    sheets = []
    for size, (name, words, note) in SIZES.items():
        blocks = tuple(
            Block(
                f"{declared['datasets'][dataset]} at {side}×{side}",
                tuple(_line(result, size) for result in found),
            )
            for (dataset, side), found in groupby(ordered, key=lambda r: (r.dataset, r.size))
        )
        notes = (NOTES[0], note, *NOTES[1:])
        title, own = f"Honest evaluation {words}", "each with its own row"
        made = runs_caption(title, notes, ordered, params, declared, published, own)
        sheets.append(Sheet(name, made, head, blocks, left=2))
    return sheets


def _line(result: ImageResult, size: str) -> Line:
    run = result.run
    texts = [run.cell, run.protocol, str(run.seed), number(percent(result.scores.get("miou")))]
    texts += [estimate(result.sound[size][name], interval) for name, _, interval in COLUMNS]
    return Line(plain(texts))


def estimate(score: Estimate, interval: bool) -> str:
    """A score in percent, with its interval where asked and where there is one."""
    if score.value is None:
        return DASH
    text = number(100 * score.value)
    if not interval:
        return text
    if score.low is None or score.high is None:
        return f"{text} [{DASH}]"
    return f"{text} {bracketed(100 * score.low, 100 * score.high)}"


def sound_frame(results: Sequence[ImageResult]) -> pd.DataFrame:
    """Tidy: a line for each run; percentages rounded to 6 decimals, empty where undefined."""
    records = []
    for result in results:
        run = result.run
        record: dict[str, Any] = {
            "run": run.name,
            "dataset": result.dataset,
            "size": result.size,
            "cell": run.cell,
            "protocol": run.protocol,
            "seed": run.seed,
            "paper_miou": percent(result.scores.get("miou")),
        }
        for size in SOUND_SIZES:
            for name in SOUND_SCORES:
                score = result.sound[size][name]
                record[f"{size}_{name}"] = percent(score.value)
                record[f"{size}_{name}_low"] = percent(score.low)
                record[f"{size}_{name}_high"] = percent(score.high)
        records.append(record | {"metrics_file": result.path})
    return pd.DataFrame(records).round(6)
