"""Figures of test images: examples chosen by rule, and failures with their measurements."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from reports.make.figures.runs import Drawn, Runs, Variant, floats
from reports.make.files import trusted
from reports.make.results.metrics import SCORES, Result, score_again
from vmunet.drawing.figures import failures, pictures
from vmunet.drawing.figures import models as drawn_models
from vmunet.errors import InputError
from vmunet.evaluation.images import TestImages, load_test_images
from vmunet.evaluation.stored import NAME, StoredMasks, read_masks
from vmunet.measure.image_facts import SIDE, ImageFacts, measure

COLUMNS = 3  # runs next to each other


def qualitative(runs: Runs) -> Iterator[Drawn]:
    """The best, median and worst images of each view, as several runs see them."""
    counts = runs.settings["qualitative"]
    for view in runs.image_views:
        compared_runs = [
            (variant, runs.of(view, variant)[0]) for variant in runs.compared(view)[:COLUMNS]
        ]
        main = compared_runs[0][1]
        test, masks = _test_images(runs, main), _masks(runs, main)
        ids = masks.ids
        predictions = [_prediction(runs, variant, result, ids) for variant, result in compared_runs]
        groups = pictures.choose(predictions[0].dice, ids, counts)
        results = [result for _, result in compared_runs]
        figure = pictures.draw(
            test.images, masks.truth, ids, predictions, groups, runs.warning(results)
        )
        numbers = {name: len(members) for name, members in groups.items()}
        ends = [predictions[0].dice[i] for members in groups.values() for i in members]
        names = ", ".join(runs.label(variant, " (") + ")" for variant, _ in compared_runs)
        yield Drawn(
            f"qualitative-{view}",
            f"Segmentations: {runs.title(view)}",
            f"Test images and predictions. The rows are the {numbers['best']} best, "
            f"{numbers['median']} around the median and {numbers['worst']} worst of {len(ids)} by "
            f"the per-image Dice of {main.run.name} at the training size, ties by id. Agreement "
            "is that run's with the truth over the gray image: found (true positive), too much "
            "(false positive), missed (false negative). Cells and protocols: "
            f"{names}.{runs.first_seed()} {runs.source(results)}",
            f"Grid of {len(ends)} test images, a row each, with the true mask, the predicted masks "
            f"of {names} and a map of agreement; Dice of the first run from {max(ends):.3f} in the "
            f"top row to {min(ends):.3f} in the bottom row.",
            results,
            figure,
        )


def models(runs: Runs) -> Iterator[Drawn]:
    """A few images of each view, as every model sees them."""
    for view in runs.image_views:
        variants = runs.models(view)
        if not variants:
            continue
        results = [runs.of(view, variant)[0] for variant in variants]
        test, masks = _test_images(runs, results[0]), _masks(runs, results[0])
        ids = masks.ids
        predictions = [
            replace(_prediction(runs, variant, result, ids), label=runs.cell(variant[0]))
            for variant, result in zip(variants, results, strict=True)
        ]
        groups = pictures.choose(predictions[0].dice, ids, runs.settings["models"])
        members = [i for group in groups.values() for i in group]
        names = [one.label for one in predictions]
        won = [names[_best([float(one.dice[i]) for one in predictions])] for i in members]
        yield Drawn(
            f"models-{view}",
            f"Every model: {runs.title(view)}",
            f"The same test images as every model under the {variants[0][1]} protocol sees them: "
            f"found (true positive), too much (false positive), missed (false negative). Chosen by "
            f"rule among {len(ids)} images: best, around the median, worst by the per-image Dice "
            f"of {results[0].run.name} at the training size, ties by id. Below a picture the "
            f"model and its Dice, the best of an image in bold.{runs.first_seed()} "
            f"{runs.source(results)}",
            f"Grid of {len(members)} test images, a row each, with a map of agreement for each of "
            f"{', '.join(names)}. The best Dice of the rows, from above: {', '.join(won)}.",
            results,
            drawn_models.draw_images(
                test.images, masks.truth, ids, predictions, groups, runs.warning(results)
            ),
        )


def _best(scores: list[float]) -> int:
    return int(np.argmax(np.nan_to_num(scores, nan=-1.0)))


def lowest(runs: Runs) -> Iterator[Drawn]:
    """The images with the lowest Dice of each view's main run."""
    shown = runs.settings["failures"]["images"]
    for view in runs.image_views:
        result = runs.of(view, runs.compared(view)[0])[0]
        test, masks = _test_images(runs, result), _masks(runs, result)
        dice = _dice(runs, result, masks.ids)
        facts = [measure(*pair) for pair in zip(test.images, masks.truth, strict=True)]
        pale = [f.contrast is not None and f.contrast < runs.limits["contrast"] for f in facts]
        hairy = [f.hair > runs.limits["hair"] for f in facts]
        members = pictures.lowest(dice, masks.ids, shown)
        worst_cases = [
            failures.Failure(
                masks.ids[i],
                test.images[i],
                masks.truth[i],
                masks.masks[i],
                float(dice[i]),
                facts[i],
                pale[i],
                hairy[i],
            )
            for i in members
        ]
        yield Drawn(
            f"failures-{view}",
            f"Failures: {runs.title(view)}",
            _failures_caption(runs, result, facts, members, pale, hairy),
            f"The {len(members)} test images with the lowest Dice ({dice[members[0]]:.3f} to "
            f"{dice[members[-1]]:.3f}), each with the dark lines found on it, a map of agreement "
            f"and its size, contrast and cover; {sum(pale[i] for i in members)} are called pale "
            f"and {sum(hairy[i] for i in members)} hairy.",
            [result],
            failures.draw(worst_cases, runs.warning([result])),
        )


def _failures_caption(
    runs: Runs,
    result: Result,
    facts: list[ImageFacts],
    members: list[int],
    pale: list[bool],
    hairy: list[bool],
) -> str:
    limits = runs.limits
    few, total = len(members), len(facts)
    pale_few, hairy_few = (sum(named[i] for i in members) for named in (pale, hairy))
    return (
        f"The {few} of {total} test images with the lowest per-image Dice of {result.run.name} at "
        "the training size, from the lowest up, ties by id. Size: the lesion's share of the image. "
        "Contrast: the distance in CIELAB between the mean colours of the lesion and of a ring of "
        "skin around it, dark lines and black surroundings left out. Lines: the share of the image "
        "under thin, long, dark lines, which are hair, but also rulers, ink and pigment networks. "
        f"Both are measured on the normalised image at {SIDE}×{SIDE}. Pale is a contrast below "
        f"{limits['contrast']:g}: {pale_few} of these {few}, {sum(pale)} of all {total}. Hair is a "
        f"cover above {100 * limits['hair']:g}%: {hairy_few} of these {few}, {sum(hairy)} of all "
        f"{total}.{runs.first_seed()} {runs.source([result])}"
    )


def _test_images(runs: Runs, result: Result) -> TestImages:
    arrays = runs.root / "data/arrays" / result.run.view / result.run.protocol
    test = load_test_images(arrays)
    _masks(runs, result, test.ids)
    return test


def _masks(runs: Runs, result: Result, ids: list[str] | None = None) -> StoredMasks:
    """The run's predictions; they must be of these images, in this order."""
    masks = read_masks(runs.folder(result) / NAME)
    if ids is not None and masks.ids != ids:
        raise InputError(
            f"{runs.folder(result) / NAME}: other images than in the arrays and the other runs of "
            f"{result.run.view}; {score_again(result.run)}"
        )
    return masks


def _dice(runs: Runs, result: Result, ids: list[str]) -> np.ndarray:
    """Per-image Dice at the training size, in the order of the ids."""
    series = runs.mean_dice([result], "training_size_dice")
    with trusted(runs.folder(result) / "per_image.csv", SCORES, score_again(result.run)):
        return floats(series.loc[ids])


def _prediction(
    runs: Runs, variant: Variant, result: Result, ids: list[str]
) -> pictures.Prediction:
    masks = _masks(runs, result, ids)
    label = f"{runs.label(variant, chr(10) + '(')})"
    return pictures.Prediction(label, masks.masks, _dice(runs, result, ids))
