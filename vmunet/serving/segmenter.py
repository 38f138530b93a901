"""The model behind the page: an uploaded image in, pictures and areas out."""

import base64
import hashlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from vmunet.classes import Labels
from vmunet.drawing.sheets.images import Colour
from vmunet.drawing.sheets.labels import colour_of, paint
from vmunet.errors import InputError
from vmunet.inference.files import OVERLAY_COLOUR, draw_overlay
from vmunet.inference.predictor import THRESHOLD, Predictor, Segmentation
from vmunet.serving.uploads import plain_name, read_upload

Pixels = NDArray[np.uint8]

SHORTEST, LONGEST = 800, 1600  # a picture's longer side on the page, px


@dataclass(frozen=True)
class Area:
    """What a class covers of an image.

    Attributes:
        name: of the class.
        colour: of the class in the pictures, as CSS writes it (#rrggbb).
        pixels: how many have its label, of the image's own pixels.
        share: the same as a share of the image, 0..1.
    """

    name: str
    colour: str
    pixels: int
    share: float


@dataclass(frozen=True)
class Answer:
    """What the page shows of an image.

    Attributes:
        name: the file's name, as a file may be called.
        width, height: the image's own size, px.
        areas: one for each class.
        image, overlay, mask: pictures for the screen as data URLs, all of the same size.
        download: the mask as a PNG of the image's own size, a data URL: 0 and 255, or the labels
            of several classes.
        download_name: the name to save it under.
    """

    name: str
    width: int
    height: int
    areas: list[Area]
    image: str
    overlay: str
    mask: str
    download: str
    download_name: str


class Segmenter:
    """A predictor of images that several requests may call; it computes one after the other.

    Attributes:
        classes: the names of labels 1, 2, ...
        sizes: side of the square that each of its models sees, px.
        has_threshold: whether it takes a threshold: only if there is one class.
    """

    def __init__(self, weights: Path, device: str | None = None) -> None:
        """Load the weights and segment a small image, so that bad weights are refused at once.

        Raises:
            InputError: weights of CT volumes, and what `Predictor.from_checkpoint` refuses.
        """
        self._predictor = Predictor.from_checkpoint(weights, device)
        if self._predictor.volumes:
            raise InputError(
                f"{weights}: segments CT volumes, and the page takes images; volumes go through "
                f"vmunet predict {weights} ct.nii.gz --out labels"
            )
        self.classes, self.sizes = self._predictor.classes, self._predictor.sizes
        self.has_threshold = len(self.classes) == 1
        # The image before, so that moving the threshold does not run the model again.
        self._last: tuple[bytes, Pixels, Segmentation] | None = None
        self._lock = threading.Lock()
        self._predictor(np.arange(3 * 32 * 32, dtype=np.uint8).reshape(32, 32, 3))

    def __call__(self, name: str, content: bytes, threshold: float | None = None) -> Answer:
        """Segment a file's content.

        Args:
            name: the file's name.
            content: its bytes: an image of one of the formats of `vmunet predict`.
            threshold: a pixel is lesion if its probability is at least this, between 0 and 1; 0.5
                if None. None if there are several classes.

        Raises:
            InputError: see `vmunet.serving.uploads.read_upload`; a wrong threshold.
        """
        if threshold is not None and not self.has_threshold:
            raise InputError(f"threshold {threshold}: does not apply to several classes")
        if threshold is not None and not 0 < threshold < 1:
            raise InputError(f"threshold {threshold}: expected a number between 0 and 1")
        with self._lock:
            image, result = self._segmented(name, content)
        labels = result.labels
        if self.has_threshold:
            assert result.probability is not None
            level = THRESHOLD if threshold is None else threshold
            labels = (result.probability >= level).astype(np.uint8)
        name = plain_name(name)
        height, width = labels.shape
        shown, regions = _for_the_screen(image, labels)
        drawn, mask = self._draw(shown, regions)
        return Answer(
            name=name,
            width=width,
            height=height,
            areas=self._areas(labels),
            image=_data_url(shown, "jpeg"),
            overlay=_data_url(drawn, "jpeg"),
            mask=_data_url(mask, "png"),
            download=_data_url(255 * labels if self.has_threshold else labels, "png"),
            download_name=f"{Path(name).stem}_mask.png",
        )

    @property
    def colours(self) -> list[Colour]:
        """The colour of each class in the pictures, RGB."""
        if self.has_threshold:
            return [OVERLAY_COLOUR]
        return [colour_of(label) for label in range(1, len(self.classes) + 1)]

    def _segmented(self, name: str, content: bytes) -> tuple[Pixels, Segmentation]:
        digest = hashlib.sha256(content).digest()
        if self._last is None or self._last[0] != digest:
            self._last = None  # two large images at once would double the memory
            image = read_upload(name, content)
            self._last = (digest, image, self._predictor(image))
        return self._last[1:]

    def _areas(self, labels: Labels) -> list[Area]:
        counts = np.bincount(labels.ravel(), minlength=len(self.classes) + 1)[1:].tolist()
        return [
            Area(name, "#{:02x}{:02x}{:02x}".format(*colour), count, count / labels.size)
            for name, colour, count in zip(self.classes, self.colours, counts, strict=True)
        ]

    def _draw(self, image: Pixels, labels: Labels) -> tuple[Pixels, Pixels]:
        """The overlay, and the mask in colours that the eye can tell apart."""
        if self.has_threshold:
            return draw_overlay(image, labels > 0), 255 * labels
        colours = np.array([(0, 0, 0), *self.colours], np.uint8)
        width = max(1, round(max(labels.shape) / 400))
        return paint(image, labels, width), colours[labels]


def _for_the_screen(image: Pixels, labels: Labels) -> tuple[Pixels, Labels]:
    """Both at a size that a screen shows well; outlines are drawn at this size."""
    height, width = labels.shape
    factor = min(max(width, height, SHORTEST), LONGEST) / max(width, height)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    shown = cv2.resize(image, size, interpolation=how)
    regions = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
    return shown.astype(np.uint8), regions.astype(np.uint8)


def _data_url(pixels: Pixels, kind: str) -> str:
    """RGB or a plane, as `data:image/<kind>`."""
    ordered = pixels[..., ::-1] if pixels.ndim == 3 else pixels  # OpenCV wants BGR
    _, content = cv2.imencode(f".{kind}", ordered)
    return f"data:image/{kind};base64,{base64.b64encode(content.tobytes()).decode()}"


def count_models(sizes: Sequence[int]) -> str:
    """The models and the squares that they see, for the page: "1 model, 256 × 256 px"."""
    squares = " and ".join(f"{size} × {size}" for size in sorted(set(sizes)))
    return f"{len(sizes)} model{'' if len(sizes) == 1 else 's'}, {squares} px"
