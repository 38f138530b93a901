"""Figures of scores and losses: training curves, Dice by cell, calibration, Dice by lesion size."""

from collections.abc import Iterator, Sequence

import numpy as np

from reports.make.figures.runs import Drawn, Runs, Variant, floats
from reports.make.files import read_json, trusted
from reports.make.results.metrics import SCORES, Result, VolumeResult, score_again
from reports.make.typeset.words import count
from vmunet.drawing.figures import calibration, curves, distributions, sizes

DICE = "native_size_dice"  # at the masks' own size, as in the table of honest scores


def training_curves(runs: Runs) -> Iterator[Drawn]:
    """Losses by epoch of the compared runs of every view."""
    panels, results = [], []
    looks: dict[Variant, int] = {}
    for view in runs.views:
        view_curves = []
        for variant in runs.compared(view):
            place = looks.setdefault(variant, len(looks))
            for result in runs.of(view, variant):
                view_curves.append(_curve(runs, result, runs.label(variant), place))
                results.append(result)
        panels.append((runs.title(view), view_curves))
    if not panels:
        return
    alone = any(curve.selection is None for _, view_curves in panels for curve in view_curves)
    yield Drawn(
        "training-curves",
        "Training curves",
        "Losses by epoch: thin the training loss, thick the loss that selected the epoch (under "
        "the paper's protocol the test images', which no honest selection may use; under the sound "
        f"one held-out training images' or cases').{_ALONE if alone else ''} The mark is the "
        f"selected epoch, whose weights are scored.{runs.several_seeds('A line for each of')} "
        f"{runs.source(results)}",
        f"{count(len(panels), 'panel')} with losses by epoch. Selected epochs: "
        + "; ".join(
            f"{title}, {curve.label} {curve.epoch} of {len(curve.train)}"
            for title, view_curves in panels
            for curve in view_curves
        )
        + ".",
        results,
        curves.draw(panels, runs.warning(results)),
    )


_ALONE = (
    " Where the training loss itself selects (volumes under the paper's protocol), it alone is "
    "drawn."
)


def _curve(runs: Runs, result: Result, label: str, place: int) -> curves.Curve:
    again = score_again(result.run)
    content = read_json(runs.root, result.path, SCORES, again)
    with trusted(result.path, SCORES, again):
        train, selection = (
            np.array(content["history"][name], dtype=np.float64).tolist()  # null becomes nan
            for name in ("train_loss", "selection_loss")
        )
        epoch = result.checkpoint["epoch"]
    # The training loss selects: over samples in one column, over batches in the other or in none.
    alone = bool(np.isnan(selection).all()) or selection == train
    alone |= isinstance(result, VolumeResult) and result.run.protocol == "paper"
    return curves.Curve(label, place, train, None if alone else selection, epoch)


def dice_distributions(runs: Runs) -> Iterator[Drawn]:
    """Per-image Dice of every run, a panel for each dataset."""
    panels, results, images = [], [], []
    for dataset, name in runs.names.items():
        views = [
            view
            for view in runs.views
            if view not in runs.params.grid.volumes and runs.params.view(view).dataset == dataset
        ]
        main = [view for view in views if view in runs.image_views]
        rows = []
        for view in views:
            for variant in runs.variants(view):
                variant_results = runs.of(view, variant)
                dice = floats(runs.mean_dice(variant_results, DICE))
                label = runs.cell(variant[0])
                if view not in main or len(main) > 1:
                    label += f", {runs.params.view(view).size} px"
                sound = variant[1] == "sound"
                label += ", sound" if sound else ""
                rows.append(distributions.Row(label, sound, dice))
                results += variant_results
        if rows:
            images.append(len(rows[0].dice))
            panels.append((f"{name}, {count(images[-1], 'test image')}", rows))
    if not panels:
        return
    tops = [distributions.by_median(rows)[0] for _, rows in panels]
    yield Drawn(
        "dice-distributions",
        "Dice of every test image",
        "Per-image Dice at the masks' own size, sorted by the median: a dot for each test image, "
        "a box from quartile to quartile with the median and whiskers to the furthest image within "
        "1.5 times its length, a diamond and the number at the right for the mean. Squares are "
        f"runs of the sound protocol.{runs.several_seeds('An image counts with its mean over')} "
        f"{runs.source(results)}",
        "; ".join(
            f"{title}: {len(rows)} rows, the highest median is {np.nanmedian(top.dice):.3f} "
            f"({top.label})"
            for (title, rows), top in zip(panels, tops, strict=True)
        )
        + ".",
        results,
        distributions.draw(panels, runs.warning(results)),
    )


def reliability(runs: Runs) -> Iterator[Drawn]:
    """Reliability diagrams of the compared runs of each view."""
    panels, results = [], []
    looks: dict[Variant, int] = {}
    for view in runs.image_views:
        view_bins = []
        for variant in runs.compared(view):
            of_variant = runs.of(view, variant)
            place = looks.setdefault(variant, len(looks))
            view_bins.append(_pooled(runs, of_variant, runs.label(variant), place))
            results += of_variant
        panels.append((runs.title(view), view_bins))
    if not panels:
        return
    errors = [(title, run.label, run.error) for title, view_bins in panels for run in view_bins]
    yield Drawn(
        "calibration",
        "Calibration",
        "The part of the pixels that are lesion against the probability given to them, in bins of "
        f"{_width(panels[0][1][0])} of probability, at the training size; the gray line is perfect "
        "calibration. Below, the pixels in each bin. ECE: the mean over all pixels of the distance "
        f"from that line.{runs.several_seeds('Pixels are pooled over')} {runs.source(results)}",
        "Reliability diagrams with expected calibration errors: "
        + "; ".join(f"{title}, {label} {error:.3f}" for title, label, error in errors)
        + ".",
        results,
        calibration.draw(panels, runs.warning(results)),
    )


def _width(run: calibration.Reliability) -> str:
    return f"{run.edges[1] - run.edges[0]:.3g}"


def _pooled(
    runs: Runs, results: Sequence[Result], label: str, place: int
) -> calibration.Reliability:
    """The bins of one run, or of several seeds taken together."""
    read = [_bins(runs, result) for result in results]
    edges = read[0][0]
    pixels = np.sum([one[1] for one in read], axis=0)
    sums = [np.nansum([one[1] * one[k] for one in read], axis=0) for k in (2, 3)]
    empty = np.full(len(pixels), np.nan)
    means = [np.divide(total, pixels, out=empty.copy(), where=pixels > 0) for total in sums]
    return calibration.Reliability(label, place, edges, pixels, means[0], means[1])


def _bins(runs: Runs, result: Result) -> tuple[np.ndarray, ...]:
    """Edges, pixels, probability and lesion of a run's bins; nan if a bin is empty."""
    again = score_again(result.run)
    content = read_json(runs.root, result.path, SCORES, again)
    with trusted(result.path, SCORES, again):
        low, high, pixels, probability, lesion = (
            np.array(content["sound"]["calibration"][name], dtype=np.float64)
            for name in ("low", "high", "pixels", "probability", "lesion")
        )
    return np.append(low, high[-1]), pixels, probability, lesion


def by_size(runs: Runs) -> Iterator[Drawn]:
    """Dice against the lesion's size, of each view's main run."""
    panels, results, without = [], [], 0
    for view in runs.image_views:
        main_results = runs.of(view, runs.compared(view)[0])
        dice = floats(runs.mean_dice(main_results, DICE))
        names = [f"native_size_{kind}" for kind in ("tp", "fp", "fn", "tn")]
        counts = runs.table(main_results[0], "per_image.csv", names).to_numpy(dtype=np.float64)
        size = (counts[:, 0] + counts[:, 2]) / counts.sum(axis=1)
        with_lesion = (size > 0) & ~np.isnan(dice)
        without += int((~with_lesion).sum())
        if with_lesion.any():
            title = f"{runs.title(view)}, {count(int(with_lesion.sum()), 'image')}"
            panels.append((title, size[with_lesion], dice[with_lesion]))
            results += main_results
    if not panels:
        return
    binned = [sizes.binned(size, dice) for _, size, dice in panels]
    classes = [len(medians) for medians in binned]
    left_out = f" {count(without, 'image')} without a lesion left out." if without else ""
    yield Drawn(
        "size",
        "Dice by lesion size",
        "Per-image Dice at the masks' own size against the lesion's share of the image, for "
        f"{', '.join(dict.fromkeys(runs.label((r.run.cell, r.run.protocol)) for r in results))} "
        "protocol. Squares: medians of classes with equally many images "
        f"({' and '.join(map(str, dict.fromkeys(classes)))} classes), with 95% bootstrap "
        f"intervals if a class has {sizes.FEW} images; the line through a square spans its class."
        f"{left_out}{runs.several_seeds('An image counts with its mean over')} "
        f"{runs.source(results)}",
        "; ".join(
            f"{title}: the median Dice goes from {medians[0, 3]:.3f} in the smallest class of "
            f"lesions to {medians[-1, 3]:.3f} in the largest"
            for (title, _, _), medians in zip(panels, binned, strict=True)
        )
        + ".",
        results,
        sizes.draw(panels, runs.warning(results)),
    )
