"""A canvas in patient space on which a CT volume is painted, one shape after the other.

Coordinates are millimetres in the patient's frame, as in NIfTI: x grows to the patient's right,
y to the front, z to the head. A shape is given by its depth: the distance in mm to its border,
positive inside. A voxel's value is a mixture by the depth at its centre (partial volume).
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.floating]
Point = Sequence[float]
MOST_BENT = 14.0  # mm: boxes around shapes are wider by this, so that bent shapes still fit


class Region(NamedTuple):
    """A shape inside a box of the canvas.

    Attributes:
        where: the box, as slices of the canvas's three axes.
        depth: float32, of the box's shape, in mm, positive inside the shape.
    """

    where: tuple[slice, slice, slice]
    depth: Field

    def within(self, other: Field) -> "Region":
        """The intersection of the region with a depth field of the whole canvas."""
        return Region(self.where, np.minimum(self.depth, other[self.where]))

    def rough(self, grain: Field, amount: float) -> "Region":
        """The region, its border moved by `amount` mm times a noise field of the whole canvas."""
        return Region(self.where, self.depth + np.float32(amount) * grain[self.where])


def smooth_noise(
    rng: np.random.Generator, shape: tuple[int, int, int], extent: Sequence[float], scale: float
) -> Field:
    """Noise of about unit deviation whose features are `scale` mm wide.

    It is drawn on a grid that depends only on the extent, so that a patient looks the same at any
    size.

    Args:
        rng: the generator that draws it.
        shape: of the result, voxels.
        extent: of the volume along the same axes, mm.
        scale: width of the features, mm.
    """
    cells = [max(2, round(length / scale)) + 3 for length in extent]
    coarse = rng.standard_normal((cells[2], cells[0] * cells[1]), np.float32)
    levels = cv2.resize(coarse, (cells[0] * cells[1], shape[2]), interpolation=cv2.INTER_CUBIC)
    noise = np.empty(shape, np.float32)
    for z, level in enumerate(levels.reshape(shape[2], cells[0], cells[1])):
        noise[:, :, z] = cv2.resize(level, shape[1::-1], interpolation=cv2.INTER_CUBIC)
    return noise * np.float32(1.5)


class Canvas:
    """A volume being painted, and the coordinates of its voxels.

    Attributes:
        axes: mm of the voxel centres along x, y and z, increasing.
        x, y, z: the coordinates in which shapes are drawn, mm, broadcastable to the volume. They
            are straight at first; `bend` deforms all shapes that are drawn after it.
        hu: float32 (x, y, z), air at first.
        label: uint8 (x, y, z), 0 at first.
    """

    def __init__(self, axes: tuple[Field, Field, Field]) -> None:
        self.axes = axes
        self.x: Field
        self.y: Field
        self.z: Field
        self.straighten()
        self.hu: Field = np.full(self.shape, -1000, np.float32)
        self.label: NDArray[np.uint8] = np.zeros(self.shape, np.uint8)

    @property
    def shape(self) -> tuple[int, int, int]:
        return (len(self.axes[0]), len(self.axes[1]), len(self.axes[2]))

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance between voxel centres, mm."""
        x, y, z = (float(axis[1] - axis[0]) for axis in self.axes)
        return x, y, z

    def straighten(self) -> None:
        """Draw in the patient's own coordinates again."""
        x, y, z = np.meshgrid(*self.axes, indexing="ij", sparse=True)
        self.x, self.y, self.z = x, y, z

    def bend(self, rng: np.random.Generator, amount: float, scale: float, fixed: Point) -> None:
        """Deform the coordinates smoothly, by about `amount` mm over features of `scale` mm.

        The line along z through `fixed` (x, y in mm) stays in place, and its surroundings nearly.
        """
        self.straighten()
        x, y, z = self.x, self.y, self.z
        away = 1 - np.exp(-((x - fixed[0]) ** 2 + (y - fixed[1]) ** 2) / 50**2)
        bent = []
        for straight in (x, y, z):
            push = amount * away * self.noise(rng, scale)
            bent.append((straight + np.clip(push, -MOST_BENT, MOST_BENT)).astype(np.float32))
        self.x, self.y, self.z = bent

    def noise(self, rng: np.random.Generator, scale: float) -> Field:
        """`smooth_noise` over the whole canvas, features `scale` mm wide."""
        extent = [float(axis[-1] - axis[0]) for axis in self.axes]
        return smooth_noise(rng, self.shape, extent, scale)

    def paint(self, region: Region, hu: float | Field, label: int = 0, over: int = -1) -> None:
        """Paint a shape over the earlier ones.

        Args:
            region: the shape.
            hu: HU of its material, one value or one per voxel of the region's box.
            label: label of the voxels of which more than half is in the shape.
            over: only voxels with this label are changed; all voxels if it is negative.
        """
        pitch = np.float32(np.prod(self.spacing) ** (1 / 3))
        cover = np.clip(region.depth / pitch + np.float32(0.5), 0, 1)
        if over >= 0:
            cover *= self.label[region.where] == over
        seen = self.hu[region.where]
        seen += cover * (np.asarray(hu, np.float32) - seen)
        self.label[region.where][cover > 0.5] = label

    def everywhere(self, depth: Field) -> Region:
        """A shape from a depth field of the whole canvas."""
        return Region((slice(None),) * 3, depth)

    def ellipsoid(self, centre: Point, radii: Point, turn: float = 0, lean: float = 0) -> Region:
        """An ellipsoid.

        Args:
            centre, radii: mm along x, y, z.
            turn: radians about z, from x to y.
            lean: mm that the centre moves along x for each mm along z.
        """
        reach = max(radii[:2]) + abs(lean) * radii[2]
        where = self._box(np.array([centre, centre]), (reach, reach, radii[2]))
        x, y, z = (v[where] - np.float32(c) for v, c in zip(self._xyz(), centre, strict=True))
        x = x - np.float32(lean) * z
        c, s = np.float32(np.cos(turn)), np.float32(np.sin(turn))
        sides = (c * x + s * y, c * y - s * x, z)
        squares = [(side / np.float32(r)) ** 2 for side, r in zip(sides, radii, strict=True)]
        steep = sum(square / np.float32(r * r) for square, r in zip(squares, radii, strict=True))
        distance = np.sqrt(squares[0] + squares[1] + squares[2])
        slope = np.sqrt(steep) / np.maximum(distance, np.float32(1e-3))
        return Region(where, (1 - distance) / np.maximum(slope, np.float32(1 / max(radii))))

    def tube(self, points: Sequence[Point], radii: Sequence[float]) -> Region:
        """A tube along straight pieces from point to point, its radius (mm) changing on the way."""
        path = np.asarray(points, np.float32)
        where = self._box(path, (max(radii),) * 3)
        x, y, z = (values[where] for values in self._xyz())
        depth = np.full(np.broadcast_shapes(x.shape, y.shape, z.shape), -1e3, np.float32)
        for i in range(len(path) - 1):
            piece = path[i + 1] - path[i]
            dx, dy, dz = x - path[i, 0], y - path[i, 1], z - path[i, 2]
            along = dx * piece[0] + dy * piece[1] + dz * piece[2]
            t = np.clip(along / max(float(piece @ piece), 1e-6), 0, 1)
            squares = (dx - t * piece[0]) ** 2 + (dy - t * piece[1]) ** 2 + (dz - t * piece[2]) ** 2
            radius = radii[i] + t * np.float32(radii[i + 1] - radii[i])
            np.maximum(depth, radius - np.sqrt(squares), out=depth)
        return Region(where, depth)

    def _xyz(self) -> list[Field]:
        return [np.broadcast_to(values, self.shape) for values in (self.x, self.y, self.z)]

    def _box(self, points: Field, reach: Sequence[float]) -> tuple[slice, slice, slice]:
        """Slices that hold the points with `reach` mm around them, also after bending."""
        box = []
        for axis, values, far, step in zip(self.axes, points.T, reach, self.spacing, strict=True):
            margin = far + MOST_BENT + step
            ends = [values.min() - margin, values.max() + margin]
            first, last = np.searchsorted(axis, ends)
            box.append(slice(int(first), int(last)))
        return box[0], box[1], box[2]
