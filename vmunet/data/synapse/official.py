"""The facts of the Synapse multi-organ dataset (BTCV), as the published protocol uses it.

The raw set is the abdomen part of the challenge "Multi-Atlas Labeling Beyond the Cranial Vault"
(synapse.org, syn3193805): 30 labelled CT volumes. The split of 18 and 12 cases, the 8 of 13
organs and their order are TransUNet's, which the paper follows (section IV-A).
"""

import numpy as np
from numpy.typing import NDArray

CLASSES = (
    "aorta",
    "gallbladder",
    "kidney-left",
    "kidney-right",
    "liver",
    "pancreas",
    "spleen",
    "stomach",
)  # labels 1 to 8
BTCV = (
    "spleen",
    "kidney-right",
    "kidney-left",
    "gallbladder",
    "esophagus",
    "liver",
    "stomach",
    "aorta",
    "inferior vena cava",
    "portal and splenic vein",
    "pancreas",
    "adrenal-right",
    "adrenal-left",
)  # labels 1 to 13 of the raw volumes

WINDOW = (-125.0, 275.0)  # HU that become 0 and 1

# Slices of each training volume: all of them train, 2,211 together.
TRAIN_SLICES = {
    "case0005": 117,
    "case0006": 131,
    "case0007": 163,
    "case0009": 149,
    "case0010": 148,
    "case0021": 143,
    "case0023": 96,
    "case0024": 124,
    "case0026": 131,
    "case0027": 88,
    "case0028": 89,
    "case0030": 153,
    "case0031": 93,
    "case0033": 104,
    "case0034": 98,
    "case0037": 99,
    "case0039": 90,
    "case0040": 195,
}
TRAIN = tuple(TRAIN_SLICES)
TEST = tuple(f"case{number:04}" for number in (1, 2, 3, 4, 8, 22, 25, 29, 32, 35, 36, 38))


def organs_of(btcv: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The 8 organs (labels 0..8) of a raw label map (0..13); the other five become background."""
    table = np.zeros(len(BTCV) + 1, np.uint8)
    for label, name in enumerate(BTCV, start=1):
        if name in CLASSES:
            table[label] = CLASSES.index(name) + 1
    return table[btcv]
