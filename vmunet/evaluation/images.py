"""Score a trained model on a view's test images, with the metrics of both protocols.

Three comparisons are made for every run, whatever protocol it was trained under:

paper: probabilities at the training size against the native mask resized bilinearly without
    antialiasing, pooled over all pixels (the published code's test).
sound, training size: the same probabilities against the native mask resized to the nearest pixel.
sound, native size: probabilities resized bilinearly to each mask's own size against that mask.

Probability and truth are foreground at >= 0.5. Native masks have up to tens of megapixels: each is
read, compared and dropped, and only its counts and the scores of its border are kept.
"""

import math
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from vmunet.data.arrays import BINARY_LEVEL, STAGE
from vmunet.errors import InputError
from vmunet.evaluation.boundary import BOUNDARY, TOLERANCE, BoundaryScores, boundary_scores
from vmunet.evaluation.calibration import reliability
from vmunet.evaluation.metrics import (
    COUNTS,
    PER_IMAGE,
    THRESHOLD,
    Counts,
    confusion_counts,
    mean_scores,
    per_image_scores,
    pooled_scores,
)
from vmunet.evaluation.samples import CaseSample, ImageSample
from vmunet.evaluation.statistics import intervals

COMPARISONS = ("paper", "training_size", "native_size")


@dataclass(frozen=True)
class TestImages:
    """The test part of an arrays folder.

    Attributes:
        ids: one per image.
        images: uint8 (images, size, size, 3), min-max normalised to 0..255, memory-mapped.
        native_masks: the zip of `<id>.png`, 0 or 255, each at its own size.
        patients: whose each image is; empty if that is not known.
    """

    ids: list[str]
    images: npt.NDArray[np.uint8]
    native_masks: Path
    patients: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Side of the images the model sees, px."""
        return self.images.shape[1]


@dataclass(frozen=True)
class _Native:
    """What is kept of an image at its mask's own size, px."""

    width: int
    height: int
    boundary: BoundaryScores


@dataclass(frozen=True)
class Scored:
    """What `score_run` measured.

    Attributes:
        paper, sound: the blocks of metrics.json with these names; fractions 0..1, None if
            undefined.
        per_image: one flat row per image: id, native size in px, the counts of the three
            comparisons, the per-image scores of the two sound ones, and those of the border at
            native size.
        probabilities: float32 (images, size, size), 0..1.
        truth: bool (images, size, size), the native masks resized to the nearest pixel.
    """

    paper: dict[str, Any]
    sound: dict[str, Any]
    per_image: list[dict[str, Any]]
    probabilities: npt.NDArray[np.float32]
    truth: npt.NDArray[np.bool_]


def load_test_images(folder: Path) -> TestImages:
    """Open `folder`/test without reading the images into memory.

    Raises:
        InputError: a file is missing, or the files disagree about the number of images.
    """
    test = Path(folder) / "test"
    paths = [test / name for name in ("images.npy", "ids.txt", "native_masks.zip")]
    for path in paths:
        if not path.is_file():
            raise InputError(f"{path}: no such file; run {STAGE} first")
    images = np.load(paths[0], mmap_mode="r")
    ids = paths[1].read_text().split()
    if len(ids) != len(images) or not ids:
        raise InputError(
            f"{test}: {len(ids)} ids for {len(images)} images; expected the same number, at least "
            f"one; delete the folder and run {STAGE} again"
        )
    groups = test / "groups.txt"
    patients = tuple(groups.read_text(encoding="utf-8").splitlines()) if groups.is_file() else ()
    return TestImages(ids, images, paths[2], patients)


def predict_probabilities(
    model: nn.Module, images: npt.NDArray[np.uint8], batch_size: int
) -> npt.NDArray[np.float32]:
    """The probability of foreground at each pixel, in float32 on the model's own device.

    Args:
        model: gives logits (batch, 1, height, width) for float32 (batch, 3, height, width) in
            0..255. It is in eval mode while it predicts.
        images: uint8 (images, height, width, 3), min-max normalised; may be memory-mapped.
        batch_size: images at a time, at least 1.

    Returns:
        float32 (images, height, width), 0..1.

    Raises:
        InputError: the model has several classes, or gives a number that is not finite.
    """
    probabilities = np.empty(images.shape[:3], dtype=np.float32)
    for start, logits in predict_batches(model, images, 1, batch_size):
        probabilities[start : start + len(logits)] = logits[:, 0].sigmoid().cpu().numpy()
    return probabilities


def predict_batches(
    model: nn.Module, images: npt.NDArray[np.uint8], channels: int, batch_size: int
) -> Iterator[tuple[int, torch.Tensor]]:
    """The index of each batch's first image, and its logits (batch, channels, height, width).

    See `predict_probabilities`, also for the errors.
    """
    from tqdm import tqdm

    if batch_size < 1:
        raise InputError(f"evaluate.batch_size is {batch_size}; expected at least 1")
    device = next(model.parameters()).device
    was_training = model.training
    progress = tqdm(total=len(images), desc="predict", unit="image", disable=None, leave=False)
    try:
        model.eval()
        with progress:
            for start in range(0, len(images), batch_size):
                pixels = np.array(images[start : start + batch_size])  # (batch, h, w, 3)
                with torch.inference_mode():
                    batch = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float()
                    logits = model(batch.contiguous())
                    check_logits(logits, batch, channels)
                yield start, logits
                progress.update(len(pixels))
    finally:
        model.train(was_training)


def score_run(model: nn.Module, arrays: Path, *, batch_size: int, resamples: int) -> Scored:
    """Predict the test images of an arrays folder and score them in all three ways.

    Args:
        model: see `predict_probabilities`.
        arrays: holds test/images.npy, test/ids.txt and test/native_masks.zip.
        batch_size: images at a time.
        resamples: bootstrap resamples behind the intervals of the sound scores.

    Raises:
        InputError: a file is missing or broken, or the model's output is unusable.
    """
    test = load_test_images(arrays)
    probabilities = predict_probabilities(model, test.images, batch_size)
    return score_probabilities(probabilities, test, resamples=resamples)


def score_probabilities(
    probabilities: npt.NDArray[np.float32],
    test: TestImages,
    *,
    resamples: int,
) -> Scored:
    """Score probabilities (images, size, size) that a model gave for `test`; see `score_run`."""
    counts, native, truth = _count_all(probabilities, test)
    sound: dict[str, Any] = {
        name: _sound_scores(ImageSample(counts[name][None], test.patients), resamples)
        for name in ("training_size", "native_size")
    }
    sound["native_size"] |= {"boundary": _boundary([n.boundary for n in native], test, resamples)}
    return Scored(
        paper=_paper_scores(counts["paper"]),
        sound=sound | {"calibration": reliability(probabilities, truth)},
        per_image=_per_image_rows(test, native, counts),
        probabilities=probabilities,
        truth=truth,
    )


def _count_all(
    probabilities: npt.NDArray[np.float32], test: TestImages
) -> tuple[dict[str, Counts], list[_Native], npt.NDArray[np.bool_]]:
    """Confusion counts (images, 4) of every comparison, the native masks, nearest truth."""
    import cv2

    from vmunet.data.resize import resize_mask
    from vmunet.threads import in_threads

    counts = {name: np.empty((len(test.ids), 4), dtype=np.int64) for name in COMPARISONS}
    truth = np.empty(probabilities.shape, dtype=np.bool_)

    def compare(i: int) -> _Native:
        mask = read(i)
        height, width = mask.shape
        probability = probabilities[i]
        soft = resize_mask(mask, test.size, "bilinear")
        truth[i] = resize_mask(mask, test.size, "nearest") >= BINARY_LEVEL
        counts["paper"][i] = _count(probability, soft >= BINARY_LEVEL)
        counts["training_size"][i] = _count(probability, truth[i])
        if probability.shape != mask.shape:
            probability = cv2.resize(probability, (width, height), interpolation=cv2.INTER_LINEAR)
        predicted, true = foreground(probability), mask >= BINARY_LEVEL
        counts["native_size"][i] = _count(predicted, true)
        return _Native(width, height, boundary_scores(predicted, true))

    with native_masks(test) as read:
        native = in_threads(compare, range(len(test.ids)), "score")
    return counts, native, truth


def _count(probability: npt.NDArray, truth: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    return confusion_counts(probability[None], truth[None])[0]


@contextmanager
def native_masks(
    test: TestImages, labels: bool = False
) -> Iterator[Callable[[int], npt.NDArray[np.uint8]]]:
    """Give a function from an image's index to its mask (height, width); threads may call it.

    Args:
        labels: the masks hold labels, and must be stored as such: one channel of 8 bits. Other
            masks are turned into grey levels.

    Raises:
        InputError: the file is not a zip, or a mask is missing in it or is not a readable PNG.
    """
    import cv2

    path, reading = test.native_masks, threading.Lock()  # a zip file has only one position
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile:
        raise InputError(
            f"{path}: not a zip file; delete the arrays folder and preprocess again"
        ) from None

    flags = cv2.IMREAD_UNCHANGED if labels else cv2.IMREAD_GRAYSCALE

    def read(index: int) -> npt.NDArray[np.uint8]:
        name = f"{test.ids[index]}.png"
        try:
            with reading:
                content = np.frombuffer(archive.read(name), np.uint8)
        except (KeyError, zipfile.BadZipFile) as error:
            raise InputError(
                f"{path}: cannot read {name} ({error}); delete the arrays folder and preprocess "
                "again"
            ) from None
        mask = cv2.imdecode(content, flags) if content.size else None
        if mask is None or mask.ndim != 2 or mask.dtype != np.uint8:
            raise InputError(
                f"{path}: {name} is not a readable PNG of one 8-bit channel; preprocess again"
            )
        return mask  # type: ignore[return-value]

    with archive:
        yield read


def check_logits(logits: torch.Tensor, batch: torch.Tensor, channels: int = 1) -> None:
    """Raise InputError if logits of a batch are not finite (len(batch), channels, h, w)."""
    expected = (len(batch), channels, *batch.shape[2:])
    if tuple(logits.shape) != expected:
        what = "one class" if channels == 1 else f"the background and {channels - 1} classes"
        raise InputError(f"the model gives {tuple(logits.shape)}; expected {expected}, {what}")
    if not torch.isfinite(logits).all():
        raise InputError(
            "the model's output is not finite: the run diverged; train it again, for example "
            "with a lower learning rate or in float32"
        )


def _paper_scores(counts: Counts) -> dict[str, Any]:
    total = counts.sum(0)
    return {
        **pooled_scores(counts),
        **{name: int(value) for name, value in zip(COUNTS, total, strict=True)},
    }


def _sound_scores(sample: ImageSample, resamples: int) -> dict[str, Any]:
    (counts,) = sample.counts
    tp, fn = counts[:, COUNTS.index("tp")], counts[:, COUNTS.index("fn")]
    return {
        **pooled_scores(counts),
        **{name: defined(value) for name, value in mean_scores(counts).items()},
        "images": len(counts),
        "empty_truth": int((tp + fn == 0).sum()),
        "intervals": {
            name: [defined(float(v)) for v in pair]
            for name, pair in intervals(sample, resamples).items()
        },
    }


def _boundary(scores: list[BoundaryScores], test: TestImages, resamples: int) -> dict[str, Any]:
    """Means over the images that define each score, with their intervals; `hd95_n` counts them."""
    means: dict[str, float | None] = {}
    ends: dict[str, list[float | None]] = {}
    for name in BOUNDARY:
        values = np.array([getattr(one, name) for one in scores])
        highest = 1.0 if name == "nsd" else math.inf
        sample = CaseSample(values[None, :, None], (name,), test.patients, highest)
        means[name] = defined(sample.scores()[name])
        ends[name] = [defined(float(end)) for end in intervals(sample, resamples)[name]]
    hd95_n = sum(not math.isnan(one.hd95_px) for one in scores)
    return {**means, "hd95_n": hd95_n, "tolerance_diagonals": TOLERANCE, "intervals": ends}


def _per_image_rows(
    test: TestImages, native: list[_Native], counts: Mapping[str, Counts]
) -> list[dict[str, Any]]:
    scores = {name: per_image_scores(counts[name]) for name in ("training_size", "native_size")}
    rows = []
    for i, (name, own) in enumerate(zip(test.ids, native, strict=True)):
        row: dict[str, Any] = {"id": name, **patient_of(test, i)}
        row |= {"native_width": own.width, "native_height": own.height}
        for kind in COMPARISONS:
            for column, value in zip(COUNTS, counts[kind][i], strict=True):
                row[f"{kind}_{column}"] = int(value)
            for score in PER_IMAGE if kind in scores else ():
                row[f"{kind}_{score}"] = defined(float(scores[kind][score][i]))
        for score in BOUNDARY:
            row[f"native_size_{score}"] = defined(getattr(own.boundary, score))
        rows.append(row)
    return rows


def patient_of(test: TestImages, index: int) -> dict[str, str]:
    """The column `patient` of an image's row, if the patients are known."""
    return {"patient": test.patients[index]} if test.patients else {}


def defined(value: float) -> float | None:
    """None for nan, which JSON does not have."""
    return None if math.isnan(value) else value


def foreground(probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """The predicted masks: probability >= 0.5."""
    return probabilities >= THRESHOLD
