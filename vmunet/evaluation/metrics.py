"""Scores of binary segmentation, all computed from one table of confusion counts per image.

Two conventions are computed (paper, section IV-C, and the published code):

pooled: one confusion matrix over all pixels of all images. `miou` is the foreground's IoU alone,
    so dsc = 2 miou / (1 + miou). A score whose denominator is 0 is 0.
per image: a score for each image, then the mean over images. If the truth and the prediction are
    both empty, Dice and IoU are 1; if only one of them is, they are 0. Sensitivity without a
    lesion pixel, and specificity without a background pixel, are undefined (nan) and left out of
    their means.

A pixel is foreground if its probability, or its resized truth, is >= 0.5.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from vmunet.errors import InputError

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

THRESHOLD = 0.5
COUNTS = ("tp", "fp", "fn", "tn")
POOLED = ("miou", "dsc", "acc", "spe", "sen")
PER_IMAGE = ("iou", "dice", "acc", "spe", "sen")
# An image whose Jaccard index (IoU) is below this scores 0 in the ISIC 2018 challenge's ranking.
CHALLENGE_JACCARD = 0.65
# The same for all runs: the intervals of two runs on the same images come from the same draws.
BOOTSTRAP_SEED = 0


def confusion_counts(prediction: npt.NDArray, truth: npt.NDArray) -> Counts:
    """Count pixels per image.

    Args:
        prediction, truth: (images, height, width); bool, or 0..1 and thresholded at >= 0.5.

    Returns:
        (images, 4) int64, the columns of `COUNTS`: tp, fp, fn, tn.

    Raises:
        InputError: the shapes differ or are not three-dimensional.
    """
    if prediction.ndim != 3 or prediction.shape != truth.shape:
        raise InputError(
            f"confusion_counts: the prediction is {prediction.shape} and the truth {truth.shape}; "
            "expected (images, height, width) for both"
        )
    images, pixels = len(prediction), prediction[:1].size
    counts = np.empty((images, 4), dtype=np.int64)
    for i in range(images):  # count_nonzero is fast for a whole image
        p, t = _foreground(prediction[i]), _foreground(truth[i])
        tp = np.count_nonzero(p & t)
        fp = np.count_nonzero(p) - tp
        fn = np.count_nonzero(t) - tp
        counts[i] = tp, fp, fn, pixels - tp - fp - fn
    return counts


def pooled_scores(counts: npt.NDArray, absent: float | None = None) -> dict[str, float]:
    """The published scores from all pixels at once.

    Args:
        counts: (images, 4) confusion counts, or (4,) already summed.
        absent: miou and dsc of a class that neither the truth nor the prediction holds, if not 0.

    Returns:
        miou (foreground IoU), dsc, acc, spe, sen, each 0..1, and 0 where undefined.
    """
    total = np.atleast_2d(counts).sum(0, dtype=np.float64)
    return {name: float(value) for name, value in scores_of_sums(total, absent).items()}


def per_image_scores(counts: npt.NDArray, absent: float | None = None) -> dict[str, Floats]:
    """Scores of each image.

    Args:
        counts: (images, 4) confusion counts.
        absent: iou and dice of an image if neither its truth nor its prediction holds the class,
            if not 1; nan leaves such images out of the means.

    Returns:
        iou, dice, acc, spe, sen, each (images,) in 0..1, with the module's convention for empty
        truth and empty prediction: spe and sen may be nan.
    """
    tp, fp, fn, tn = np.moveaxis(counts.astype(np.float64), -1, 0)
    both_empty = 1.0 if absent is None else absent
    return {
        "iou": ratio(tp, tp + fp + fn, undefined=both_empty),
        "dice": ratio(2 * tp, 2 * tp + fp + fn, undefined=both_empty),
        "acc": ratio(tp + tn, tp + fp + fn + tn, undefined=np.nan),
        "spe": ratio(tn, tn + fp, undefined=np.nan),
        "sen": ratio(tp, tp + fn, undefined=np.nan),
    }


def thresholded_jaccard(iou: npt.NDArray) -> Floats:
    """Each image's IoU (images,), 0 if it is below 0.65 (ISIC 2018 challenge, Task 1)."""
    return np.where(iou < CHALLENGE_JACCARD, 0.0, iou)


def mean_scores(counts: npt.NDArray, absent: float | None = None) -> dict[str, float]:
    """Means over images of every per-image score, and of the thresholded Jaccard.

    Args:
        counts: (images, 4) confusion counts.
        absent: see `per_image_scores`.

    Returns:
        mean_iou, mean_dice, mean_acc, mean_spe, mean_sen, thresholded_jaccard: 0..1, or nan if
        no image defines the score.
    """
    weights = np.ones((1, len(counts)))
    means = _weighted_means(counts, weights, absent)
    return {name: float(value[0]) for name, value in means.items()}


def interval(values: Floats, level: float = 0.95) -> tuple[float, float]:
    """The percentile interval (low, high) of resampled scores; nan if all are nan."""
    tail = (1.0 - level) / 2.0
    values = values[~np.isnan(values)]
    low, high = np.quantile(values, [tail, 1.0 - tail]) if values.size else (np.nan, np.nan)
    return float(low), float(high)


def scores_of_weights(
    counts: npt.NDArray, weights: npt.NDArray[np.float64], absent: float | None = None
) -> dict[str, Floats]:
    """Every score of resamples, (resamples,), by how often each image is drawn.

    Args:
        counts: (images, 4) confusion counts.
        weights: (resamples, images), of `resampling_weights`.
        absent: see `pooled_scores` and `per_image_scores`.
    """
    total = weights @ counts.astype(np.float64)  # (resamples, 4), exact below 2**53
    return {**scores_of_sums(total, absent), **_weighted_means(counts, weights, absent)}


def resampling_weights(units: int, resamples: int) -> Iterator[npt.NDArray[np.float64]]:
    """How often each unit (image or case) is drawn, in chunks of at most 1000 resamples.

    Yields:
        (resamples, units), each row summing to `units`.

    Raises:
        InputError: no units, or fewer than one resample.
    """
    if units == 0 or resamples < 1:
        raise InputError(
            f"bootstrap: {units} images and {resamples} resamples; expected at least one of each"
        )
    generator = np.random.default_rng(BOOTSTRAP_SEED)
    for start in range(0, resamples, 1000):  # limits the memory; the draws depend on it
        yield _draw(generator, min(1000, resamples - start), units)


def averaged_scores(counts: npt.NDArray, absent: float | None = None) -> dict[str, Floats]:
    """The scores that `mean_scores` averages, by the mean's name: (images,), nan if undefined."""
    scores = per_image_scores(counts, absent)
    columns = {f"mean_{name}": scores[name] for name in PER_IMAGE}
    columns["thresholded_jaccard"] = thresholded_jaccard(scores["iou"])
    return columns


def weighted_means(values: npt.NDArray, weights: npt.NDArray) -> Floats:
    """Means of `values` (units, scores) over the units that define each score (are not nan).

    Args:
        weights: (resamples, units), how often each unit counts.

    Returns:
        (resamples, scores), nan if no unit that counts defines the score.
    """
    defined = ~np.isnan(values)
    sums = weights @ np.where(defined, values, 0.0)
    return ratio(sums, weights @ defined.astype(np.float64), undefined=np.nan)


def ratio(numerator: Floats, denominator: Floats, undefined: float) -> Floats:
    """The quotient, or `undefined` if the denominator is 0."""
    result = np.full(np.shape(denominator), undefined)
    np.divide(numerator, denominator, out=result, where=denominator != 0)
    return result


def scores_of_sums(total: Floats, absent: float | None = None) -> dict[str, Floats]:
    """The scores of `pooled_scores` from summed counts (..., 4), each (...)."""
    tp, fp, fn, tn = np.moveaxis(total, -1, 0)
    both_empty = 0.0 if absent is None else absent
    return {
        "miou": ratio(tp, tp + fp + fn, undefined=both_empty),
        "dsc": ratio(2 * tp, 2 * tp + fp + fn, undefined=both_empty),
        "acc": ratio(tp + tn, tp + fp + fn + tn, undefined=0.0),
        "spe": ratio(tn, tn + fp, undefined=0.0),
        "sen": ratio(tp, tp + fn, undefined=0.0),
    }


def _foreground(values: npt.NDArray) -> npt.NDArray[np.bool_]:
    return values if values.dtype == np.bool_ else values >= THRESHOLD


def _weighted_means(
    counts: npt.NDArray, weights: Floats, absent: float | None
) -> dict[str, Floats]:
    """Weighted means over the images that define each score; weights (resamples, images)."""
    columns = averaged_scores(counts, absent)
    means = weighted_means(np.stack(list(columns.values()), axis=1), weights)
    return dict(zip(columns, means.T, strict=True))


def _draw(generator: np.random.Generator, resamples: int, images: int) -> Floats:
    """How often each image is drawn: (resamples, images), each row summing to `images`."""
    drawn = generator.integers(images, size=(resamples, images))
    drawn += np.arange(resamples)[:, None] * images
    flat = np.bincount(drawn.ravel(), minlength=resamples * images)
    return flat.reshape(resamples, images).astype(np.float64)
