"""Archives to checked pairs: each bad file is named, and nothing half-written stays."""

import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages import download as download_stage
from tests.helpers.data import (
    TRAINING_IMAGES,
    TRAINING_MASKS,
    VALIDATION_IMAGES,
    blob,
    encoded,
    official_members,
    photograph,
    write_mirror,
)
from tests.helpers.http_server import serving
from tests.helpers.paths import ROOT
from vmunet.data.download import Internet
from vmunet.data.images import read_mask, read_rgb
from vmunet.data.isic import raw
from vmunet.data.isic.official import ISIC17, ISIC18
from vmunet.data.orientation import orientation_of
from vmunet.errors import InputError

MIRROR = os.environ.get("VMUNET_MIRROR")
IMAGE = f"{TRAINING_IMAGES.folder}/ISIC_0000001.jpg"
MASK = f"{TRAINING_MASKS.folder}/ISIC_0000001_segmentation.png"


@pytest.fixture
def take(tmp_path, monkeypatch):
    """Write ISIC 2017's archives with these members and take them in; returns the raw folder."""
    monkeypatch.setattr(raw, "check_counts", lambda *_: None)
    small = replace(ISIC17, n_train=3)

    def take_members(members: dict[str, dict[str, bytes]]) -> Path:
        mirror = write_mirror(tmp_path / "mirror", members)
        target = tmp_path / "data" / "raw" / "isic17"
        raw.write_raw(small, target, "file", mirror=str(mirror))
        return target

    return take_members


def refused(take, tmp_path, members, match):
    with pytest.raises(InputError, match=match):
        take(members)
    assert list((tmp_path / "data" / "raw").iterdir()) == []


def test_good_archives_become_pairs_and_a_manifest(take):
    members = official_members()
    images = members[TRAINING_IMAGES.name]
    images[f"{TRAINING_IMAGES.folder}/ISIC_0000001_superpixels.png"] = encoded(photograph())
    images[f"{TRAINING_IMAGES.folder}/LICENSE.txt"] = b"CC-0"
    folder = take(members)
    assert sorted(p.name for p in folder.iterdir()) == ["images", "manifest.json", "masks"]
    assert (folder / "images" / "ISIC_0000001.jpg").read_bytes() == images[IMAGE]
    assert len(list((folder / "images").iterdir())) == len(list((folder / "masks").iterdir())) == 6
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["train"] == ["ISIC_0000000", "ISIC_0000001", "ISIC_0000002"]
    assert manifest["test"] == ["ISIC_0000003", "ISIC_0000004", "ISIC_0000005"]
    assert (manifest["dataset"], manifest["source"]) == ("isic17", "file")
    assert (manifest["n_train"], manifest["n_test"]) == (3, 3)
    assert manifest["native_min"] == manifest["native_max"] == [32, 24]
    assert manifest["passed_over"] == {"superpixels": 1, "other": 1}
    assert [a["name"] for a in manifest["archives"]] == [a.name for a in ISIC17.archives]
    assert all(len(a["sha256"]) == 64 and a["bytes"] > 0 for a in manifest["archives"])


def test_converted_files_are_stored_plainly_and_counted(take):
    members = official_members()
    images, masks = members[TRAINING_IMAGES.name], members[TRAINING_MASKS.name]
    deep = photograph().astype(np.uint16) * 257
    opaque = np.dstack([photograph(), np.full((24, 32), 255, np.uint8)])
    for index, pixels in enumerate((photograph()[..., 0], opaque, deep)):
        del images[f"{TRAINING_IMAGES.folder}/ISIC_{index:07d}.jpg"]
        images[f"{TRAINING_IMAGES.folder}/ISIC_{index:07d}.png"] = encoded(pixels)
    masks[MASK] = encoded(blob() // 255)
    folder = take(members)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["converted"] == {"grayscale": 1, "alpha": 1, "sixteen_bit": 1}
    assert manifest["masks_rewritten"] == 1
    for index in range(3):
        assert read_rgb(folder / "images" / f"ISIC_{index:07d}.png")[1] == []
    mask, changed = read_mask(folder / "masks" / "ISIC_0000001.png")
    np.testing.assert_array_equal(mask, blob())
    assert not changed


def test_a_pair_is_turned_as_both_orientation_tags_say_or_refused(take):
    members = official_members()
    tag, image, mask = Image.Exif(), io.BytesIO(), io.BytesIO()
    tag[0x0112] = 3
    Image.fromarray(photograph()).save(image, "JPEG", exif=tag)
    Image.fromarray(blob()).save(mask, "PNG", exif=tag)
    members[TRAINING_IMAGES.name][f"{TRAINING_IMAGES.folder}/ISIC_0000001.jpg"] = image.getvalue()
    plain = members[TRAINING_MASKS.name][MASK]
    members[TRAINING_MASKS.name][MASK] = mask.getvalue()
    folder = take(members)
    turned, _ = read_mask(folder / "masks/ISIC_0000001.png")
    np.testing.assert_array_equal(turned, blob()[::-1, ::-1])
    assert orientation_of(folder / "images/ISIC_0000001.png") == 1
    members[TRAINING_MASKS.name][MASK] = plain
    with pytest.raises(InputError, match=r"ISIC_0000001\.jpg: has the orientation tag 3 \(Exif\)"):
        take(members)


def test_downloaded_archives_become_the_same_pairs(take, tmp_path):
    local = take(official_members())
    with serving() as server:
        mirror = tmp_path / "mirror" / "isic17"
        server.files = {f"/{path.name}": path.read_bytes() for path in mirror.iterdir()}
        published = tuple(replace(a, url=f"{server.base}/{a.name}") for a in ISIC17.archives)
        small = replace(ISIC17, archives=published, n_train=3)
        internet = Internet(tmp_path / "downloads", (), tmp_path / "checksums.json", wait=0)
        for _ in range(2):
            raw.write_raw(small, tmp_path / "out", "http", internet)
        assert sorted(server.paths) == sorted(server.files)  # a second start downloads nothing
    manifest, expected = (
        json.loads((f / "manifest.json").read_text()) for f in (tmp_path / "out", local)
    )
    assert manifest == expected | {"source": "http"}
    sums = json.loads(internet.record.read_text())
    assert sums == {
        a.url: b["sha256"] for a, b in zip(published, manifest["archives"], strict=True)
    }


def test_empty_masks_are_counted(take):
    members = official_members()
    members[TRAINING_MASKS.name][MASK] = encoded(np.zeros((24, 32), np.uint8))
    assert json.loads((take(members) / "manifest.json").read_text())["empty_masks"] == 1


def test_an_image_without_a_mask_is_refused(take, tmp_path):
    members = official_members()
    del members[TRAINING_MASKS.name][MASK]
    refused(take, tmp_path, members, r"ISIC_0000001\.jpg: this image has no mask")


def test_a_mask_without_an_image_is_refused(take, tmp_path):
    members = official_members()
    del members[TRAINING_IMAGES.name][IMAGE]
    refused(take, tmp_path, members, r"ISIC_0000001_segmentation\.png: this mask has no image")


def test_different_sizes_are_refused(take, tmp_path):
    members = official_members()
    members[TRAINING_MASKS.name][MASK] = encoded(blob(32, 24))
    refused(take, tmp_path, members, r"ISIC_0000001\.jpg is 32x24 .*_segmentation\.png is 24x32")


@pytest.mark.parametrize("keep", [10, 900])
def test_a_truncated_photograph_is_refused(take, tmp_path, keep):
    members = official_members()
    members[TRAINING_IMAGES.name][IMAGE] = members[TRAINING_IMAGES.name][IMAGE][:keep]
    refused(take, tmp_path, members, r"ISIC_0000001\.jpg: not a readable image")


def test_a_mask_with_other_values_is_refused(take, tmp_path):
    members = official_members()
    members[TRAINING_MASKS.name][MASK] = encoded(blob() // 2)
    refused(take, tmp_path, members, r"ISIC_0000001_segmentation\.png: .*holds 0, 127 in 8 bits")


def test_an_id_in_both_parts_is_refused(take, tmp_path):
    members = official_members()
    twin = "ISIC_0000001"
    members[VALIDATION_IMAGES.name][f"{VALIDATION_IMAGES.folder}/{twin}.jpg"] = encoded(
        photograph(), ".jpg"
    )
    masks = ISIC17.archives[3]
    members[masks.name][f"{masks.folder}/{twin}_segmentation.png"] = encoded(blob())
    refused(take, tmp_path, members, f"{twin}: this id is in the training and in the validation")


def test_a_member_outside_its_folder_is_refused(take, tmp_path):
    members = official_members()
    members[TRAINING_IMAGES.name]["../../ISIC_0000009.jpg"] = b""
    refused(take, tmp_path, members, r"ISIC-2017_Training_Data\.zip: member.*points outside")


def test_a_truncated_archive_is_refused_and_the_old_result_kept(take, tmp_path):
    folder = take(official_members())
    before = (folder / "manifest.json").read_bytes()
    archive = tmp_path / "mirror" / "isic17" / TRAINING_IMAGES.name
    content = archive.read_bytes()
    archive.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"ISIC-2017_Training_Data\.zip: truncated or damaged"):
        raw.write_raw(ISIC17, folder, "file", mirror=str(tmp_path / "mirror"))
    assert (folder / "manifest.json").read_bytes() == before
    assert [p.name for p in folder.parent.iterdir()] == ["isic17"]


def test_a_mirror_with_fewer_images_than_the_official_set_is_refused(tmp_path):
    mirror = write_mirror(tmp_path / "mirror", official_members())
    with pytest.raises(InputError, match="isic17: 4 training pairs, expected 2000"):
        raw.write_raw(ISIC17, tmp_path / "out", "file", mirror=str(mirror))
    assert [p.name for p in tmp_path.iterdir()] == ["mirror"]


def test_what_a_killed_run_left_is_removed(tmp_path):
    (tmp_path / ".isic18.part" / "images").mkdir(parents=True)
    raw.write_raw(ISIC18, tmp_path / "isic18", "phantom", phantoms=raw.Phantoms(3, 1, 2, 0))
    assert [p.name for p in tmp_path.iterdir()] == ["isic18"]


def test_an_unknown_source_is_refused(tmp_path):
    with pytest.raises(InputError, match="source 'ftp'; expected phantom, sample, file, http or"):
        raw.write_raw(ISIC17, tmp_path / "out", "ftp")


def test_the_stage_makes_the_profiles_phantoms(tmp_path, monkeypatch):
    from pipeline.config.params import load_params

    root = ROOT
    params = load_params(root)
    data = params.profile.data["isic18"].model_copy(
        update={"source": "phantom", "training": 5, "validation": 2, "n_train": 3, "seed": 1}
    )
    profile = params.profile.model_copy(update={"data": {"isic18": data}})
    changed = params.model_copy(update={"profile": profile})
    monkeypatch.setattr(download_stage, "load_params", lambda: changed)
    monkeypatch.chdir(tmp_path)
    download_stage.main(["isic18"])
    manifest = json.loads((tmp_path / "data/raw/isic18/manifest.json").read_text())
    assert (manifest["source"], manifest["n_train"], manifest["n_test"]) == ("phantom", 3, 4)
    with pytest.raises(InputError, match="names no source for isic17"):
        download_stage.main(["isic17"])


def test_two_processes_that_make_one_dataset_both_end_well(tmp_path):
    root = ROOT
    for name in ("params.yaml", "profiles"):
        (tmp_path / name).symlink_to(root / name)
    command = [sys.executable, "-m", "stages.download", "isic18"]
    environment = os.environ | {"PYTHONPATH": str(root)}
    both = [subprocess.Popen(command, cwd=tmp_path, env=environment) for _ in range(2)]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    assert [path.name for path in (tmp_path / "data" / "raw").iterdir()] == ["isic18"]
    manifest = json.loads((tmp_path / "data/raw/isic18/manifest.json").read_text())
    files = sorted(path.stem for path in (tmp_path / "data/raw/isic18/images").iterdir())
    assert files == sorted(manifest["train"] + manifest["test"])


@pytest.mark.skipif(not MIRROR, reason="needs VMUNET_MIRROR")
def test_the_real_split_is_the_published_one(tmp_path):
    raw.write_raw(ISIC17, tmp_path / "isic17", "file", mirror=MIRROR)
    manifest = json.loads((tmp_path / "isic17" / "manifest.json").read_text())
    for subset, count in (("train", 1500), ("test", 650)):
        published = Path(MIRROR, "isic17", f"isic17_7to3_{subset}_{count}.txt").read_text().split()
        assert manifest[subset] == published
