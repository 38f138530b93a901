"""What may make a test image easy or hard, the same for every model: columns of per_image.csv."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vmunet.data.arrays import ArrayDataset
from vmunet.measure.image_facts import measure
from vmunet.measure.shared_images import same_pictures
from vmunet.threads import in_threads

IMAGE_COLUMNS = ("in_training", "lesion_share", "contrast", "hair")


def image_columns(
    arrays: Path, images: npt.NDArray[np.uint8], truth: npt.NDArray[np.bool_]
) -> list[dict[str, Any]]:
    """`IMAGE_COLUMNS` of each test image.

    Args:
        arrays: data/arrays/<view>/<protocol>; its training part is searched for the test images.
        images: uint8 RGB (images, size, size, 3), the test part's.
        truth: bool (images, size, size).

    Returns:
        in_training: 1 if the training part shows the same picture, exactly or as a copy that
            `vmunet.data.checks.copies` recognises, else 0; lesion_share, contrast, hair: of
            `vmunet.measure.image_facts`, contrast None if it is undefined.

    Raises:
        InputError: the training part is missing or broken.
    """
    trained_on = same_pictures(images, ArrayDataset(arrays, "train").images)
    measured = in_threads(lambda i: measure(images[i], truth[i]), range(len(images)), "measure")
    return [
        {
            "in_training": int(same),
            "lesion_share": facts.size,
            "contrast": facts.contrast,
            "hair": facts.hair,
        }
        for same, facts in zip(trained_on, measured, strict=True)
    ]
