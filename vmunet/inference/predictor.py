"""Segment arrays in Python with the weights of a checkpoint: images, classes or volumes.

from vmunet import Predictor

predictor = Predictor.from_checkpoint("weights.safetensors")
result = predictor(image)  # uint8 (height, width, 3), RGB
result.labels              # uint8 (height, width): 0 background, 1 the first of result.classes
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vmunet.classes import Floats, Labels
from vmunet.errors import InputError
from vmunet.inference.classes import segment_classes
from vmunet.inference.ensemble import Member, find_weights, load_members
from vmunet.inference.images import segment_members
from vmunet.inference.volumes import Setting, is_volume_model, load_volume_models, segment_as
from vmunet.model import VMUNet

THRESHOLD = 0.5


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
    """

    labels: Labels
    probability: Floats | None
    classes: tuple[str, ...]

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
    """

    def __init__(
        self,
        members: Sequence[Member] = (),
        volumes: tuple[Sequence[VMUNet], Setting] | None = None,
    ) -> None:
        self._members, self._volume_models = list(members), volumes
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
        cls, path: Path | str, device: str | None = None, size: int | None = None
    ) -> "Predictor":
        """Load a checkpoint for images, for several classes, or for CT volumes; its header says.

        Args:
            path: a `.safetensors` file of this project, a published `.pth`, a run's folder, or a
                folder of runs, such as the seeds of a cell: their probabilities are averaged.
            device: `cpu`, `cuda` or `cuda:N`; by default CUDA if there is a GPU.
            size: side of the square that the models see, px; by default their training size. For
                images at least 32, for volumes a multiple of 32.

        Raises:
            InputError: there are no weights, they are damaged or of another architecture, two
                models of a folder do not fit together, or the device or the size is unusable.
        """
        weights = [Path(path)]
        if is_volume_model(find_weights(weights[0])[0]):
            return cls([], load_volume_models(weights, device, size))
        return cls(load_members(weights, device, size))

    def __call__(self, image: NDArray, tta: bool = False) -> Segmentation:
        """Segment one image or one volume.

        Args:
            image: for images uint8 (height, width, 3), RGB, 0..255, of any height and width. For
                volumes numbers (depth, height, width), HU (window models) or any unit (models that
                take each volume's own percentiles), with slices from inferior to superior, rows
                from anterior to posterior, columns from the patient's right to left, as
                `vmunet.data.nifti.read_volume` gives them.
            tta: for images: average over the image, its two mirror images and both mirrorings,
                which takes four times as long.

        Returns:
            Labels at the input's own height and width. A pixel is a lesion if its probability is
            at least 0.5; of several classes it gets the likeliest.

        Raises:
            InputError: another dtype or shape, an empty array, NaN in a volume, `tta` for a
                volume, or weights that give NaN or infinite values.
        """
        image = np.asarray(image)
        if self._volume_models is not None:
            if tta:
                raise InputError("tta: does not apply to CT volumes; leave it out")
            return Segmentation(segment_as(*self._volume_models, image), None, self.classes)
        if len(self.classes) > 1:
            labels, probability = segment_classes(self._members, image, tta)
        else:
            probability = segment_members(self._members, image, tta)
            labels = (probability >= THRESHOLD).astype(np.uint8)
        return Segmentation(labels, probability, self.classes)
