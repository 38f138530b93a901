"""The honest evaluation of images: every run under the sound metrics, at both sizes."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from reports.make.results.metrics import ImageResult
from reports.make.results.scores import SOUND_SCORES, SOUND_SIZES, Estimate
from reports.make.tables.captions import T_MAX, runs_caption
from reports.make.tables.inputs import Inputs
from reports.make.tidy import Tidy, tidy
from reports.make.typeset.sheet import Block, Line, Sheet, plain
from reports.make.typeset.words import DASH, bracketed, number, percent

# The columns: the score, its heading, and whether its interval is printed.
COLUMNS = (
    ("miou", "Pooled mIoU", False),
    ("mean_iou", "Mean IoU", True),
    ("mean_dice", "Mean Dice", True),
    ("thresholded_jaccard", "Thr. J", False),
)
# Each size has its own table: the file, and the size's name in the title and in the notes.
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


def sound_sheets(inputs: Inputs) -> list[Sheet]:
    """A table for each size: a block for each view, a row for each run."""
    ordered = [result for result in inputs.ordered if isinstance(result, ImageResult)]
    head = ("Cell", "Protocol", "Seed", "Paper's mIoU", *(heading for _, heading, _ in COLUMNS))
    sheets = []
    for size, (name, words, note) in SIZES.items():
        blocks = tuple(
            Block(title, tuple(_line(result, size) for result in results))
            for title, results in groupby(ordered, key=inputs.dataset_at_size)
        )
        notes = (NOTES[0], note, *NOTES[1:])
        title, row_rule = f"Honest evaluation {words}", "each with its own row"
        table_caption = runs_caption(inputs, title, notes, ordered, row_rule)
        sheets.append(Sheet(name, table_caption, head, blocks, left=2))
    return sheets


def _line(result: ImageResult, size: str) -> Line:
    run = result.run
    texts = [run.cell, run.protocol, str(run.seed), number(percent(result.scores.get("miou")))]
    texts += [estimate(result.sound[size][name], interval) for name, _, interval in COLUMNS]
    return Line(plain(texts))


def estimate(score: Estimate, interval: bool) -> str:
    """A score in percent, with its interval if `interval` is true and the interval exists."""
    if score.value is None:
        return DASH
    text = number(100 * score.value)
    if not interval:
        return text
    if score.low is None or score.high is None:
        return f"{text} [{DASH}]"
    return f"{text} {bracketed(100 * score.low, 100 * score.high)}"


def sound_data(results: Sequence[ImageResult]) -> Tidy:
    """Tidy: a line for each run; percentages rounded to 6 decimals, empty if undefined."""
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
    return tidy(records)
