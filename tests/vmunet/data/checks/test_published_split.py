"""Whether a split is the one behind published figures: the scores' algebra, and the comparison."""

import os
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from reports.make.results.views import load_yaml
from stages.check import compared
from tests.helpers.paths import ROOT
from vmunet.data.checks import published_split
from vmunet.data.checks.facts import Mask, MeasuredDataset, PairFacts, Photo, measure
from vmunet.data.checks.printed import Shares, bounds, lesion_share, shares
from vmunet.data.checks.published_split import SplitCheck, check_split
from vmunet.data.isic.official import DATASETS
from vmunet.data.isic.raw import write_raw

MIRROR = os.environ.get("VMUNET_MIRROR")
PUBLISHED = load_yaml(ROOT / "reports/published.yaml")
N_TRAIN, N_TEST = 30, 13
SHARE = 0.2  # of the test pixels


def printed(matrix: Shares) -> tuple[float, float, float]:
    """Accuracy, specificity and sensitivity of a confusion matrix, as a paper prints them."""
    scores = (
        matrix.tp + matrix.tn,
        matrix.tn / (matrix.tn + matrix.fp),
        matrix.tp / (matrix.tp + matrix.fn),
    )
    acc, spe, sen = (round(100 * score, 2) for score in scores)
    return acc, spe, sen


@pytest.mark.parametrize("seed", range(20))
def test_printed_scores_give_their_confusion_matrix_up_to_rounding(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lesion, sen, spe = rng.uniform(0.1, 0.4), rng.uniform(0.7, 0.92), rng.uniform(0.94, 0.99)
    matrix = Shares(sen * lesion, (1 - sen) * lesion, (1 - spe) * (1 - lesion), spe * (1 - lesion))
    exact = shares(matrix.tp + matrix.tn, spe, sen)
    np.testing.assert_allclose(exact, matrix, rtol=1e-9)
    assert sum(exact) == pytest.approx(1)
    row = printed(matrix)
    low, high = bounds(row)
    assert all(a <= b <= c for a, b, c in zip(low, matrix, high, strict=True))
    for steps in product((-0.005, 0, 0.005), repeat=3):  # no scores that round to these lie outside
        inside = shares(*((value + step) / 100 for value, step in zip(row, steps, strict=True)))
        assert (np.array(low) <= np.array(inside) + 1e-12).all()
        assert (np.array(high) >= np.array(inside) - 1e-12).all()


def test_rows_of_one_test_set_narrow_its_lesion_share() -> None:
    rows = [
        printed(Shares(sen * SHARE, (1 - sen) * SHARE, (1 - spe) * 0.8, spe * 0.8))
        for sen, spe in ((0.85, 0.97), (0.8, 0.99), (0.9, 0.96))
    ]
    low, high = lesion_share(rows)
    assert low <= SHARE <= high
    widths = [one - other for other, one in (lesion_share([row]) for row in rows)]
    assert high - low < min(widths) + 1e-12


def made(seed: int = 0, source: str = "file", n_test: int = N_TEST) -> MeasuredDataset:
    """A dataset whose test images are darker and have smaller lesions than the others."""
    rng = np.random.default_rng(seed)

    def pair(split: str, number: int) -> PairFacts:
        level = (160 if split == "train" else 148) + rng.normal(0, 5)
        channels = (level + 20, level, level - 20)
        thumbnail = np.zeros((64, 64), np.uint8)
        photo = Photo(256, 256, "", level, 30, 20, channels, thumbnail)
        area = float(np.clip((0.3 if split == "train" else SHARE) + rng.normal(0, 0.03), 0, 1))
        mask = Mask(256, 256, "", area, 1, 0, 0, thumbnail > 0)
        return PairFacts("isic17", split, f"ISIC_{number:07d}", photo, mask, ())

    numbers = {"train": range(N_TRAIN), "test": range(N_TRAIN, N_TRAIN + n_test)}
    facts = [pair(split, number) for split, ids in numbers.items() for number in ids]
    return MeasuredDataset("isic17", {"source": source}, facts, [])


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = replace(DATASETS["isic17"], n_training=40, n_validation=3, n_train=N_TRAIN)
    monkeypatch.setattr(published_split, "DATASETS", {"isic17": dataset})


def published_of(measured: MeasuredDataset) -> tuple[dict[str, float], list]:
    """Means and scores that a publication on this very split would print."""
    of = {part: [f for f in measured.facts if f.split == part] for part in ("train", "test")}
    means = {
        part: round(float(np.mean([f.photo.channels for f in facts if f.photo])), 3)
        for part, facts in of.items()
    }
    share = float(np.mean([f.mask.area for f in of["test"] if f.mask]))
    matrix = Shares(0.9 * share, 0.1 * share, 0.02 * (1 - share), 0.98 * (1 - share))
    return means, [printed(matrix)]


def test_the_published_split_agrees_and_another_one_does_not(small: None) -> None:
    measured = made()
    means, rows = published_of(measured)
    check = check_split(measured, means, rows)
    assert isinstance(check, SplitCheck)
    assert check.agrees
    assert check.sentence.startswith("The split is the one behind the published figures: ")
    assert [(f.kind, f.split) for f in check.findings()] == [
        *(("split", "train"), ("split", "test"), ("split", "test"))
    ]
    order = np.random.default_rng(1).permutation(len(measured.facts))  # a random split
    parts = ["train"] * N_TRAIN + ["test"] * N_TEST
    facts = [replace(measured.facts[i], split=p) for i, p in zip(order, parts, strict=True)]
    other = check_split(replace(measured, facts=facts), means, rows)
    assert isinstance(other, SplitCheck)
    assert not other.agrees
    assert " is not the one " in other.sentence


def test_the_spread_is_that_of_random_splits(small: None) -> None:
    measured = made()
    check = check_split(measured, *published_of(measured))
    assert isinstance(check, SplitCheck)
    levels = np.array([f.photo.brightness for f in measured.facts if f.photo])
    areas = np.array([f.mask.area for f in measured.facts if f.mask])
    rng = np.random.default_rng(2)
    orders = [rng.permutation(len(levels)) for _ in range(4000)]
    differences = [levels[o[:N_TRAIN]].mean() - levels[o[N_TRAIN:]].mean() for o in orders]
    lesions = [areas[o[N_TRAIN:]].mean() for o in orders]
    assert check.spread == pytest.approx(np.std(differences), rel=0.05)
    assert check.random_lesion == pytest.approx((np.mean(lesions), np.std(lesions)), rel=0.05)


def test_of_a_part_of_the_data_nothing_is_said(small: None) -> None:
    means, rows = published_of(made())
    assert check_split(made(source="sample"), means, rows) is None
    assert check_split(made(source="phantom"), means, rows) is None
    assert check_split(made(n_test=N_TEST - 1), means, rows) is None


@pytest.mark.slow
@pytest.mark.skipif(not MIRROR, reason="needs VMUNET_MIRROR")
def test_the_split_of_the_real_images_is_the_published_one(tmp_path: Path) -> None:
    write_raw(DATASETS["isic17"], tmp_path / "isic17", "file", mirror=MIRROR)
    (check,) = compared([measure("isic17", tmp_path / "isic17")], PUBLISHED)
    assert check.agrees
    assert check.means == pytest.approx({"train": 159.921, "test": 148.433}, abs=5e-4)
    assert check.lesion == pytest.approx(0.1674, abs=5e-5)
    assert check.spread == pytest.approx(1.17, abs=5e-3)
    assert check.random_lesion == pytest.approx((0.193, 0.006), abs=1e-3)
