"""The patient of a CT phantom: build, organs by name, and their materials.

Positions are given as (u, v, w): u and v in half-widths and half-depths of the abdominal cavity (to
the patient's right, to the front), w in mm towards the head from the level of the pancreas. HU are
those of the portal venous phase.
"""

from dataclasses import dataclass

import numpy as np

LABELS = {  # BTCV's numbers
    "spleen": 1,
    "right kidney": 2,
    "left kidney": 3,
    "gallbladder": 4,
    "esophagus": 5,
    "liver": 6,
    "stomach": 7,
    "aorta": 8,
    "inferior vena cava": 9,
    "portal and splenic vein": 10,
    "pancreas": 11,
    "right adrenal gland": 12,
    "left adrenal gland": 13,
}
MATERIALS = {  # HU: mean and deviation between patients
    "fat": (-102, 5),
    "muscle": (57, 4),
    "bowel": (72, 8),
    "liver": (110, 7),
    "spleen": (121, 7),
    "cortex": (192, 12),
    "medulla": (150, 10),
    "gallbladder": (10, 5),
    "stomach": (88, 7),
    "aorta": (160, 11),
    "cava": (146, 10),
    "portal": (164, 10),
    "pancreas": (96, 7),
    "adrenal": (82, 7),
    "esophagus": (70, 7),
    "marrow": (205, 25),
    "cortical bone": (480, 40),
}
AIR, LUNG = -990, -830
WALL = 12  # mm of muscle around the cavity


@dataclass(frozen=True)
class Patient:
    """One body.

    Attributes:
        width, depth: half-axes of the abdominal cavity, mm.
        fat: thickness of the fat under the skin, mm.
        stretch: the factor of lengths towards the head.
        gallbladder: whether there is one.
        hu: HU of each of MATERIALS.
    """

    width: float
    depth: float
    fat: float
    stretch: float
    gallbladder: bool
    hu: dict[str, float]

    @property
    def scale(self) -> float:
        """The factor of organ sizes, which are given in mm for a cavity 270 mm wide."""
        return self.width / 135

    @property
    def body(self) -> tuple[float, float, float]:
        """Half-width and half-depth of the whole body, and the y of its middle, mm."""
        front, back = self.depth + 9 + self.fat, self.depth + 27 + 0.4 * self.fat
        return self.width + WALL + self.fat, (front + back) / 2, (front - back) / 2

    @property
    def spine(self) -> tuple[float, float]:
        """x and y of the vertebral bodies, mm."""
        return 0.0, -0.42 * self.depth

    def at(self, u: float, v: float, w: float) -> tuple[float, float, float]:
        """A position in mm."""
        return u * self.width, v * self.depth, w * self.stretch


def draw_patient(rng: np.random.Generator, gallbladder: bool) -> Patient:
    """Draw a patient of ordinary build."""
    width = rng.uniform(118, 142)
    hu = {name: rng.normal(0, 1) for name in MATERIALS}
    for name, (mean, deviation) in MATERIALS.items():
        hu[name] = float(mean + deviation * np.clip(hu[name], -1.8, 1.8))
    return Patient(
        width=width,
        depth=width * rng.uniform(0.68, 0.79),
        fat=rng.uniform(6, 27),
        stretch=rng.uniform(0.86, 1.02),
        gallbladder=gallbladder,
        hu=hu,
    )
