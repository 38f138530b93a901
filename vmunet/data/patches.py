"""Patches of CT volumes as torch Datasets, for models of three dimensions.

Every slice is resized to the view's size as `vmunet.data.slice_dataset` resizes it, and the depth
stays as it is. The volumes are resized once, into a temporary folder ($TMPDIR), and mapped from
there, so that neither their number nor the number of worker processes costs memory.
"""

import math
import tempfile
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from vmunet.data.slice_dataset import (
    ORDERS,
    Labels,
    Slice,
    draw_movement,
    open_case,
    turn,
)
from vmunet.data.slices import Resize, resize_labels, resize_slice
from vmunet.errors import InputError
from vmunet.protocols import Protocol
from vmunet.settings import PUBLISHED, Augmentation
from vmunet.threads import in_threads

LONGEST = 64  # side of a patch, voxels
OFFSET_STREAM = 0x3D  # separates an epoch's draw from those of its patches

Sides = tuple[int, int, int]  # depth, height, width


def patch_sides(depths: Sequence[int], size: int, stride: int) -> Sides:
    """The sides of a view's patches: up to 64 voxels, multiples of the model's stride.

    Args:
        depths: slices of each training volume. The shortest limits a patch's depth; a volume with
            fewer slices than a stride is padded.
        size: height and width of the resized slices, px.
        stride: of the model.

    Raises:
        InputError: the slices are smaller than a stride, or a volume is empty.
    """
    if size < stride:
        raise InputError(
            f"slices of {size} px are smaller than the smallest patch of this model, {stride} px; "
            "take a view of a larger size"
        )
    if min(depths, default=0) < 1:
        raise InputError("a training volume has no slices; leave it out")
    depth, side = (patch_side(n, stride) for n in (min(depths), size))
    return depth, side, side


def patch_side(length: int, stride: int) -> int:
    """A patch's side along an axis of `length` voxels: a multiple of the model's stride."""
    return max(stride, min(LONGEST, length) // stride * stride)


def patches_of(slices: int, size: int, sides: Sequence[int]) -> int:
    """How many patches have the voxels of this many slices of `size` px; at least one."""
    return max(1, round(slices * size**2 / math.prod(sides)))


class Volume(NamedTuple):
    """A volume with slices of the view's size.

    image: float32 (depth, size, size), as of `SliceDataset`; a padded volume has zeros at its ends.
    labels: uint8 of the same shape.
    """

    image: Slice
    labels: Labels


class Volumes:
    """Cases of a view, resized, padded and mapped: `[i] -> Volume`.

    Args:
        folder: data/arrays/<view>.
        cases: their names, in order.
        classes: the number of classes, without the background.
        size: side of the resized slices, px.
        resize: how they are resized.
        depth: the fewest slices; a volume with fewer gets zeros at both ends, the lowest value.

    Attributes:
        slices: of each case, without the padding.
        counts: (depth, classes + 1) of each case: the voxels of each label in each slice.

    Raises:
        InputError: the arrays of a case are missing or do not fit one another, or hold a label of
            no class.
    """

    def __init__(
        self,
        folder: Path,
        cases: Sequence[str],
        classes: int,
        size: int,
        resize: Resize,
        depth: int,
    ) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="vmunet-")
        self._folder = Path(self._temporary.name)
        self.slices: list[int] = []
        self.counts: list[NDArray[np.int64]] = []

        def write(number: int) -> tuple[int, NDArray[np.int64]]:
            image, labels = open_case(folder, cases[number])
            shape, missing = (size, size), max(0, depth - len(image))
            ends = ((missing // 2, missing - missing // 2), (0, 0), (0, 0))
            planes = [resize_labels(np.asarray(plane), shape, resize) for plane in labels]
            resized = np.pad(np.stack(planes), ends)
            # Checked here, because on a GPU the loss would end the process without a message.
            if (highest := int(resized.max())) > classes:
                raise InputError(
                    f"{folder}: {cases[number]} has label {highest} and there are {classes} "
                    "classes; make the arrays again"
                )
            image_file, labels_file = self._files(number)
            slices = np.stack([resize_slice(plane, size, resize) for plane in image])
            np.save(image_file, np.pad(slices, ends))
            np.save(labels_file, resized)
            counts = [np.bincount(plane.ravel(), minlength=classes + 1) for plane in resized]
            return len(image), np.stack(counts)

        for slices, counts in in_threads(write, range(len(cases)), "resizing volumes"):
            self.slices.append(slices)
            self.counts.append(counts)
        self._open()

    def _files(self, number: int) -> tuple[Path, Path]:
        return self._folder / f"{number}-image.npy", self._folder / f"{number}-labels.npy"

    def _open(self) -> None:
        self._volumes = [
            Volume(*(np.load(path, mmap_mode="r") for path in self._files(number)))
            for number in range(len(self.slices))
        ]

    def __getstate__(self) -> dict[str, Any]:
        # A worker maps the files itself, and does not delete them when it ends.
        return {k: v for k, v in self.__dict__.items() if k not in ("_volumes", "_temporary")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def __len__(self) -> int:
        return len(self.slices)

    def __getitem__(self, number: int) -> Volume:
        return self._volumes[number]


class PatchDataset(Dataset[tuple[Tensor, Tensor]]):
    """Random patches to train on: `[i] -> (image, labels)`.

    Image float32 (1, depth, height, width), labels int64 of this shape without the channel. An
    epoch has as many patches as have the voxels of the volumes' slices. They are spread over the
    volumes by their slices. Every second one contains a labelled voxel: one of a class that is
    drawn among those of the volume; it is the patch's centre, unless the patch would leave the
    volume there. The other patches lie anywhere.

    Patches are turned within their slices, as slices are (`draw_movement`), all slices of a patch
    alike; the rotation is about the labelled voxel, or the patch's centre, and fills the patch from
    what lies around it.

    Patch i in epoch e is a pure function of (seed, e, i): any number of workers, any order and any
    resume point give the same bits.

    Args:
        volumes: to take patches from; at least as deep as a patch.
        sides: of the patches, with height and width alike.
        protocol: its `slice_turns` and `rotation_image` are used.
        seed: the run's.
        settings: the probabilities, and the largest angle.
    """

    def __init__(
        self,
        volumes: Volumes,
        sides: Sides,
        protocol: Protocol,
        seed: int = 0,
        settings: Augmentation = PUBLISHED,
    ) -> None:
        self.volumes, self.sides = volumes, sides
        self.protocol, self.seed, self.settings = protocol, seed, settings
        self._last = np.cumsum(volumes.slices)  # the slices of each volume and those before it
        self._count = patches_of(int(self._last[-1]), volumes[0].image.shape[-1], sides)
        # In shared memory: workers that outlive an epoch see `set_epoch` too.
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return self._count

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch's patches to draw; call it before iterating over a loader."""
        self._epoch[0] = epoch

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        epoch = int(self._epoch[0])
        random = np.random.default_rng((self.seed, epoch, index))
        number = self._volume_of(epoch, index)
        volume = self.volumes[number]
        # In turns, so that the share is a half exactly, and of every index over two epochs.
        voxel = None
        if (epoch + index) % 2 == 0:
            voxel = labelled_voxel(volume.labels, self.volumes.counts[number], random)
        room = [n - side for n, side in zip(volume.image.shape, self.sides, strict=True)]
        if voxel is None:
            start = [int(random.integers(most + 1)) for most in room]
            voxel = tuple(a + side // 2 for a, side in zip(start, self.sides, strict=True))
        else:
            centred = [at - side // 2 for at, side in zip(voxel, self.sides, strict=True)]
            start = [min(max(0, a), most) for a, most in zip(centred, room, strict=True)]
        movement = draw_movement(self.protocol, random, self.settings)
        order = ORDERS[self.protocol.rotation_image]
        image = cut(volume.image, start, self.sides, voxel, movement.degrees, order)
        labels = cut(volume.labels, start, self.sides, voxel, movement.degrees, 0)
        if movement.axis is not None:
            image, labels = turn(image, movement), turn(labels, movement)
        return _tensors(image, labels)

    def _volume_of(self, epoch: int, index: int) -> int:
        """The volume at an even step through all slices, which starts anew in each epoch."""
        offset = np.random.default_rng((OFFSET_STREAM, self.seed, epoch)).random()
        at = (index + offset) / len(self) * self._last[-1]
        return min(int(np.searchsorted(self._last, at, side="right")), len(self.volumes) - 1)


class TileDataset(Dataset[tuple[Tensor, Tensor]]):
    """Patches that cover whole volumes, unchanged: `[i] -> (image, labels)`, as `PatchDataset`.

    They stand side by side; the last one of an axis is moved back into the volume.

    Args:
        volumes: to cover; at least as deep as a patch.
        sides: of the patches.
    """

    def __init__(self, volumes: Volumes, sides: Sides) -> None:
        self.volumes, self.sides = volumes, sides
        self._tiles = [
            (number, start)
            for number in range(len(volumes))
            for start in product(*map(starts, volumes[number].image.shape, sides))
        ]

    def __len__(self) -> int:
        return len(self._tiles)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        number, start = self._tiles[index]
        return _tensors(*(cut(part, start, self.sides) for part in self.volumes[number]))


def starts(length: int, side: int) -> list[int]:
    """Where the tiles of an axis begin."""
    return [*range(0, length - side, side), length - side]


def labelled_voxel(
    labels: Labels, counts: NDArray[np.int64], random: np.random.Generator
) -> tuple[int, ...] | None:
    """Draw a class among those of a volume, then one of its voxels; None if there is no class.

    Args:
        labels: (depth, height, width).
        counts: (depth, classes + 1), the voxels of each label in each slice.
    """
    present = np.flatnonzero(counts[:, 1:].sum(0)) + 1
    if not len(present):
        return None
    label = int(present[random.integers(len(present))])
    upto = counts[:, label].cumsum()  # voxels in this slice and those before it
    rank = int(random.integers(upto[-1]))
    row = int(np.searchsorted(upto, rank, side="right"))
    places = np.flatnonzero(labels[row] == label)
    place = int(places[rank - int(upto[row] - counts[row, label])])
    return row, *divmod(place, labels.shape[2])


def cut(
    volume: NDArray,
    start: Sequence[int],
    sides: Sequence[int],
    pivot: Sequence[int] = (0, 0, 0),
    degrees: float | None = None,
    order: int = 0,
) -> NDArray:
    """A patch of a volume, rotated within its slices if `degrees` says so.

    Args:
        volume: (depth, height, width).
        start: the patch's first voxel.
        sides: of the patch.
        pivot: the voxel that stays in its place.
        degrees: of the rotation, as `scipy.ndimage.rotate` counts them.
        order: of the spline; outside of the volume are zeros.

    Returns:
        An array of its own, of the shape `sides` and the volume's type.
    """
    first, last = start[0], start[0] + sides[0]
    if degrees is None:
        window = [slice(a, a + side) for a, side in zip(start[1:], sides[1:], strict=True)]
        return np.array(volume[first:last, window[0], window[1]])
    from scipy import ndimage

    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    matrix = np.array([[1, 0, 0], [0, cosine, sine], [0, -sine, cosine]])
    at = np.array(pivot) - start  # in the patch
    source = np.array([at[0], *pivot[1:]])  # in the patch's slices
    # grid-constant: a pivot at the edge is inside, whatever the last bits of its place are.
    return ndimage.affine_transform(
        np.asarray(volume[first:last]),
        matrix,
        source - matrix @ at,
        output_shape=tuple(sides),
        order=order,
        mode="grid-constant",
    )


def _tensors(image: NDArray, labels: NDArray) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(image)[None], torch.from_numpy(labels.astype(np.int64))
