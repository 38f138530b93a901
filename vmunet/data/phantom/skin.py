"""The skin of phantoms: its tone under light, its pigments, and the noise in both."""

import cv2
import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.floating]

SKIN_TONES = np.array(
    [
        [0.93, 0.79, 0.73],  # fair, pink
        [0.84, 0.68, 0.58],  # tan
        [0.94, 0.90, 0.86],  # overexposed
        [0.66, 0.54, 0.51],  # dim
        [0.70, 0.74, 0.86],  # polarised light, blue cast
        [0.90, 0.62, 0.55],  # flushed
        [0.62, 0.45, 0.36],  # brown
    ],
    np.float32,
)


def smooth_noise(rng: np.random.Generator, height: int, width: int, scale: float) -> Field:
    """Noise (height, width) of about unit deviation whose features are `scale` pixels wide."""
    cells = (max(2, round(height / scale)) + 3, max(2, round(width / scale)) + 3)
    coarse = rng.standard_normal(cells, np.float32)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) * np.float32(1.3)


def squeezed(noise: Field) -> Field:
    """Noise of unit deviation squeezed into 0..1."""
    return np.clip(noise * 0.3 + 0.5, 0, 1)


def skin_pigment(rng: np.random.Generator, height: int, width: int) -> tuple[Field, Field]:
    """Melanin and blood of the surroundings: mottling, furrows, freckles, flush, small vessels."""
    unit = min(height, width)
    melanin = 0.05 * smooth_noise(rng, height, width, unit / 3)
    melanin += 0.025 * smooth_noise(rng, height, width, unit / 12)
    melanin += rng.uniform(0.01, 0.04) * smooth_noise(rng, height, width, 2.2)
    stretched = smooth_noise(rng, height, width * 3, 4)[:, ::3]  # skin lines, finer across
    melanin += rng.uniform(0, 0.03) * (stretched if rng.random() < 0.5 else -np.abs(stretched))
    freckles = smooth_noise(rng, height, width, unit * rng.uniform(0.04, 0.12))
    melanin += float(rng.choice([0, 0.1, 0.35])) * np.clip(freckles - rng.uniform(1.6, 2.4), 0, 1.5)
    blood = 0.06 * smooth_noise(rng, height, width, unit / 3)
    flush = smooth_noise(rng, height, width, unit * rng.uniform(0.25, 0.6))
    blood += float(rng.choice([0, 0.08, 0.22])) * np.clip(flush - 0.3, 0, 1.5)
    vessels = 1 - np.abs(smooth_noise(rng, height, width, unit * 0.05)) * 2.5
    blood += float(rng.choice([0, 0, 0.08, 0.25])) * np.clip(vessels, 0, 1) * squeezed(flush)
    return np.maximum(melanin, -0.15), np.maximum(blood, -0.15)


def illuminated_skin(rng: np.random.Generator, height: int, width: int) -> Field:
    """Skin tone under light that falls off to one side, float32 (height, width, 3)."""
    first, second = SKIN_TONES[rng.integers(0, len(SKIN_TONES), 2)]
    share = rng.beta(0.5, 0.5)
    tone = (first * share + second * (1 - share)) * (1 + rng.normal(0, 0.03, 3))
    direction = rng.uniform(0, 2 * np.pi)
    y, x = np.ogrid[-0.5 : 0.5 : height * 1j, -0.5 : 0.5 : width * 1j]
    slope = np.cos(direction) * x + np.sin(direction) * y
    light = 1 - rng.uniform(0, 0.35) * (slope + 0.5) - rng.uniform(0, 0.25) * (x**2 + y**2)
    return light.astype(np.float32)[..., None] * tone.astype(np.float32)
