"""Whether a dataset's split is the one behind the published figures.

Two published facts depend on the split. The published code normalises by the mean of the training
and of the test images; and the printed accuracy, specificity and sensitivity give the lesions'
share of the test pixels (`vmunet.data.checks.printed`). Both are compared with the images, and with
what random splits of the same images into parts of the same sizes would give.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np

from vmunet.data.checks.facts import SUBSETS, MeasuredDataset
from vmunet.data.checks.findings import Finding
from vmunet.data.checks.printed import Printed, lesion_share
from vmunet.data.isic.official import DATASETS

WHOLE = ("file", "http", "prepared")  # the sources of all images of a dataset
# Of the real ISIC 2017, reducing the images to 128 px or enlarging them to 512 px moves the means
# by up to 0.14, because levels are rounded.
NEAR = 0.5  # gray levels
NEAR_SHARE = 0.001  # of the pixels: resizing and thresholding masks moves their share


@dataclass(frozen=True)
class SplitCheck:
    """The comparison for one dataset.

    Attributes:
        source: of its images.
        means, published: of all pixels and channels of the training and the test images, 0..255,
            each image counting the same.
        spread: standard deviation of the difference of the two means over random splits.
        lesion: mean share of the test images that their masks cover, 0..1.
        implied: the interval of this share that the printed scores leave open.
        random_lesion: mean and standard deviation of the share over random splits.
    """

    dataset: str
    source: str
    means: Mapping[str, float]
    published: Mapping[str, float]
    spread: float
    lesion: float
    implied: tuple[float, float]
    random_lesion: tuple[float, float]

    @property
    def agrees(self) -> bool:
        low, high = self.implied
        return low - NEAR_SHARE <= self.lesion <= high + NEAR_SHARE and all(
            abs(self.means[part] - self.published[part]) <= NEAR for part in SUBSETS
        )

    @property
    def sentence(self) -> str:
        """The comparison in words."""
        (train, test), (its_train, its_test) = (
            [means[part] for part in SUBSETS] for means in (self.means, self.published)
        )
        verdict = "is" if self.agrees else "is not"
        mean, deviation = self.random_lesion
        return (
            f"The split {verdict} the one behind the published figures: training and test images "
            f"have the means {train:.3f} and {test:.3f}, the published code normalises by "
            f"{its_train:.3f} and {its_test:.3f} (the two differ by {train - test:.2f}, in random "
            f"splits by 0 ± {self.spread:.2f}); lesions cover {self.lesion:.4f} of the test "
            f"images, the printed accuracy, specificity and sensitivity imply "
            f"{self.implied[0]:.4f} to {self.implied[1]:.4f} (random splits: {mean:.3f} ± "
            f"{deviation:.3f})."
        )

    def findings(self) -> list[Finding]:
        """A line for each figure, whether it agrees or not, for findings.csv."""
        lines = [
            Finding("split", self.dataset, part, "", mean, f"mean {mean:.3f}, published {its:.3f}")
            for part, mean, its in ((p, self.means[p], self.published[p]) for p in SUBSETS)
        ]
        low, high = self.implied
        text = f"lesions cover {self.lesion:.4f}, the printed scores imply {low:.4f} to {high:.4f}"
        return [*lines, Finding("split", self.dataset, "test", "", self.lesion, text)]


def check_split(
    measured: MeasuredDataset, published: Mapping[str, float], rows: Sequence[Printed]
) -> SplitCheck | None:
    """Compare the split; None unless all images of the dataset are there and readable.

    Args:
        measured: the dataset.
        published: the means by which the published code normalises, `train` and `test`.
        rows: the printed scores of every model on the test images.
    """
    source, official = measured.manifest.get("source", ""), DATASETS[measured.dataset]
    brightness: dict[str, list[float]] = {part: [] for part in SUBSETS}
    areas: dict[str, list[float]] = {part: [] for part in SUBSETS}
    for facts in measured.facts:
        if facts.photo and facts.mask:
            brightness[facts.split].append(sum(facts.photo.channels) / 3)
            areas[facts.split].append(facts.mask.area)
    counts = [len(brightness[part]) for part in SUBSETS]
    if source not in WHOLE or counts != [official.n_train, official.n_test]:
        return None
    n_train, n_test = counts
    every_mean, every_area = (
        np.concatenate([values[part] for part in SUBSETS]) for values in (brightness, areas)
    )
    # Of a random part of n of N values: the mean's deviation is s sqrt(1/n - 1/N), and that of the
    # difference of both parts' means s sqrt(1/n + 1/(N - n)).
    spread = float(every_mean.std(ddof=1)) * sqrt(1 / n_train + 1 / n_test)
    deviation = float(every_area.std(ddof=1)) * sqrt(1 / n_test - 1 / (n_train + n_test))
    return SplitCheck(
        measured.dataset,
        source,
        {part: float(np.mean(brightness[part])) for part in SUBSETS},
        published,
        spread,
        float(np.mean(areas["test"])),
        lesion_share(rows),
        (float(every_area.mean()), deviation),
    )
