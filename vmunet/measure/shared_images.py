"""The test images that another dataset holds too: a model that was trained on it has seen them.

ISIC 2017 and 2018 are drawn from one archive. An image is shared if the other dataset has its id,
or has the same picture according to `vmunet.data.checks.copies`: with the same pixels, saved
again, resized, recoloured, mirrored or turned. Two photographs of one lesion or one patient are
not recognised.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vmunet.data.arrays import ArrayDataset
from vmunet.data.checks.copies import find_copies
from vmunet.data.checks.hashes import thumbnail

Images = Sequence[NDArray[np.uint8]] | NDArray[np.uint8]


@dataclass(frozen=True)
class Shared:
    """Ids of the shared test images, in the test set's order, by how they were recognised.

    Attributes:
        by_id: the other dataset has this id.
        by_picture: the other dataset has this picture.
    """

    by_id: list[str]
    by_picture: list[str]


def shared_images(tested: Path, known: Path, same_ids: bool) -> Shared:
    """The test images of `tested` that the dataset `known` holds in its train or test part.

    The test part counts too: under the paper's protocol it selects the epoch.

    Args:
        tested, known: folders data/arrays/<view>/<protocol>.
        same_ids: whether an id means the same image in both; not if one of them is made.

    Raises:
        InputError: arrays are missing or broken.
    """
    test = ArrayDataset(tested, "test")
    parts = [ArrayDataset(known, part) for part in ("train", "test")]
    ids = set(chain.from_iterable(part.ids for part in parts)) if same_ids else set()
    seen = same_pictures(test.images, list(chain.from_iterable(part.images for part in parts)))
    return Shared(
        [name for name in test.ids if name in ids],
        [name for name, is_known in zip(test.ids, seen, strict=True) if is_known],
    )


def same_pictures(images: Images, known: Images) -> NDArray[np.bool_]:
    """Whether each image shows the same picture as one of `known`.

    Args:
        images, known: uint8 RGB (height, width, 3) each, any sizes.

    Returns:
        bool (images,).
    """
    is_known = np.zeros(len(images), bool)
    if len(images) == 0 or len(known) == 0:
        return is_known
    both = [*known, *images]
    thumbnails = np.stack([thumbnail(np.asarray(image)) for image in both])
    digests = [hashlib.sha256(image.tobytes()).hexdigest() for image in both]
    # Only pairs of a known and a new image are compared.
    group = np.repeat([0, 1], [len(known), len(images)])
    for copy in find_copies(thumbnails, digests, group):
        is_known[copy.second - len(known)] = True
    return is_known
