"""Score a trained model of several classes on a view's test images, with both sets of metrics.

Each class is scored against the rest, from the same confusion counts as a lesion's, in two
comparisons:

training size: the likeliest label of each pixel against the native mask resized to the nearest
    pixel. Pooled over all images this is the `paper` set too: labels have no soft targets.
native size: every class's probability resized bilinearly to the mask's own size, and the likeliest
    label there. Labels enlarged to the nearest pixel would carry the steps of the training grid
    into every border. `vmunet predict` writes the same labels, and for one class a threshold of
    0.5 on the resized probability does the same.

The `paper` set takes the published convention: a class that occurs in no truth and no prediction
scores 0. The `sound` set leaves out, image by image, the classes that neither truth nor prediction
holds, and counts the rest: otherwise a model that never finds a rare class would be right on every
image without it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from vmunet.classes import Labels, channels_of, likeliest, resized_planes
from vmunet.data.resize import resize_mask
from vmunet.errors import InputError
from vmunet.evaluation.images import (
    TestImages,
    defined,
    load_test_images,
    native_masks,
    patient_of,
    predict_batches,
)
from vmunet.evaluation.metrics import (
    COUNTS,
    Counts,
    Floats,
    confusion_counts,
    per_image_scores,
    pooled_scores,
)
from vmunet.evaluation.samples import ClassSample, ImageSample, Sample, mean_defined
from vmunet.evaluation.statistics import intervals
from vmunet.threads import in_threads

SIZES = ("training_size", "native_size")
POOLED = ("dsc", "miou")
MEANS = ("mean_dice", "mean_iou")


@dataclass(frozen=True)
class ScoredClasses:
    """What `score_class_run` and `score_class_batches` measured.

    Attributes:
        paper, sound: the blocks of metrics.json with these names; fractions 0..1, None if
            undefined.
        per_image: a row for each image and class: native size in px, counts and scores of both
            comparisons.
        prediction, truth: uint8 (images, size, size), labels at the training size.
        dice: (images,) mean Dice there over the classes that truth or prediction holds, 1 if
            there are none.
    """

    paper: dict[str, Any]
    sound: dict[str, Any]
    per_image: list[dict[str, Any]]
    prediction: Labels
    truth: Labels
    dice: Floats


def score_class_run(
    model: nn.Module, arrays: Path, classes: Sequence[str], *, batch_size: int, resamples: int
) -> ScoredClasses:
    """Predict the test images of an arrays folder and score each class.

    Args:
        model: gives logits (batch, classes + 1, size, size) for float32 (batch, 3, size, size) in
            0..255. It is in eval mode while it predicts.
        arrays: holds test/images.npy, test/ids.txt and test/native_masks.zip of labels.
        classes: names of the labels 1, 2, ...
        batch_size: images at a time; only their probabilities are in memory.
        resamples: bootstrap resamples behind the intervals.

    Raises:
        InputError: a file is missing or broken, a mask has a label that is not a class's, or the
            model's output is unusable.
    """
    test, channels = load_test_images(arrays), channels_of(classes)
    batches = (
        (start, logits.float().softmax(1).cpu().numpy())
        for start, logits in predict_batches(model, test.images, channels, batch_size)
    )
    return score_class_batches(batches, test, classes, resamples=resamples)


def score_class_batches(
    batches: Iterable[tuple[int, npt.NDArray[np.float32]]],
    test: TestImages,
    classes: Sequence[str],
    *,
    resamples: int,
) -> ScoredClasses:
    """Score probabilities that are given in batches; see `score_class_run`.

    Args:
        batches: the index of each batch's first image, and its probabilities
            (batch, classes + 1, size, size), in the order of `test`.
        test: the images and their masks of labels.
        classes, resamples: as there.
    """
    shape = (len(test.ids), len(classes), len(COUNTS))
    counts = {name: np.empty(shape, dtype=np.int64) for name in SIZES}
    prediction = np.empty(test.images.shape[:3], dtype=np.uint8)
    truth = np.empty_like(prediction)
    native_sizes: list[tuple[int, int]] = []

    def compare(item: tuple[int, npt.NDArray[np.float32]]) -> tuple[int, int]:
        i, probabilities = item
        mask = read(i)
        if (highest := int(mask.max())) > len(classes):
            raise InputError(
                f"{test.native_masks}: {test.ids[i]}.png has label {highest} and there are "
                f"{len(classes)} classes; preprocess again"
            )
        height, width = mask.shape
        prediction[i], _ = likeliest(probabilities)
        truth[i] = resize_mask(mask, test.size, "nearest")
        counts["training_size"][i] = class_counts(prediction[i], truth[i], len(classes))
        native, _ = likeliest(resized_planes([probabilities], height, width))
        counts["native_size"][i] = class_counts(native, mask, len(classes))
        return width, height

    with native_masks(test, labels=True) as read:
        for start, probabilities in batches:
            native_sizes += in_threads(compare, list(enumerate(probabilities, start)), "score")
    dice = _scores(counts["training_size"])["dice"]
    return ScoredClasses(
        paper=_paper(counts["training_size"], classes),
        sound={name: _sound(counts[name], classes, test.patients, resamples) for name in SIZES},
        per_image=_rows(test, classes, native_sizes, counts),
        prediction=prediction,
        truth=truth,
        dice=np.nan_to_num(mean_defined(dice), nan=1.0),
    )


def class_counts(prediction: Labels, truth: Labels, classes: int) -> Counts:
    """Confusion counts (classes, 4) of each label 1.. against the rest; labels (height, width)."""
    each = [
        confusion_counts((prediction == label)[None], (truth == label)[None])
        for label in range(1, classes + 1)
    ]
    return np.concatenate(each)


def _scores(counts: Counts) -> dict[str, Floats]:
    """Scores (images, classes) from counts (images, classes, 4); nan if a class is absent."""
    images, classes, _ = counts.shape
    flat = per_image_scores(counts.reshape(-1, len(COUNTS)), absent=np.nan)
    return {name: flat[name].reshape(images, classes) for name in ("dice", "iou")}


def _paper(counts: Counts, classes: Sequence[str]) -> dict[str, Any]:
    """DSC and mIoU over the foreground classes, and by class (each name holds its DSC)."""
    pooled = [pooled_scores(counts[:, k]) for k in range(len(classes))]
    return {
        "dsc": float(np.mean([scores["dsc"] for scores in pooled])),
        "miou": float(np.mean([scores["miou"] for scores in pooled])),
        **{name: scores["dsc"] for name, scores in zip(classes, pooled, strict=True)},
        "iou": {name: scores["miou"] for name, scores in zip(classes, pooled, strict=True)},
        "images": len(counts),
    }


def _sound(
    counts: Counts, classes: Sequence[str], patients: Sequence[str], resamples: int
) -> dict[str, Any]:
    """Scores with intervals: means over the classes that define them, then each class."""
    each = [ImageSample(counts[None, :, k], patients, np.nan) for k in range(len(classes))]
    by_class = {}
    for k, name in enumerate(classes):
        tp, fp, fn, _ = counts[:, k].T
        by_class[name] = {
            **_with_intervals(each[k], resamples, ("dsc", "iou", *MEANS)),
            "images": int((tp + fn > 0).sum()),  # images whose truth holds the class
            # Images whose truth or prediction holds the class: only these count in the means.
            "scored": int((tp + fp + fn > 0).sum()),
        }
    return {
        **_with_intervals(ClassSample(each), resamples, POOLED + MEANS),
        "images": len(counts),
        "classes": by_class,
    }


def _with_intervals(sample: Sample, resamples: int, names: Sequence[str]) -> dict[str, Any]:
    """The scores `POOLED` and `MEANS` under `names`, with their intervals."""
    scores, ends = sample.scores(), intervals(sample, resamples)
    by_name = dict(zip(names, POOLED + MEANS, strict=True))
    return {
        **{name: defined(scores[score]) for name, score in by_name.items()},
        "intervals": {
            name: [defined(end) for end in ends[score]] for name, score in by_name.items()
        },
    }


def _rows(
    test: TestImages,
    classes: Sequence[str],
    native_sizes: Sequence[tuple[int, int]],
    counts: Mapping[str, Counts],
) -> list[dict[str, Any]]:
    scores = {size: _scores(counts[size]) for size in SIZES}
    rows = []
    for i, (name, (width, height)) in enumerate(zip(test.ids, native_sizes, strict=True)):
        for k, label in enumerate(classes):
            row: dict[str, Any] = {"id": name, "class": label, **patient_of(test, i)}
            row |= {"native_width": width, "native_height": height}
            for size in SIZES:
                for column, value in zip(COUNTS, counts[size][i, k], strict=True):
                    row[f"{size}_{column}"] = int(value)
                for score, table in scores[size].items():
                    row[f"{size}_{score}"] = defined(float(table[i, k]))
            rows.append(row)
    return rows
