"""Training-time augmentation: flips and a rotation, by albumentations.

The draws for a sample are a pure function of the sample's seed: neither a global random state nor
the order of the samples has any effect.
"""

import os
import random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmunet.protocols import Protocol
from vmunet.settings import PUBLISHED, Augmentation

Array8 = NDArray[np.uint8]

ROTATION_STREAM = 0x0A16  # separates the angle's draw from all others made with the run's seed


class Augment:
    """The protocol's augmentation for a run.

    Horizontal flip with probability 0.5, vertical flip 0.5, then a rotation 0.5 about the centre
    within the same frame, filled with zeros. `one_angle`: the whole run turns by one angle in
    0..360 degrees drawn from its seed (the published code draws it before seeding, when the
    transform is built); `fresh_angle`: a new one for every sample. Masks turn by nearest pixel.
    These are the published settings; others have other probabilities, or angles from -limit to
    limit degrees.

    It can be pickled, because worker processes that are not forked are sent the dataset that way.

    Args:
        protocol: its `rotation` and `rotation_image` are used.
        seed: the run's.
        settings: the probabilities, and the largest angle.
    """

    def __init__(self, protocol: Protocol, seed: int, settings: Augmentation = PUBLISHED) -> None:
        self.protocol, self.seed, self.settings = protocol, seed, settings
        self._pipeline = self._build()
        self._unused = np.random.default_rng(0)  # none of the three transforms draws from it

    def __reduce__(self) -> tuple[Any, ...]:
        return Augment, (self.protocol, self.seed, self.settings)

    def _build(self) -> Any:
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # its import would ask the network
        import albumentations as A
        import cv2

        limit, protocol = self.settings.rotation_limit, self.protocol
        angles = (0.0, 360.0) if limit is None else (-limit, limit)
        if protocol.rotation == "one_angle":
            angle = run_angle(self.seed, angles)
            angles = (angle, angle)
        interpolations = {"nearest": cv2.INTER_NEAREST, "bilinear": cv2.INTER_LINEAR}
        return A.Compose(
            [
                A.HorizontalFlip(p=self.settings.horizontal_flip),
                A.VerticalFlip(p=self.settings.vertical_flip),
                A.Rotate(
                    limit=angles,
                    interpolation=interpolations[protocol.rotation_image],
                    mask_interpolation=cv2.INTER_NEAREST,
                    border_mode=cv2.BORDER_CONSTANT,
                    fill=0,
                    fill_mask=0,
                    p=self.settings.rotation,
                ),
            ]
        )

    def __call__(self, image: Array8, mask: Array8, sample_seed: int) -> tuple[Array8, Array8]:
        """Turn an image and its mask.

        Args:
            image: uint8 (height, width, 3).
            mask: uint8 (height, width).
            sample_seed: 0 or more; the draws depend only on it.

        Returns:
            Image and mask, of the same shapes.
        """
        # One generator shared by the three. Compose.set_random_seed would give each of them the
        # same seed, and so the same first draw: all three would act, or none of them.
        self._pipeline.set_random_state(self._unused, random.Random(sample_seed))
        augmented = self._pipeline(image=image, mask=mask)
        return augmented["image"], augmented["mask"]


def run_angle(seed: int, angles: tuple[float, float] = (0.0, 360.0)) -> float:
    """The angle in degrees by which a `paper` run rotates all samples, drawn from its seed."""
    return float(np.random.default_rng([ROTATION_STREAM, seed]).uniform(*angles))
