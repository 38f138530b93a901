"""Segment files and arrays in Python with trained weights: images, classes or volumes.

from vmunet import Predictor

predictor = Predictor.from_checkpoint("weights.safetensors")
result = predictor("photo.jpg", overlay=True)
result.mask     # True for every pixel that is not background
result.labels   # uint8 (height, width): 0 background, 1 the first of result.classes
result.overlay  # uint8 (height, width, 3), RGB: the outline over the image
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vmunet.architecture import Model
from vmunet.classes import Floats, Labels, channels_of, likeliest, resized_planes
from vmunet.data.images import Array8
from vmunet.drawing.sheets import labels as label_sheet
from vmunet.drawing.sheets.volumes import draw_sheet
from vmunet.errors import InputError
from vmunet.inference.ensemble import Member, batch_probabilities, find_weights, load_members
from vmunet.inference.export import export_onnx
from vmunet.inference.files import draw_overlay
from vmunet.inference.inputs import Input, Loaded, load
from vmunet.inference.volumes import Setting, is_volume_model, load_volume_models, segment_as
from vmunet.weights.places import local

THRESHOLD = 0.5
BATCH = 8  # images that a model sees at once


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The result of a `Predictor`.

    Attributes:
        labels: uint8, (height, width) of an image, (depth, height, width) of a volume: 0 is the
            background and k the k-th of `classes`.
        probability: float32, 0..1, of an image's shape. With one class it is the probability that
            a pixel belongs to it; with several it is the probability of the pixel's label. None
            for a volume.
        classes: the names of the labels 1, 2, ...
        overlay: uint8 (height, width, 3), RGB: the outlines over the image, with several classes
            and a legend below it; of a volume a sheet of slices. None unless it was asked for.
    """

    labels: Labels
    probability: Floats | None
    classes: tuple[str, ...]
    overlay: Array8 | None = None

    @property
    def mask(self) -> NDArray[np.bool_]:
        """True for every pixel or voxel that is not background; of the shape of `labels`."""
        return self.labels > 0


class Predictor:
    """Trained models with their settings; call it with an image or a volume.

    Make one with `Predictor.from_checkpoint`.

    Attributes:
        volumes: whether it takes CT volumes instead of images.
        classes: the names of the labels 1, 2, ...; ("lesion",) of an ISIC model.
        sizes: side of the square that each model sees, px; one for all models of CT volumes.
        patch: sides (depth, height, width) of the windows that models of three dimensions see of
            CT volumes at this size; None for other models.
    """

    def __init__(
        self,
        members: Sequence[Member] = (),
        volumes: tuple[Sequence[Model], Setting] | None = None,
    ) -> None:
        self._members, self._volume_models = list(members), volumes
        self.patch = volumes[1].patch if volumes else None
        self.volumes = volumes is not None
        if volumes is not None:
            setting = volumes[1]
            self.classes = setting.organs
            self.sizes: tuple[int, ...] = (setting.size,)
        else:
            self.classes = self._members[0].classes
            self.sizes = tuple(member.size for member in self._members)

    @classmethod
    def from_checkpoint(
        cls, place: Path | str, device: str | None = None, size: int | None = None
    ) -> "Predictor":
        """Load a checkpoint for images, for several classes, or for CT volumes; its header says.

        Args:
            place: where the weights are:

                - a path: a `.safetensors` file of this project, a published `.pth`, a run's folder,
                  a folder that `vmunet publish` wrote, or a folder of runs, such as the seeds of a
                  cell, whose probabilities are averaged;
                - an https or http address of a `.safetensors` file, which is downloaded once
                  (`vmunet.weights.remote`);
                - in a clone with the pipeline, a model of MLflow: `models:/NAME/VERSION`,
                  `models:/NAME@seed-42`, `runs:/ID`.
            device: `cpu`, `cuda` or `cuda:N`; by default CUDA if there is a GPU.
            size: side of the square that the models see, px; by default their training size. For
                images at least 32, for volumes a multiple of 32.

        Raises:
            InputError: there are no weights, they are damaged or of another architecture, two
                models of a folder do not fit together, they cannot be fetched, or the device or the
                size is unusable.
        """
        with local(place) as path:
            if is_volume_model(find_weights(path)[0]):
                return cls([], load_volume_models([path], device, size))
            return cls(load_members([path], device, size))

    def __call__(self, image: Input, tta: bool = False, overlay: bool = False) -> Segmentation:
        """Segment one image or one volume.

        Args:
            image: for images the path of a file (.jpg, .png, .tif, ...), a picture of Pillow's, or
                uint8 (height, width, 3), RGB, 0..255, of any height and width up to 400 megapixels.
                For volumes the path of a NIfTI file, or numbers (depth, height, width), HU (window
                models) or any unit (models that take each volume's own percentiles), with slices
                from inferior to superior, rows from anterior to posterior, columns from the
                patient's right to left, as `vmunet.data.nifti.read_volume` gives them.
            tta: for images: average over the image, its two mirror images and both mirrorings,
                which takes four times as long.
            overlay: draw the result's `overlay` too.

        Returns:
            Labels at the input's own height and width; of a NIfTI file in the order that
            `read_volume` gives. A pixel is a lesion if its probability is at least 0.5; of several
            classes it gets the likeliest.

        Raises:
            InputError: the file is unreadable, an image was given to a model of volumes or the
                other way round, the array has another dtype or shape, is empty, too large or holds
                NaN, `tta` is given for a volume, or the weights give NaN or infinite values.
        """
        (result,) = self._segmented([image], ["volume" if self.volumes else "image"], tta, overlay)
        return result

    def batch(
        self, images: Iterable[Input], tta: bool = False, overlay: bool = False
    ) -> list[Segmentation]:
        """Segment several images or volumes; the models see up to 8 images at once.

        Args:
            images: of any kinds and sizes that a call takes; they are read when it is their turn.
            tta, overlay: as in a call.

        Returns:
            What a call for each would give, in their order. Probabilities may differ in their last
            bits, because sums of float32 depend on their order.

        Raises:
            InputError: as a call; the message names the file, or the place in the batch from 1 on.
        """
        if isinstance(images, str | Path) or hasattr(images, "__array__"):
            raise InputError("batch: expected a list of images; one image goes to the predictor")
        noun, waiting, done = "volume" if self.volumes else "image", iter(images), 0
        results: list[Segmentation] = []
        while some := list(islice(waiting, BATCH)):
            names = [f"{noun} {done + i} of the batch" for i in range(1, len(some) + 1)]
            results += self._segmented(some, names, tta, overlay)
            done += len(some)
        return results

    def to_onnx(self, path: Path | str) -> None:
        """Write the model as ONNX, for one image, slice or window of its size.

        See `vmunet.inference.export`.

        Args:
            path: the file; it is written completely or not at all.

        Raises:
            InputError: there are several models, their size is no multiple of their stride, or the
                exporter is not installed (pip install 'vmunet[export]').
        """
        models = [member.model for member in self._members]
        if self._volume_models is not None:
            models = list(self._volume_models[0])
        if len(models) > 1:
            raise InputError(f"{path}: {len(models)} models are averaged here; export takes one")
        device = next(models[0].parameters()).device
        try:
            export_onnx(models[0], Path(path), self.patch or self.sizes[0])
        finally:
            models[0].to(device)  # the exporter works on the CPU

    def _segmented(
        self, images: Sequence[Input], names: Sequence[str], tta: bool, overlay: bool
    ) -> Iterator[Segmentation]:
        loaded = (load(*one, self.volumes) for one in zip(images, names, strict=True))
        if self._volume_models is not None:
            if tta:
                raise InputError("tta: does not apply to CT volumes; leave it out")
            yield from (self._volume(one, overlay) for one in loaded)
        else:
            yield from self._images(list(loaded), tta, overlay)

    def _images(self, loaded: Sequence[Loaded], tta: bool, overlay: bool) -> Iterator[Segmentation]:
        arrays, channels = [one.array for one in loaded], channels_of(self.classes)
        squares = [
            batch_probabilities(m.model, arrays, m.size, m.resize, channels, tta).numpy()
            for m in self._members
        ]
        for index, image in enumerate(arrays):
            planes = resized_planes([square[index] for square in squares], *image.shape[:2])
            if len(self.classes) == 1:
                probability = next(planes).clip(0, 1)
                labels = (probability >= THRESHOLD).astype(np.uint8)
            else:
                labels, probability = likeliest(planes)
            drawn = self._drawn(image, labels) if overlay else None
            yield Segmentation(labels, probability, self.classes, drawn)

    def _drawn(self, image: Array8, labels: Labels) -> Array8:
        if len(self.classes) == 1:
            return draw_overlay(image, labels > 0)
        return label_sheet.overlay(image, labels, self.classes)

    def _volume(self, loaded: Loaded, overlay: bool) -> Segmentation:
        assert self._volume_models is not None
        models, setting = self._volume_models
        labels = segment_as(models, setting, loaded.array)
        drawn = None
        if overlay:
            window = setting.window_of(loaded.array)
            drawn = draw_sheet(
                loaded.array, labels, self.classes, window, loaded.spacing, loaded.title
            )
        return Segmentation(labels, None, self.classes, drawn)
