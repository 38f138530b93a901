"""Training-time augmentation: flips and a rotation, by albumentations.

The draws for a sample are a pure function of the sample's seed: no global random state, no order.
"""

import os
import random
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vmunet.protocols import Protocol

Array8 = NDArray[np.uint8]
Transform = Callable[[Array8, Array8, int], tuple[Array8, Array8]]

ROTATION_STREAM = 0x0A16  # separates the angle's draw from all others made with the run's seed


def augmentation(protocol: Protocol, seed: int) -> Transform:
    """The protocol's augmentation for a run.

    Horizontal flip with probability 0.5, vertical flip 0.5, then a rotation 0.5 about the centre
    within the same frame, filled with zeros. `one_angle`: the whole run turns by one angle in
    0..360 degrees drawn from its seed (the published code draws it before seeding, when the
    transform is built); `fresh_angle`: a new one for every sample. Masks turn by nearest pixel.

    Args:
        protocol: reads `rotation` and `rotation_image`.
        seed: the run's.

    Returns:
        transform(image uint8 (h, w, 3), mask uint8 (h, w), sample seed >= 0) -> (image, mask).
    """
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else its import asks the network
    import albumentations as A
    import cv2

    angles = (0.0, 360.0)
    if protocol.rotation == "one_angle":
        angle = run_angle(seed)
        angles = (angle, angle)
    of_image = {"nearest": cv2.INTER_NEAREST, "bilinear": cv2.INTER_LINEAR}[protocol.rotation_image]
    pipeline = A.Compose(
        [
            A.HorizontalFlip(p=0.5),
            A.VerticalFlip(p=0.5),
            A.Rotate(
                limit=angles,
                interpolation=of_image,
                mask_interpolation=cv2.INTER_NEAREST,
                border_mode=cv2.BORDER_CONSTANT,
                fill=0,
                fill_mask=0,
                p=0.5,
            ),
        ]
    )
    unused = np.random.default_rng(0)  # none of the three draws from it

    def transform(image: Array8, mask: Array8, sample_seed: int) -> tuple[Array8, Array8]:
        # One generator shared by the three. Compose.set_random_seed would give each of them the
        # same seed, and so the same first draw: all three would act, or none.
        pipeline.set_random_state(unused, random.Random(sample_seed))
        done = pipeline(image=image, mask=mask)
        return done["image"], done["mask"]

    return transform


def run_angle(seed: int) -> float:
    """The one angle in degrees, 0..360, by which a `paper` run rotates."""
    return float(np.random.default_rng([ROTATION_STREAM, seed]).uniform(0, 360))
