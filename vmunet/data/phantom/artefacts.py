"""Objects over the skin in a dermoscopic photograph: hair, rulers, the lens.

Every function takes a float32 image (height, width, 3) in 0..1, RGB, and changes it in place.
Lengths are in pixels of that image; `unit` is its shorter side.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.floating]
SUBPIXEL_BITS = 4


def blend(image: Image, alpha: NDArray[np.floating], colour: NDArray[np.floating]) -> None:
    """Lay `colour` (3,) over the image with opacity `alpha` (height, width) in 0..1."""
    image += alpha[..., None] * (colour - image)


def strokes(
    shape: tuple[int, int], curves: list[NDArray[np.floating]], thickness: list[int]
) -> NDArray[np.floating]:
    """Antialiased coverage (height, width) in 0..1 of polylines given as (points, 2) in x, y."""
    canvas = np.zeros(shape, np.uint8)
    for curve, width in zip(curves, thickness, strict=True):
        points = np.round(curve * 2**SUBPIXEL_BITS).astype(np.int32)
        cv2.polylines(canvas, [points], False, 255, width, cv2.LINE_AA, SUBPIXEL_BITS)
    return canvas.astype(np.float32) / 255


def _bend(
    start: NDArray[np.floating], angle: float, length: float, bow: float, points: int = 14
) -> NDArray[np.floating]:
    """A quadratic Bezier curve of `points` points that leaves its chord by `bow` pixels."""
    along = np.array([np.cos(angle), np.sin(angle)])
    across = np.array([-along[1], along[0]])
    t = np.linspace(0, 1, points)[:, None]
    control = start + along * length / 2 + across * bow * 2
    end = start + along * length
    curve = (1 - t) ** 2 * start + 2 * t * (1 - t) * control + t**2 * end
    return curve.astype(np.float32)


def add_hair(image: Image, rng: np.random.Generator) -> None:
    """Dark strands in roughly one direction across the image, or the stubble of shaved skin."""
    height, width = image.shape[:2]
    unit = min(height, width)
    stubble = rng.random() < 0.25
    count = int(rng.integers(12, 40) if stubble else rng.integers(4, 22))
    combed = rng.uniform(0, 2 * np.pi)
    curves, thickness = [], []
    for _ in range(count):
        angle = combed + rng.normal(0, 0.9 if stubble else 0.45)
        length = unit * (rng.uniform(0.04, 0.12) if stubble else rng.uniform(0.35, 1.3))
        centre = rng.uniform(0, 1, 2) * (width, height)
        start = centre - np.array([np.cos(angle), np.sin(angle)]) * length / 2
        curves.append(_bend(start, angle, length, length * rng.normal(0, 0.1)))
        thickness.append(2 if rng.random() < (unit - 80) / 600 else 1)
    colour = np.array([0.16, 0.11, 0.09]) * rng.uniform(0.4, 2.0)
    alpha = strokes((height, width), curves, thickness) * rng.uniform(0.55, 0.95)
    shadow = cv2.GaussianBlur(alpha, (0, 0), 1.2)
    image *= 1 - 0.15 * shadow[..., None]
    blend(image, alpha, colour.astype(np.float32))


def add_ruler(image: Image, rng: np.random.Generator) -> None:
    """A millimetre scale near the rim: a line, ticks on one side of it, every fifth longer."""
    height, width = image.shape[:2]
    unit = min(height, width)
    length = unit * rng.uniform(0.35, 0.6)
    angle = rng.choice([0.0, 0.0, -0.6, -0.7, 0.5]) + rng.normal(0, 0.05)
    along = np.array([np.cos(angle), np.sin(angle)])
    across = np.array([along[1], -along[0]])
    side = 1 if rng.random() < 0.8 else -1
    centre = np.array([width * rng.uniform(0.3, 0.7), height * (0.5 + side * 0.38)])
    start = centre - along * length / 2
    ticks = int(rng.integers(9, 13))
    curves = [np.stack([start, start + along * length])]
    for tick in range(ticks + 1):
        foot = start + along * length * tick / ticks
        reach = unit * (0.045 if tick % 5 == 0 else 0.028)
        curves.append(np.stack([foot, foot + across * reach]))
    alpha = strokes((height, width), curves, [1] * len(curves)) * rng.uniform(0.45, 0.85)
    blend(image, alpha, np.full(3, rng.uniform(0.12, 0.3), np.float32))


def add_vignette(image: Image, rng: np.random.Generator) -> None:
    """The round field of view of the dermatoscope: dark corners, their edge sharp or soft."""
    height, width = image.shape[:2]
    y, x = np.ogrid[:height, :width]
    centre = np.array([width, height]) * (0.5 + rng.normal(0, 0.025, 2))
    radius = width * rng.uniform(0.5, 0.58)
    distance = np.sqrt((x - centre[0]) ** 2 + (y - centre[1]) ** 2).astype(np.float32) / radius
    edge = float(rng.choice([0.015, 0.03, 0.15]))
    inside = 1 / (1 + np.exp(np.clip((distance - 1) / edge, -30, 30)))
    inside *= 1 - rng.uniform(0.05, 0.3) * np.clip(distance, 0, 1) ** 3
    rim = np.array([0.05, 0.05, 0.08]) * rng.uniform(0.2, 1.5)
    blend(image, (1 - inside).astype(np.float32), rim.astype(np.float32))
