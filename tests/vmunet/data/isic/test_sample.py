"""The sample in examples/isic17/: whole, without copies, read only if nobody changed it."""

import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest

from stages import check
from stages import download as download_stage
from tests.helpers.clone import demo_root
from tests.helpers.paths import ROOT
from vmunet.data.checks.facts import measure
from vmunet.data.checks.findings import find_pairs
from vmunet.data.isic import sample
from vmunet.data.isic.official import ISIC17, ISIC18, image_id
from vmunet.data.isic.raw import write_raw
from vmunet.data.licences import licence_of
from vmunet.errors import InputError

FOLDER = ROOT / sample.FOLDER
MIRROR = os.environ.get("VMUNET_MIRROR")


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """data/raw/isic17, as the download stage of the profile demo writes it."""
    from pipeline.config.params import load_params

    root = tmp_path_factory.mktemp("clone")
    (root / "examples").symlink_to(ROOT / "examples")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(download_stage, "load_params", lambda: load_params(demo_root()))
        patch.chdir(root)
        download_stage.main(["isic17"])
    return root / "data/raw/isic17"


def test_the_sample_is_split_by_the_papers_rule(raw):
    manifest = json.loads((raw / "manifest.json").read_text())
    assert (manifest["source"], manifest["n_train"], manifest["n_test"]) == ("sample", 168, 72)
    assert manifest["native_min"] == manifest["native_max"] == [128, 128]
    assert manifest["empty_masks"] == 0
    parts = dict(line.split() for line in (FOLDER / "ids.txt").read_text().splitlines())
    training = sorted(key for key, part in parts.items() if part == "training")
    validation = sorted(key for key, part in parts.items() if part == "validation")
    assert manifest["train"] == training[:168]
    assert manifest["test"] == sorted(training[168:] + validation)
    assert len(parts) == sample.IMAGES


def test_no_test_image_shows_a_picture_that_is_also_trained_on(raw):
    assert find_pairs([measure("isic17", raw)]) == []


def test_the_check_expects_the_samples_counts(raw):
    from pipeline.config.params import load_params

    assert check.declared(load_params(demo_root()), "isic17") == {"train": 168, "test": 72}


def test_the_licence_is_that_of_isic_2017():
    assert "CC-0" in licence_of("isic17", "sample")
    assert "CC-0" in (FOLDER / "README.md").read_text()


def test_the_archives_are_small_and_hold_images_alone():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 1_050_000
    for name in sample.SHA256:
        members = zipfile.ZipFile(FOLDER / name).namelist()
        assert all(image_id(member) or member.endswith("_segmentation.png") for member in members)


def copied(folder: Path) -> Path:
    for name in sample.SHA256:
        shutil.copy(FOLDER / name, folder)
    return folder


def test_a_changed_archive_is_refused_with_the_way_back(tmp_path):
    folder = copied(tmp_path)
    changed = folder / "ISIC-2017_Validation_Data.zip"
    changed.write_bytes(changed.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError) as error:
        sample.from_sample(ISIC17, folder)
    message = str(error.value)
    assert message.startswith(f"{changed}: its sha256 is ")
    assert message.endswith(f"restore it with `git checkout -- {changed}`")
    assert "\n" not in message


def test_a_missing_archive_is_named(tmp_path):
    folder = copied(tmp_path)
    missing = folder / "ISIC-2017_Training_Part1_GroundTruth.zip"
    missing.unlink()
    with pytest.raises(InputError, match=r"Part1_GroundTruth.zip: not found; .* `git checkout --"):
        sample.from_sample(ISIC17, folder)


def test_another_dataset_has_no_sample(tmp_path):
    with pytest.raises(InputError, match="isic18: source is 'sample', but the repository holds"):
        write_raw(ISIC18, tmp_path / "isic18", "sample", n_train=10)
    assert list(tmp_path.iterdir()) == []


def test_more_training_images_than_the_sample_has_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(InputError, match="n_train is 229, with 228 training and 12 validation"):
        write_raw(ISIC17, tmp_path / "isic17", "sample", n_train=229)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.skipif(not MIRROR, reason="needs VMUNET_MIRROR")
def test_the_script_makes_the_same_bytes_again(tmp_path):
    import importlib.util

    path = ROOT / "examples" / "isic17_sample.py"
    spec = importlib.util.spec_from_file_location("isic17_sample", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.main(tmp_path)
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (FOLDER / path.name).read_bytes(), path.name
    assert len(list(tmp_path.iterdir())) == 5
