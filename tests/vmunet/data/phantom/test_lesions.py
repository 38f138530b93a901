"""Phantoms: the same every time, varied, neither too easy nor too hard."""

import zipfile

import cv2
import numpy as np
import pytest

from vmunet.data.isic.official import DATASETS
from vmunet.data.phantom.lesions import phantom, write_archives

COUNT = 150


@pytest.fixture(scope="module")
def phantoms():
    return [phantom(3, index, 96, 128) for index in range(COUNT)]


def test_a_phantom_is_its_seed_and_index_alone(phantoms):
    np.random.seed(0)  # the global state must not matter
    again = phantom(3, 5, 96, 128)
    np.testing.assert_array_equal(again.image, phantoms[5].image)
    np.testing.assert_array_equal(again.mask, phantoms[5].mask)
    assert again.attributes == phantoms[5].attributes
    assert (phantom(4, 5, 96, 128).image != phantoms[5].image).any()
    assert (phantoms[6].image != phantoms[5].image).any()


def test_shapes_values_and_attributes(phantoms):
    for made in phantoms:
        assert made.image.shape == (96, 128, 3)
        assert made.image.dtype == made.mask.dtype == np.uint8
        assert made.mask.shape == (96, 128)
        assert set(np.unique(made.mask)) == {0, 255}
    for name in ("hair", "ruler", "vignette", "pale", "lobed"):
        share = np.mean([made.attributes[name] for made in phantoms])
        assert 0.05 < share < 0.8, name


def test_lesions_are_one_region_of_varied_size(phantoms):
    areas = np.array([(made.mask > 0).mean() for made in phantoms])
    assert areas.min() > 0.002
    assert np.percentile(areas, 10) < 0.08 < 0.2 < np.percentile(areas, 90)
    regions = [cv2.connectedComponents(made.mask)[0] - 1 for made in phantoms]
    assert set(regions) == {1}


def darkness(image: np.ndarray) -> np.ndarray:
    return 255 - cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def test_no_threshold_on_darkness_finds_the_lesion(phantoms):
    """Otsu's threshold is far from the truth, and so is the best of all fixed ones."""
    overlap = union = 0
    fixed = np.zeros((256, 2))
    for made in phantoms:
        truth, dark = made.mask > 0, darkness(made.image)
        _, dark_pixels = cv2.threshold(dark, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
        overlap += (truth & (dark_pixels > 0)).sum()
        union += (truth | (dark_pixels > 0)).sum()
        inside = np.bincount(dark[truth], minlength=256)[::-1].cumsum()[::-1]
        every = np.bincount(dark.ravel(), minlength=256)[::-1].cumsum()[::-1]
        fixed += np.stack([inside, every + truth.sum() - inside], axis=1)
    assert 0.2 < overlap / union < 0.7
    assert (fixed[:, 0] / fixed[:, 1]).max() < 0.7


def test_lesions_can_be_seen(phantoms):
    contrast = np.array(
        [
            darkness(p.image)[p.mask > 0].mean() - darkness(p.image)[p.mask == 0].mean()
            for p in phantoms
        ]
    )
    assert contrast.mean() > 20
    assert (contrast > 0).mean() > 0.85
    pale = np.array([made.attributes["pale"] for made in phantoms])
    assert contrast[pale].mean() < contrast[~pale].mean() / 2


def test_archives_have_the_official_names_and_layout(tmp_path):
    for name, dataset in DATASETS.items():
        folder = tmp_path / name
        folder.mkdir()
        write_archives(folder, name, training=5, validation=2, seed=1)
        assert {p.name for p in folder.iterdir()} == {a.name for a in dataset.archives}
        for archive in dataset.archives:
            members = zipfile.ZipFile(folder / archive.name).namelist()
            assert all(member.startswith(archive.folder + "/") for member in members)
            suffix = ".jpg" if archive.kind == "images" else "_segmentation.png"
            expected = 5 if archive.part == "training" else 2
            assert sum(member.endswith(suffix) for member in members) == expected


def test_archives_are_the_same_bytes_each_time_and_differ_by_dataset(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_archives(tmp_path / name, "isic17", 3, 1, seed=1)
        write_archives(tmp_path / name, "isic18", 3, 1, seed=1)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    contents = [
        zipfile.ZipFile(tmp_path / "one" / name).read(f"{name[:-4]}/ISIC_9000000.jpg")
        for name in ("ISIC-2017_Training_Data.zip", "ISIC2018_Task1-2_Training_Input.zip")
    ]
    assert contents[0] != contents[1]


def test_archived_sizes_vary_and_are_not_square(tmp_path):
    write_archives(tmp_path, "isic17", 10, 1, seed=1)
    archive = zipfile.ZipFile(tmp_path / "ISIC-2017_Training_Part1_GroundTruth.zip")
    shapes = {
        cv2.imdecode(np.frombuffer(archive.read(name), np.uint8), cv2.IMREAD_UNCHANGED).shape
        for name in archive.namelist()
    }
    assert len(shapes) > 5
    assert all(height != width and 96 <= width <= 192 for height, width in shapes)
