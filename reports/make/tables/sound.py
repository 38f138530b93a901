"""The honest evaluation of images: every run under the sound metrics, at both sizes."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from reports.make.results.metrics import ImageResult
from reports.make.results.scores import (
    DISTANCES,
    FRACTIONS_OF_SIZE,
    SOUND_SCORES,
    SOUND_SIZES,
    Estimate,
)
from reports.make.tables.captions import HD95, INTERVALS, T_MAX, runs_caption
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
# Further columns of one size, in percent.
OF_SIZE = {
    "training_size": (("ece", "ECE", False),),
    "native_size": (("nsd", "NSD", True),),
}
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
    "Mean IoU and mean Dice: over images, in brackets their 95% interval; 100 for an image with "
    "neither lesion nor prediction, 0 for one with only one of the two.",
    f"{INTERVALS} They say nothing of the spread between seeds.",
    "Thr. J: the ISIC 2018 challenge's thresholded Jaccard, the mean over images of the IoU with 0 "
    "for an IoU below 65.",
    T_MAX,
)


NOTES_OF_SIZE = {
    "training_size": "ECE: the expected calibration error over all pixels in 20 bins of equal "
    "width of the probability of lesion, each bin weighted by its pixels.",
    "native_size": "NSD: the part of both borders within 1% of the image's diagonal of the "
    "other, the mean over images, with its interval; 100 and 0 for empty masks as for the "
    "Dice. HD95, in px of each mask's own size, is the mean over the n images where neither truth "
    "nor prediction is empty; penal.: with the image's diagonal where one of them is. A model that "
    "predicts nothing on hard images has a better HD95 and a worse penalised one. "
    f"{HD95}",
}


def sound_sheets(inputs: Inputs) -> list[Sheet]:
    """A table for each size: a block for each view, a row for each run."""
    ordered = [result for result in inputs.ordered if isinstance(result, ImageResult)]
    sheets = []
    for size, (name, words, note) in SIZES.items():
        blocks = tuple(
            Block(title, tuple(_line(result, size) for result in results))
            for title, results in groupby(ordered, key=inputs.dataset_at_size)
        )
        notes = (NOTES[0], note, *NOTES[1:-1], NOTES_OF_SIZE[size], NOTES[-1])
        headings = [heading for _, heading, _ in COLUMNS + OF_SIZE[size]]
        headings += ["HD95, px", "n", "penal."] if size == "native_size" else []
        head = ("Cell", "Protocol", "Seed", "Paper's mIoU", *headings)
        title, row_rule = f"Honest evaluation {words}", "each with its own row"
        table_caption = runs_caption(inputs, title, notes, ordered, row_rule)
        sheets.append(Sheet(name, table_caption, head, blocks, left=2))
    return sheets


def _line(result: ImageResult, size: str) -> Line:
    run = result.run
    texts = [run.cell, run.protocol, str(run.seed), number(percent(result.scores.get("miou")))]
    scores, columns = result.sound[size], COLUMNS + OF_SIZE[size]
    texts += [estimate(scores[name], interval) for name, _, interval in columns]
    if size == "native_size":
        n = DASH if result.hd95_n is None else str(result.hd95_n)
        texts += [number(scores["hd95_px"].value), n, number(scores["hd95_penalised_px"].value)]
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
    """Tidy: a line for each run; percent and px, rounded to 6 decimals, empty if undefined."""
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
            for name in SOUND_SCORES + FRACTIONS_OF_SIZE[size]:
                score = result.sound[size][name]
                record[f"{size}_{name}"] = percent(score.value)
                if name != "ece":  # it has no interval
                    record[f"{size}_{name}_low"] = percent(score.low)
                    record[f"{size}_{name}_high"] = percent(score.high)
        record["native_size_hd95_n"] = result.hd95_n
        for name in DISTANCES:
            distance = result.sound["native_size"][name]
            record[f"native_size_{name}"] = distance.value
            record[f"native_size_{name}_low"] = distance.low
            record[f"native_size_{name}_high"] = distance.high
        records.append(record | {"metrics_file": result.path})
    return tidy(records)
