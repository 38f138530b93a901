"""The official facts and the rules that read the archives."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmunet.data.isic import official as isic
from vmunet.errors import InputError


@pytest.mark.parametrize(
    ("dataset", "n_train", "n_test"), [(isic.ISIC17, 1500, 650), (isic.ISIC18, 1886, 808)]
)
def test_the_papers_counts_follow_from_the_declared_ones(dataset, n_train, n_test):
    assert (dataset.n_train, dataset.n_test) == (n_train, n_test)


def test_four_archives_a_dataset_each_part_and_kind_once():
    for dataset in isic.DATASETS.values():
        parts = {(archive.part, archive.kind) for archive in dataset.archives}
        assert len(parts) == len(dataset.archives) == 4
        for archive in dataset.archives:
            assert archive.url.startswith("https://")
            assert archive.url.endswith("/" + archive.name)
            assert archive.sha256 is None or len(archive.sha256) == 64


def test_an_unknown_dataset_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match=r"isic19.*isic17.*isic18"):
        isic.dataset_named("isic19")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ISIC_0000001.jpg", "ISIC_0000001"),
        ("ISIC_0000001.JPG", "ISIC_0000001"),
        ("ISIC_0000001_superpixels.png", None),
        ("LICENSE.txt", None),
        ("ISIC-2017_Training_Data_metadata.csv", None),
    ],
)
def test_photographs_are_told_from_what_lies_beside_them(name, expected):
    assert isic.image_id(name) == expected


def test_masks_are_told_by_their_suffix():
    assert isic.mask_id("ISIC_0000001_segmentation.png") == "ISIC_0000001"
    assert isic.mask_id("ISIC_0000001.png") is None


def test_listing_passes_over_and_counts_strays(tmp_path):
    inner = tmp_path / "archive" / "inner"
    (inner / "__MACOSX").mkdir(parents=True)
    for name in ("a.jpg", "a_superpixels.png", "b.jpg", "LICENSE.txt", "._a.jpg", "__MACOSX/a.jpg"):
        (inner / name).touch()
    listing = isic.list_files(tmp_path / "archive", "images")
    assert (sorted(listing.files), listing.superpixels, listing.other) == (["a", "b"], 1, 3)


def test_two_files_of_one_id_are_refused(tmp_path):
    for name in ("a.jpg", "a.png"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"a\.jpg and a\.png"):
        isic.list_files(tmp_path, "images")


def test_an_archive_without_masks_says_what_it_expected(tmp_path):
    with pytest.raises(InputError, match=r"<id>_segmentation\.png"):
        isic.list_files(tmp_path, "masks")


def test_pairs_are_sorted_and_complete():
    images = {key: Path(f"{key}.jpg") for key in "ba"}
    masks = {key: Path(f"{key}_segmentation.png") for key in "ab"}
    assert [pair.id for pair in isic.pair_up(images, masks)] == ["a", "b"]


def test_an_image_without_a_mask_is_named():
    with pytest.raises(InputError, match=r"c\.jpg: this image has no mask.*1 more"):
        isic.pair_up({k: Path(f"{k}.jpg") for k in "acd"}, {"a": Path("a_segmentation.png")})


def test_a_mask_without_an_image_is_named():
    masks = {k: Path(f"{k}_segmentation.png") for k in "ab"}
    with pytest.raises(InputError, match=r"b_segmentation\.png: this mask has no image"):
        isic.pair_up({"a": Path("a.jpg")}, masks)


ids = st.sets(st.integers(0, 10**7 - 1).map("ISIC_{:07d}".format), min_size=2, max_size=40)


@given(ids, st.data())
def test_the_split_loses_no_id_repeats_none_and_ignores_the_order(every, data):
    every = sorted(every)
    validation = data.draw(st.sets(st.sampled_from(every), min_size=1, max_size=len(every) - 1))
    training = [key for key in every if key not in validation]
    n_train = data.draw(st.integers(1, len(training)))
    train, test = isic.split(data.draw(st.permutations(training)), validation, n_train)
    assert train == sorted(training)[:n_train]
    assert test == sorted(set(every) - set(train))


def test_an_id_in_both_parts_is_named():
    with pytest.raises(InputError, match=r"b: .*training and in the validation"):
        isic.split(["a", "b"], ["b", "c"], 1)


@pytest.mark.parametrize("n_train", [0, 3, -1])
def test_an_impossible_n_train_is_refused(n_train):
    with pytest.raises(InputError, match=f"n_train is {n_train}, with 2 training"):
        isic.split(["a", "b"], ["c"], n_train)


def test_other_counts_than_the_official_ones_are_refused():
    isic.check_counts(isic.ISIC17, 2000, 150)
    with pytest.raises(InputError, match="1999 training pairs, expected 2000"):
        isic.check_counts(isic.ISIC17, 1999, 150)
    with pytest.raises(InputError, match="151 validation pairs, expected 150"):
        isic.check_counts(isic.ISIC17, 2000, 151)
