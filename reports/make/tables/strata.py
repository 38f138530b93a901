"""The main cell's scores by parts of the test images: trained on too, size, contrast, hair."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from reports.make.results.metrics import ImageResult
from reports.make.results.scores import Estimate
from reports.make.results.strata import Stratum
from reports.make.tables.captions import INTERVALS, runs_caption
from reports.make.tables.inputs import Inputs
from reports.make.tables.sound import estimate
from reports.make.tidy import Tidy, tidy
from reports.make.typeset.sheet import Block, Line, Sheet, plain
from reports.make.typeset.words import DASH, number, percent

# What divides the images, as the table prints it, and as its notes explain it.
BY = {
    "all": "All images",
    "training": "In training",
    "size": "Lesion's size",
    "contrast": "Contrast",
    "hair": "Hair",
}
NOTES = (
    "Trained on too: the run's training images show the same picture, exactly or as a copy that "
    "the data check recognises; other photographs of one lesion or patient are not recognised. "
    "Size: thirds of the test images by the lesion's share. Contrast: distance in CIELAB between "
    "lesion and skin. Hair: share of the image under thin dark lines. The limits of the last two "
    "are declared (strata in reports/tables.yaml).",
    "Paper's mIoU: pooled over the part's images, at the training size. Mean Dice with its 95% "
    "interval, mean IoU and NSD (both borders within 1% of the image's diagonal): at the masks' "
    "own size. All are percentages. Parts are described, not tested.",
    INTERVALS,
    "Hair is looked for in the images that the model gets: below 128 px most hairs are lost.",
    "No diagnosis: the archives that the pipeline reads do not hold one. A dash: no such image, or "
    "a file of an earlier version, which does not tell.",
)


@dataclass(frozen=True)
class Stratified:
    """The strata of one cell and protocol on a view; `results` has one for each seed."""

    results: Sequence[ImageResult]
    strata: Sequence[Stratum]


def stratified(inputs: Inputs) -> list[Stratified]:
    """The main cell's runs on images; nothing if the tables are made without statistics."""
    if inputs.statistics is None:
        return []
    main = [
        result
        for result in inputs.ordered
        if isinstance(result, ImageResult) and result.run.cell == inputs.params.grid.main_cell
    ]
    limits = inputs.declared["strata"]
    groups = groupby(main, key=lambda result: (result.run.view, result.run.protocol))
    each = [list(results) for _, results in groups]
    return [Stratified(of, inputs.statistics.strata(of, limits)) for of in each]


def strata_sheet(inputs: Inputs, rows: Sequence[Stratified]) -> Sheet:
    """A block for each view and protocol, a row for each part."""
    blocks = tuple(
        Block(
            f"{inputs.dataset_at_size(row.results[0])}, {row.results[0].run.protocol} protocol",
            tuple(_line(stratum) for stratum in row.strata),
        )
        for row in rows
    )
    results = [result for row in rows for result in row.results]
    head = ("By", "Part", "Images", "Paper's mIoU", "Mean IoU", "Mean Dice", "NSD")
    title = "The main cell by parts of the test images"
    return Sheet("strata", runs_caption(inputs, title, NOTES, results), head, blocks, left=2)


def _line(stratum: Stratum) -> Line:
    images = DASH if stratum.images is None else str(stratum.images)
    texts = [BY[stratum.by], stratum.part, images, number(percent(stratum.miou))]
    texts += [
        estimate(stratum.means[name], name == "mean_dice")
        for name in ("mean_iou", "mean_dice", "nsd")
    ]
    return Line(plain(texts))


def strata_data(rows: Sequence[Stratified]) -> Tidy:
    """Tidy: a line for each part; percentages, HD95 in px at the masks' own size."""
    records = []
    for row in rows:
        first = row.results[0]
        for stratum in row.strata:
            dice: Estimate = stratum.means["mean_dice"]
            records.append(
                {
                    "dataset": first.dataset,
                    "size": first.size,
                    "cell": first.run.cell,
                    "protocol": first.run.protocol,
                    "by": stratum.by,
                    "part": stratum.part,
                    "images": stratum.images,
                    "paper_miou": percent(stratum.miou),
                    "mean_iou": percent(stratum.means["mean_iou"].value),
                    "mean_dice": percent(dice.value),
                    "mean_dice_low": percent(dice.low),
                    "mean_dice_high": percent(dice.high),
                    "nsd": percent(stratum.means["nsd"].value),
                    "hd95_px": stratum.means["hd95_px"].value,
                    "seeds": " ".join(str(result.run.seed) for result in row.results),
                    "metrics_files": ";".join(result.path for result in row.results),
                }
            )
    return tidy(records)
