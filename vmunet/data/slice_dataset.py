"""The slices of CT volumes as a torch Dataset, with the Synapse half's augmentation.

data/arrays/<view>/cases/<case>/image.npy   float32 (depth, height, width), 0..1
data/arrays/<view>/cases/<case>/labels.npy  uint8 (depth, height, width), class indices
data/arrays/<view>/manifest.json            written by `vmunet.data.volumes`
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from vmunet.data.arrays import STAGE
from vmunet.data.slices import resize_labels, resize_slice
from vmunet.errors import InputError
from vmunet.protocols import Protocol
from vmunet.settings import PUBLISHED, Augmentation

Slice = NDArray[np.float32]
Labels = NDArray[np.uint8]
DEGREES = 20  # largest rotation of a slice, as published
ORDERS = {"nearest": 0, "bilinear": 1}  # of the spline that rotates an image


class SliceDataset(Dataset[tuple[Tensor, Tensor]]):
    """Slices of some cases: `[i] -> (image, labels)`.

    Image float32 (1, size, size), 0..1 before cubic splines, which overshoot a little; labels
    int64 (size, size). Augmentation is done at the slices' own size, then both are resized, as
    published. Sample i in epoch e is a pure function of (seed, e, i).

    Args:
        folder: data/arrays/<view>.
        cases: the cases whose slices are taken, in this order.
        size: side of the square that the model sees, px.
        protocol: its `slice_resize`, `slice_turns` and `rotation_image` are used.
        augmented: whether slices are turned and rotated at random.
        seed: the run's.
        settings: the probabilities, and the largest angle.

    Raises:
        InputError: the arrays of a case are missing or do not fit one another.
    """

    def __init__(
        self,
        folder: Path,
        cases: Sequence[str],
        size: int,
        protocol: Protocol,
        augmented: bool = False,
        seed: int = 0,
        settings: Augmentation = PUBLISHED,
    ) -> None:
        self.folder, self.cases = Path(folder), list(cases)
        self.size, self.protocol = size, protocol
        self.augmented, self.seed, self.settings = augmented, seed, settings
        # In shared memory: workers that outlive an epoch see `set_epoch` too.
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()
        self._open()

    def _open(self) -> None:
        self.volumes = [open_case(self.folder, case) for case in self.cases]
        depths = [len(image) for image, _ in self.volumes]
        # The index of each case's first slice, then the number of all slices.
        self.first = np.concatenate([[0], np.cumsum(depths)])

    def __getstate__(self) -> dict[str, Any]:
        # A worker that is sent this dataset maps the files itself instead of getting a copy.
        return {k: v for k, v in self.__dict__.items() if k != "volumes"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def __len__(self) -> int:
        return int(self.first[-1])

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch's augmentation to draw; call it before iterating over a loader."""
        self._epoch[0] = epoch

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        case = int(np.searchsorted(self.first, index, side="right")) - 1
        images, masks = self.volumes[case]
        row = index - int(self.first[case])
        image, labels = np.array(images[row]), np.array(masks[row])
        if self.augmented:
            random = np.random.default_rng((self.seed, int(self._epoch[0]), index))
            image, labels = augment(image, labels, self.protocol, random, self.settings)
        image = resize_slice(image, self.size, self.protocol.slice_resize)
        labels = resize_labels(labels, (self.size, self.size), self.protocol.slice_resize)
        return torch.from_numpy(image)[None], torch.from_numpy(labels.astype(np.int64))


def open_case(folder: Path, case: str) -> tuple[Slice, Labels]:
    """A case's image and labels (depth, height, width), mapped into memory.

    Raises:
        InputError: a file is missing or broken, or the two differ in shape.
    """
    pair = []
    for name in ("image.npy", "labels.npy"):
        path = folder / "cases" / case / name
        try:
            pair.append(np.load(path, mmap_mode="r", allow_pickle=False))
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{path}: cannot be read ({error}); run {STAGE} again") from None
    image, labels = pair
    if image.shape != labels.shape:
        raise InputError(
            f"{folder / 'cases' / case}: image {image.shape} and labels {labels.shape} differ; run "
            "the volumes stage again"
        )
    return image, labels


def augment(
    image: Slice,
    labels: Labels,
    protocol: Protocol,
    random: np.random.Generator,
    settings: Augmentation = PUBLISHED,
) -> tuple[Slice, Labels]:
    """Turn a slice and its labels (height, width) at random; see `draw_movement`."""
    movement = draw_movement(protocol, random, settings)
    if movement.axis is not None:
        return turn(image, movement), turn(labels, movement)
    if movement.degrees is not None:
        return rotate(image, labels, movement.degrees, protocol)
    return image, labels


class Movement(NamedTuple):
    """How a slice is turned: by quarters and a flip, by an angle, or not at all.

    Attributes:
        quarters: quarter turns before the flip.
        axis: of the flip: 0 the rows, 1 the columns; None if there are no quarter turns either.
        degrees: of the rotation, None if there is none.
    """

    quarters: int = 0
    axis: int | None = None
    degrees: float | None = None


def draw_movement(
    protocol: Protocol, random: np.random.Generator, settings: Augmentation = PUBLISHED
) -> Movement:
    """Draw how a slice is turned, as `Protocol.slice_turns` says.

    The published settings turn half of the slices, and rotate half of the others by up to 20
    degrees.
    """
    limit = DEGREES if settings.rotation_limit is None else settings.rotation_limit
    if protocol.slice_turns == "quarter_turns":
        if random.random() > 1 - settings.turns:
            return Movement(int(random.integers(4)), int(random.integers(2)))
        if random.random() > 1 - settings.rotation:
            return Movement(degrees=int(random.integers(-int(limit), int(limit))))
    elif random.random() > 1 - settings.rotation:
        return Movement(degrees=random.uniform(-limit, limit))
    return Movement()


def turn(part: NDArray, movement: Movement) -> NDArray:
    """Quarter turns, then a flip, of the last two axes."""
    assert movement.axis is not None
    turned = np.rot90(part, movement.quarters, (-2, -1))
    return np.ascontiguousarray(np.flip(turned, movement.axis - 2))


def rotate(
    image: Slice, labels: Labels, degrees: float, protocol: Protocol
) -> tuple[Slice, Labels]:
    """Rotate about the centre within the same frame; pixels from outside the frame are 0."""
    from scipy import ndimage

    return (
        ndimage.rotate(image, degrees, order=ORDERS[protocol.rotation_image], reshape=False),
        ndimage.rotate(labels, degrees, order=0, reshape=False),
    )
