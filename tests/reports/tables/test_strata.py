"""Scores by parts of the test images, from the columns of per_image.csv."""

import csv
import math
from types import SimpleNamespace

import numpy as np
import pytest

from reports.make.results.strata import UNKNOWN, read_strata
from tests.helpers.tables import Run
from vmunet.errors import InputError
from vmunet.evaluation.few_units import LEAST
from vmunet.evaluation.metrics import COUNTS

LIMITS = {"contrast": 15, "hair": 0.05}
IMAGES = 9
FACTS = {
    "in_training": [1, 0, 0, 0, 0, 0, 0, 0, 1],
    "lesion_share": [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1],
    "contrast": ["", 14, 15, 16, 17, 18, 19, 20, 21],
    "hair": [0.05] * IMAGES,
}


def row(seed, index):
    tp, dice = 10 + index + seed, (index + seed) / 20
    scores = {"dice": dice, "iou": dice / 2, "nsd": dice / 4, "hd95_px": index or ""}
    return {
        "id": f"i{index}",
        **{f"paper_{name}": value for name, value in zip(COUNTS, (tp, 3, 4, 50), strict=True)},
        **{f"native_size_{name}": value for name, value in scores.items()},
        **{name: values[index] for name, values in FACTS.items()},
    }


def write(root, seed, rows):
    path = root / f"{seed}" / "per_image.csv"
    path.parent.mkdir()
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    run = Run("isic17-64", "base", "paper", seed)
    return SimpleNamespace(path=f"{seed}/metrics.json", run=run)


def test_each_part_has_the_scores_of_its_own_images(tmp_path):
    results = [write(tmp_path, s, [row(s, i) for i in range(IMAGES)]) for s in (1, 2)]
    strata = {(s.by, s.part): s for s in read_strata(tmp_path, results, LIMITS)}
    parts = {
        ("all", "all"): range(9),
        ("training", "not trained on"): range(1, 8),
        ("training", "trained on too"): (0, 8),
        ("size", "over 63.3%"): range(3),
        ("contrast", "pale, below 15"): (1,),
        ("contrast", "15 and more"): range(2, 9),  # an undefined contrast is in neither part
        ("hair", "over 5% of the image"): (),
        ("hair", "up to 5%"): range(9),
    }
    for name, images in parts.items():
        stratum = strata[name]
        assert stratum.images == len(images)
        if not images:
            assert stratum.miou is stratum.means["mean_dice"].value is None
            continue
        dice = np.mean([(i + seed) / 20 for i in images for seed in (1, 2)])
        assert stratum.means["mean_dice"].value == pytest.approx(dice)
        assert stratum.means["nsd"].value == pytest.approx(dice / 4)
        defined = [i for i in images if i] or [math.nan]
        assert stratum.means["hd95_px"].value == pytest.approx(np.mean(defined))
        tp = [sum(10 + i + seed for i in images) for seed in (1, 2)]
        mious = [t / (t + 7 * len(images)) for t in tp]
        assert stratum.miou == pytest.approx(np.mean(mious))
        drawn = stratum.means["mean_dice"]
        if len(images) < LEAST:
            assert drawn.low is drawn.high is None
        else:
            assert drawn.low < drawn.value < drawn.high


def test_an_older_file_gives_no_number_and_other_images_are_refused(tmp_path):
    rows = [row(1, i) for i in range(IMAGES)]
    new = write(tmp_path, 1, rows)
    old = [{name: value for name, value in one.items() if name != "hair"} for one in rows]
    assert read_strata(tmp_path, [new, write(tmp_path, 2, old)], LIMITS) == [UNKNOWN]
    other = write(tmp_path, 3, rows[1:])
    with pytest.raises(InputError, match=r"3/per_image.csv: other images than in 1/per_image.csv"):
        read_strata(tmp_path, [new, other], LIMITS)
