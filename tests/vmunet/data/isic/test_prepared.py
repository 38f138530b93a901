"""The authors' prepared 7:3 sets: zip or folder, both datasets, and what is refused."""

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.config.params import PreparedSource, load_params
from reports.make.results.metrics import SOURCES
from stages import download as download_stage
from stages.check import declared
from tests.helpers.clone import demo_root
from tests.helpers.data import blob, encoded, photograph, write_zip
from vmunet.data.archives import sha256_of
from vmunet.data.isic.official import DATASETS, IsicDataset
from vmunet.data.isic.prepared import find_prepared
from vmunet.data.isic.raw import write_raw
from vmunet.data.preprocess import write_arrays
from vmunet.errors import InputError
from vmunet.protocols import PAPER, SOUND

ISIC17, ISIC18 = (replace(d, n_training=4, n_validation=1, n_train=3) for d in DATASETS.values())
TRAIN = ["ISIC_0000001", "ISIC_0000004", "ISIC_0000007"]  # no rule gives this split
TEST = ["ISIC_0000002", "ISIC_0000009"]
MASK = "isic2017/train/masks/ISIC_0000004_segmentation.png"
IMAGE = "isic2017/train/images/ISIC_0000004.png"


def prepared_members() -> dict[str, bytes]:
    """Members of the set: masks of isic2018 have the images' stems, masks of isic2017 have not."""
    members = {"isic2017/README.txt": b"7:3"}
    for folder, suffix in (("isic2017", "_segmentation"), ("isic2018", "")):
        for part, ids in (("train", TRAIN), ("val", TEST)):
            for seed, key in enumerate(ids):
                members[f"{folder}/{part}/images/{key}.png"] = encoded(photograph(seed=seed))
                members[f"{folder}/{part}/masks/{key}{suffix}.png"] = encoded(blob())
    return members


def write_folder(folder: Path, members: dict[str, bytes]) -> Path:
    for name, content in members.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def write_set(folder: Path, form: str, members: dict[str, bytes]) -> Path:
    if form == "zip":
        return write_zip(folder / "prepared.zip", members)
    if form == "nested zip":
        members = {f"data/{name}": content for name, content in members.items()}
        return write_zip(folder / "prepared.zip", {"__MACOSX/data/._x": b""} | members)
    return write_folder(folder / "prepared", members)


def files(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.mark.parametrize("form", ["zip", "nested zip", "folder"])
@pytest.mark.parametrize("dataset", [ISIC17, ISIC18], ids=["isic17", "isic18"])
def test_the_folders_are_the_split(tmp_path, dataset: IsicDataset, form):
    members = prepared_members()
    source = write_set(tmp_path / "in", form, members)
    before = files(tmp_path / "in")
    write_raw(dataset, tmp_path / "raw", "prepared", mirror=str(tmp_path / "in"))
    assert files(tmp_path / "in") == before
    written = files(tmp_path / "raw")
    manifest = json.loads(written.pop("manifest.json"))
    folder = {"isic17": "isic2017", "isic18": "isic2018"}[dataset.name]
    ids = {key: ("train" if key in TRAIN else "val") for key in TRAIN + TEST}
    assert sorted(written) == sorted(
        f"{kind}/{key}.png" for kind in ("images", "masks") for key in ids
    )
    for key, part in ids.items():
        assert written[f"images/{key}.png"] == members[f"{folder}/{part}/images/{key}.png"]
    assert (manifest["source"], manifest["dataset"]) == ("prepared", dataset.name)
    assert (manifest["train"], manifest["test"]) == (TRAIN, TEST)
    assert (manifest["n_train"], manifest["n_test"]) == (3, 2)
    (archive,) = manifest["archives"]
    if source.is_file():
        assert archive["sha256"] == sha256_of(source)
        assert archive["bytes"] == source.stat().st_size
    else:
        assert archive["name"] == f"prepared/{folder}"
        own = [content for name, content in members.items() if name.startswith(folder)]
        assert archive["bytes"] == sum(map(len, own))


def test_the_hash_of_a_folder_is_of_names_and_contents(tmp_path):
    sums = set()
    other = prepared_members()
    other[IMAGE] = encoded(photograph(seed=99))
    renamed = prepared_members()
    renamed["isic2017/LICENSE.txt"] = renamed.pop("isic2017/README.txt")
    for number, members in enumerate((prepared_members(), prepared_members(), other, renamed)):
        write_folder(tmp_path / str(number), members)
        write_raw(ISIC17, tmp_path / "raw", "prepared", prepared=tmp_path / str(number))
        manifest = json.loads((tmp_path / "raw" / "manifest.json").read_text())
        sums.add(manifest["archives"][0]["sha256"])
    assert len(sums) == 3


def test_the_hash_of_a_folder_covers_what_its_links_lead_to(tmp_path):
    plain = write_folder(tmp_path / "plain", prepared_members())
    linked = write_folder(tmp_path / "linked", prepared_members())
    images = linked / "isic2017" / "train" / "images"
    images.rename(tmp_path / "elsewhere")
    images.symlink_to(tmp_path / "elsewhere")
    made = []
    for source in (plain, linked):
        write_raw(ISIC17, tmp_path / "raw", "prepared", prepared=source)
        (archive,) = json.loads((tmp_path / "raw" / "manifest.json").read_text())["archives"]
        made.append((archive["sha256"], archive["bytes"]))
    assert made[0] == made[1]
    assert (tmp_path / "elsewhere" / "ISIC_0000004.png").exists()


@pytest.mark.parametrize("form", ["zip", "folder"])
@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (lambda m: m.pop(MASK), r"ISIC_0000004\.png: this image has no mask"),
        (lambda m: m.pop(IMAGE), r"ISIC_0000004_segmentation\.png: this mask has no image"),
        (
            lambda m: m.update({MASK.replace("_segmentation", ""): encoded(blob())}),
            r"masks: two files of one id, ISIC_0000004\.png and ISIC_0000004_segmentation\.png",
        ),
        (
            lambda m: (m.pop(MASK), m.pop(IMAGE)),
            r"isic2017/train holds 2 pairs, expected 3; take the authors' prepared set",
        ),
        (
            lambda m: (
                [
                    m.update({n.replace("train", "val").replace("0004", "0002"): m[n]})
                    for n in (MASK, IMAGE)
                ]
                + [m.pop(n.replace("train", "val").replace("0004", "0009")) for n in (MASK, IMAGE)]
            ),
            r"isic2017/val holds 1 pairs, expected 2",
        ),
        (
            lambda m: [
                m.update({n.replace("train", "val"): m[n]})
                or m.pop(n.replace("train", "val").replace("0004", "0009"))
                for n in (MASK, IMAGE)
            ],
            r"ISIC_0000004: this id is in the training and in the validation",
        ),
        (
            lambda m: [m.pop(n) for n in list(m) if n.startswith("isic2017/val/masks")],
            r"isic2017/val/masks/ is not in it; the prepared set has train/ and val/",
        ),
        (
            lambda m: [m.pop(n) for n in list(m) if n.startswith("isic2017")],
            r"expected one folder isic2017/ in it.* found 0 \(it holds isic2018\)",
        ),
        (
            lambda m: m.update({MASK: encoded(blob().astype(np.uint16) * 200)}),
            r"ISIC_0000004_segmentation\.png: a mask holds 0 and 255",
        ),
        (lambda m: m.update({MASK: encoded(blob(9, 9))}), r"a mask must have its image's size"),
    ],
)
def test_a_bad_set_is_refused_and_leaves_nothing(tmp_path, form, spoil, match):
    members = prepared_members()
    spoil(members)
    write_set(tmp_path / "in", form, members)
    before = files(tmp_path / "in")
    with pytest.raises(InputError, match=match):
        write_raw(ISIC17, tmp_path / "raw", "prepared", mirror=str(tmp_path / "in"))
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert files(tmp_path / "in") == before


def test_gray_masks_are_soft_targets_as_in_the_published_code(tmp_path):
    """Under `paper` they are levels / 255, under `sound` and in scores the lesion at >= 0.5."""
    levels = np.zeros((24, 32), np.uint8)
    levels[4:8], levels[8:12], levels[12:16] = 100, 128, 255
    members = prepared_members() | {MASK: encoded(levels)}
    members["isic2017/val/masks/ISIC_0000009_segmentation.png"] = encoded(levels)
    raw, arrays = tmp_path / "raw", tmp_path / "arrays"
    write_raw(
        ISIC17, raw, "prepared", mirror=str(write_set(tmp_path / "in", "zip", members).parent)
    )
    assert json.loads((raw / "manifest.json").read_text())["soft_masks"] == 2
    write_arrays(raw, arrays, "v", 8, (PAPER, SOUND))
    soft, hard = (np.load(arrays / name / "train/masks.npy")[1] for name in ("paper", "sound"))
    whole = cv2.resize(levels.astype(np.float32), (8, 8), interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(soft, np.rint(whole))
    assert {int(v) for v in np.unique(soft)} > {0, 255}
    assert {int(v) for v in np.unique(hard)} == {0, 255}
    assert hard[:, 0].tolist() == [255 * (levels[3 * i + 1, 0] >= 128) for i in range(8)]
    for mask in (raw / "masks").glob("*.png"):  # other masks are binary and stay so
        is_gray = mask.stem in ("ISIC_0000004", "ISIC_0000009")
        assert (len(np.unique(cv2.imread(str(mask), cv2.IMREAD_UNCHANGED))) > 2) == is_gray
    with zipfile.ZipFile(arrays / "paper/test/native_masks.zip") as archive:
        stored = np.frombuffer(archive.read("ISIC_0000009.png"), np.uint8)
    assert np.array_equal(cv2.imdecode(stored, cv2.IMREAD_UNCHANGED), levels)


def test_a_zip_that_points_outside_is_refused(tmp_path):
    source = write_zip(tmp_path / "set.zip", prepared_members() | {"../evil.png": b"1"})
    with pytest.raises(InputError, match=r"set\.zip: member '\.\./evil\.png' points outside"):
        write_raw(ISIC17, tmp_path / "deep" / "raw", "prepared", prepared=source)
    assert not (tmp_path / "evil.png").exists()
    assert list((tmp_path / "deep").iterdir()) == []


def test_the_profiles_path_goes_before_the_mirror(tmp_path):
    for name in ("a/prepared.zip", "b.zip"):
        write_zip(tmp_path / name, {"x": b""})
    assert find_prepared(tmp_path / "b.zip", str(tmp_path / "a")) == tmp_path / "b.zip"
    assert find_prepared(None, str(tmp_path / "a")) == tmp_path / "a" / "prepared.zip"
    with pytest.raises(InputError, match=r"looked for .*/c\.zip\); name its zip or folder"):
        find_prepared(tmp_path / "c.zip", str(tmp_path / "a"))
    with pytest.raises(InputError, match="VMUNET_MIRROR, which is not set"):
        find_prepared(None, None)
    with pytest.raises(InputError, match=r"prepared\.zip and .*/prepared\)"):
        find_prepared(None, str(tmp_path))


def test_the_stage_reads_the_profiles_prepared_set(tmp_path, monkeypatch):
    """All 2,150 pairs of ISIC 2017, with a few pixels each."""
    image, mask = encoded(photograph(4, 4)), encoded(blob(4, 4))
    members = {}
    for index in range(2150):
        home = f"isic2017/{'train' if index < 1500 else 'val'}"
        members[f"{home}/images/ISIC_{index:07d}.png"] = image
        members[f"{home}/masks/ISIC_{index:07d}_segmentation.png"] = mask
    write_zip(tmp_path / "set.zip", members)
    params = load_params(demo_root())
    data = {"isic17": PreparedSource(source="prepared", path="set.zip")}
    changed = params.model_copy(
        update={"profile": params.profile.model_copy(update={"data": data})}
    )
    monkeypatch.setattr(download_stage, "load_params", lambda: changed)
    monkeypatch.chdir(tmp_path)
    download_stage.main(["isic17"])
    manifest = json.loads((tmp_path / "data/raw/isic17/manifest.json").read_text())
    assert (manifest["n_train"], manifest["n_test"]) == (1500, 650)
    assert manifest["source"] == "prepared"
    assert "prepared set" in SOURCES[manifest["source"]]
    assert declared(changed, "isic17") == {"train": 1500, "test": 650}
