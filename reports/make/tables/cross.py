"""Models on the other dataset's test images: cross-dataset generalisation."""

from collections.abc import Sequence
from typing import Any

from reports.make.results.cross import CrossRow
from reports.make.tables.captions import runs_caption
from reports.make.tables.inputs import Inputs
from reports.make.tidy import Tidy, tidy
from reports.make.typeset.sheet import Block, Line, Sheet, SheetCell, Span, plain
from reports.make.typeset.words import DASH, number

METRICS = {"miou": "mIoU", "dsc": "DSC", "mean_dice": "Mean Dice"}
NOTES = (
    "Both columns score the same test images: those of the test set that show no picture which "
    "the other dataset's training or selection has seen. Models trained on the dataset's own "
    "training images are scored again on these images alone, so that their figures are not those "
    "of the other tables.",
    "mIoU and DSC: the lesion's, percentages of one confusion matrix over all pixels at the "
    "training size, as published; mean Dice: over images, at the masks' own size.",
    "Under the paper protocol a model trained on the dataset itself chose its epoch by its loss on "
    "these very images, and one trained on the other did not: the sound protocol alone compares "
    "like with like.",
    "A dash: no such run.",
)


def cross_sheet(inputs: Inputs, rows: Sequence[CrossRow]) -> Sheet:
    """A block for each cross test, a row for each cell and protocol."""
    blocks: dict[str, list[Line]] = {}
    for row in rows:
        test, train = inputs.params.view(row.test), inputs.params.view(row.train)
        title = (
            f"Tested on {inputs.heading(test.dataset)} at {test.size}×{test.size}, "
            f"{row.images} images ({row.left_out} shared ones left out); "
            f"other: {inputs.heading(train.dataset)}"
        )
        cells = [
            SheetCell(number(*row.figure(trained_on, metric)) if getattr(row, trained_on) else DASH)
            for trained_on in ("same", "other")
            for metric in METRICS
        ]
        blocks.setdefault(title, []).append(Line((*plain((row.cell, row.protocol)), *cells)))
    results = [result for row in rows for result in row.results]
    width = len(METRICS)
    return Sheet(
        name="cross",
        caption=runs_caption(inputs, "Generalisation to the other dataset", NOTES, results),
        head=("Cell", "Protocol", *METRICS.values(), *METRICS.values()),
        blocks=tuple(Block(title, tuple(lines)) for title, lines in blocks.items()),
        spans=(
            (
                Span("Trained on the same dataset", 3, 2 + width),
                Span("Trained on the other dataset", 3 + width, 2 + 2 * width),
            ),
        ),
        left=2,
    )


def cross_data(rows: Sequence[CrossRow]) -> Tidy:
    """Tidy: a line for each cross test, cell and protocol; percent, rounded to 6 decimals."""
    records = []
    for row in rows:
        record: dict[str, Any] = {
            field: getattr(row, field)
            for field in ("name", "train", "test", "cell", "protocol", "images", "left_out")
        }
        for trained_on in ("same", "other"):
            for metric in METRICS:
                mean, std = row.figure(trained_on, metric)
                record |= {f"{trained_on}_{metric}": mean, f"{trained_on}_{metric}_std": std}
            record[f"{trained_on}_seeds"] = " ".join(map(str, getattr(row, trained_on)))
        records.append(record)
    return tidy(records)
