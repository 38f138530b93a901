"""Own images and masks as arrays, and refused input."""

import json
import runpy
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages import own_images, own_split
from tests.helpers.data import blob, encoded, photograph
from tests.helpers.own_data import classes_mask, decoded, write_folders
from tests.helpers.paths import ROOT
from vmunet.data.arrays import ArrayDataset, Ids, held_out, load_manifest
from vmunet.data.own.files import pair_images
from vmunet.data.own.images import _encoded_masks, read_pair, write_own_images
from vmunet.data.own.masks import read_labels
from vmunet.data.own.split import Sample, assign
from vmunet.data.resize import resize_mask
from vmunet.errors import InputError
from vmunet.protocols import PAPER, SOUND

ORGANS = ["liver", "spleen", "kidney"]
NAMES = ["a", "b", "c", "d", "e"]


def write(root, classes, test=("a", "b"), patients=None):
    """Arrays of root/images and root/masks at 64 px; the given ids test."""
    samples = [
        Sample(
            p.id,
            "test" if p.id in test else "train",
            (patients or {}).get(p.id, ""),
            str(p.image),
            str(p.mask),
        )
        for p in pair_images(root / "images", root / "masks")
    ]
    train, tested = ([s for s in samples if s.part == part] for part in ("train", "test"))
    target = root / "arrays"
    return target, write_own_images(target, "mine", train, tested, classes, 64, [PAPER, SOUND])


def test_one_class_has_the_layout_and_values_of_isic(tmp_path):
    target, _ = write(write_folders(tmp_path, NAMES, {"c": blob() // 255, "e": blob() * 0}), ["x"])
    for protocol in (PAPER, SOUND):
        folder = target / protocol.name
        manifest = load_manifest(folder)
        assert (manifest["view"], manifest["dataset"]) == ("mine", "mine")
        assert (manifest["size"], manifest["protocol"]) == (64, protocol.name)
        assert (manifest["source"], manifest["classes"]) == ("own", ["x"])
        assert (manifest["n_train"], manifest["n_test"], manifest["patients"]) == (3, 2, None)
        assert manifest["native_min"] == manifest["native_max"] == [32, 24]
        assert manifest["empty_masks"] == 1
        assert manifest["images_with"] == {"train": {"x": 2}, "test": {"x": 2}}
        assert {len(digest) for digest in manifest["sha256"].values()} == {64}
        data = ArrayDataset(folder, "train")
        assert data.ids == ["c", "d", "e"]
        assert data.ids.patients is None
        image, mask = data[0]
        assert (image.shape, mask.shape, mask.max()) == ((3, 64, 64), (1, 64, 64), 1)
        values = set(np.unique(np.load(folder / "test/masks.npy")).tolist())
        assert values == {0, 255} if protocol is SOUND else len(values) > 2
        with zipfile.ZipFile(folder / "test/native_masks.zip") as archive:
            assert archive.namelist() == ["a.png", "b.png"]
            assert (decoded(archive.read("a.png")) == blob()).all()


def test_several_classes_keep_their_numbers_under_both_protocols(tmp_path):
    masks = dict.fromkeys(NAMES, classes_mask())
    target, manifest = write(write_folders(tmp_path, NAMES, masks), ORGANS)
    assert manifest["images_with"]["train"] == {"liver": 3, "spleen": 0, "kidney": 3}
    expected = resize_mask(classes_mask(), 64, "nearest")
    for protocol in (PAPER, SOUND):
        stored = np.load(target / protocol.name / "train/masks.npy")
        assert (stored == expected).all()
        with zipfile.ZipFile(target / protocol.name / "test/native_masks.zip") as archive:
            assert (decoded(archive.read("b.png")) == classes_mask()).all()


def test_writing_again_gives_the_same_bytes(tmp_path):
    root = write_folders(tmp_path, NAMES)
    first, _ = write(root, ["x"])
    before = {path: path.read_bytes() for path in first.rglob("*") if path.is_file()}
    write(root, ["x"])
    assert {path: path.read_bytes() for path in first.rglob("*") if path.is_file()} == before


def test_a_palettes_indices_count_not_its_colours(tmp_path):
    image = Image.fromarray(classes_mask(), mode="P")
    image.putpalette([0, 0, 0, 200, 9, 9, 7, 7, 7, 0, 255, 0])
    image.save(tmp_path / "a.png")
    assert (read_labels(tmp_path / "a.png", 3) == classes_mask()).all()
    Image.fromarray(classes_mask()).save(tmp_path / "b.tif")
    assert (read_labels(tmp_path / "b.tif", 3) == classes_mask()).all()
    Image.fromarray(blob() > 0).save(tmp_path / "c.png")  # one bit a pixel
    assert (read_labels(tmp_path / "c.png", 3) == blob() // 255).all()


def test_palettes_of_different_order_are_refused(tmp_path):
    """Two masks whose programs numbered the same two colours in another order."""
    red, green = (200, 9, 9), (9, 200, 9)
    write_folders(tmp_path, NAMES)
    for key in NAMES:
        order = [red, green] if key != "d" else [green, red]
        image = Image.fromarray(blob() // 255, mode="P")
        image.putpalette([0, 0, 0, *order[0], *order[1]])
        image.save(tmp_path / f"masks/{key}.png")
    with pytest.raises(InputError, match=r"d\.png: its palette draws .* that of a\.png"):
        write(tmp_path, ORGANS)


def test_an_image_and_a_mask_with_orientation_tags_are_turned_alike(tmp_path):
    """A photograph stored upside down: its mask has the tag too, or the pair is refused."""
    shown, mask = photograph(), blob()
    tag = Image.Exif()
    tag[0x0112] = 3
    for folder, pixels in (("images", shown), ("masks", mask)):
        (tmp_path / folder).mkdir()
        Image.fromarray(pixels[::-1, ::-1]).save(tmp_path / folder / "a.png", exif=tag)
    sample = Sample("a", "test", "", str(tmp_path / "images/a.png"), str(tmp_path / "masks/a.png"))
    image, labels, _ = read_pair(sample, 1)
    np.testing.assert_array_equal(image, shown)
    np.testing.assert_array_equal(labels, mask)
    stored = dict(_encoded_masks([sample], 1))
    np.testing.assert_array_equal(decoded(stored["a"]), mask)
    Image.fromarray(mask).save(tmp_path / "masks/a.png")
    with pytest.raises(InputError, match=r"orientation tag 3 \(Exif\), and a\.png has none"):
        read_pair(sample, 1)


@pytest.mark.parametrize(
    ("classes", "content", "message"),
    [
        (3, encoded(blob()), r"masks/a\.png: holds 255; with 3 classes a mask holds 0 .* to 3"),
        (2, encoded(classes_mask()), r"a\.png: holds 3; with 2 classes"),
        (3, encoded(photograph()), r"a\.png: a colour image; expected a mask, one number"),
        (3, encoded(blob().astype(np.uint16)), r"a\.png: its pixels have 16 bits; expected"),
        (3, encoded(blob())[:60], r"a\.png: not a readable image, or cut short"),
        (3, b"", r"a\.png: not a readable image"),
        (1, encoded(classes_mask()), r"a\.png: a mask holds 0 and 255 .*this one holds 0, 1, 3"),
        (1, encoded(photograph()), r"a\.png: a colour image"),
        (
            1,
            encoded(blob(20, 32)),
            r"mask .*masks/a\.png is 32x20 pixels, and its image a\.png 32x24",
        ),
    ],
)
def test_masks_that_are_refused_leave_nothing(tmp_path, classes, content, message):
    write_folders(tmp_path, NAMES, dict.fromkeys(NAMES, blob() * 0))
    (tmp_path / "masks/a.png").write_bytes(content)
    with pytest.raises(InputError, match=message):
        write(tmp_path, ORGANS[:classes])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "masks"]


def test_an_unreadable_image_is_named(tmp_path):
    (write_folders(tmp_path, NAMES) / "images/b.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"b\.png: not a readable image"):
        write(tmp_path, ["x"])


def test_the_same_picture_does_not_train_and_test(tmp_path):
    write_folders(tmp_path, NAMES)
    (tmp_path / "images/d.png").write_bytes((tmp_path / "images/a.png").read_bytes())
    with pytest.raises(InputError, match=r"d\.png trains and a\.png tests, and they are the same"):
        write(tmp_path, ["x"])
    write(tmp_path, ["x"], test=("a", "d"))


def test_a_file_that_went_since_is_named(tmp_path):
    samples = [
        Sample(key, "train", "", str(tmp_path / f"{key}.png"), str(tmp_path / f"{key}.png"))
        for key in "ab"
    ]
    with pytest.raises(InputError, match=r"b\.png: the file is gone; run the own_split stage"):
        write_own_images(tmp_path / "t", "x", samples[:0], samples[1:], ["x"], 64, [SOUND])


def test_patients_stand_beside_the_ids_and_are_held_out_whole(tmp_path):
    names = [f"i{n:02}" for n in range(20)]
    root = write_folders(tmp_path, names)
    owners = {name: f"Pat {n // 3}" for n, name in enumerate(names)}
    (tmp_path / "split.csv").write_text(
        "id,patient\n" + "".join(f"{key},{owner}\n" for key, owner in owners.items())
    )
    pairs = pair_images(root / "images", root / "masks")
    test = {s.id for s in assign(pairs, 0.2, tmp_path / "split.csv") if s.part == "test"}
    target, manifest = write(root, ["x"], test, owners)
    assert manifest["patients"] == 7
    ids = ArrayDataset(target / "sound", "train").ids
    assert ids.patients == [owners[key] for key in ids]
    kept, held = held_out(ids)
    assert sorted(kept + held) == list(range(len(ids)))
    assert kept == sorted(kept)
    assert len({ids.patients[i] for i in held}) == 1
    assert not {ids.patients[i] for i in kept} & {ids.patients[i] for i in held}
    groups = target / "sound/train/groups.txt"
    groups.write_text("Pat 1\n")
    with pytest.raises(InputError, match=rf"groups\.txt: 1 lines for {len(ids)} ids"):
        ArrayDataset(target / "sound", "train")


def test_one_patient_alone_cannot_be_held_out():
    with pytest.raises(InputError, match="all training images are of one patient"):
        held_out(Ids(["a", "b"], ["p", "p"]))


def test_isics_held_out_images_are_what_they_were():
    """Fixed before `held_out` knew patients: 150 of 1,500 ids, by number."""
    ids = [f"ISIC_{i:07d}" for i in range(1500)]
    held = held_out(Ids(ids))[1]
    assert held == held_out(ids)[1]
    assert (len(held), sum(held), held[:8]) == (150, 109494, [3, 12, 19, 34, 40, 52, 59, 66])


def test_manifests_are_json_that_a_person_can_read(tmp_path):
    target, manifest = write(write_folders(tmp_path, NAMES), ["x"])
    text = (target / "paper/manifest.json").read_text()
    assert json.loads(text) == manifest | {"protocol": "paper"}


def test_the_example_declares_itself_and_is_taken_in(tmp_path, monkeypatch, capsys):
    """Run examples/own_images.py and follow the lines that it prints."""
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(ROOT / "examples/own_images.py"))["main"](Path("example"))
    printed = capsys.readouterr().out
    lines = printed.split("\n\n")[1] + "\n"
    params = (ROOT / "params.yaml").read_text().replace("  images: {}\n", lines)
    Path("params.yaml").write_text(params)
    own_split.main(["lesions"])
    assert "12 test, 6 patients" in capsys.readouterr().out
    own_images.main(["lesions"])
    manifest = load_manifest("data/arrays/lesions/sound")
    assert (manifest["n_train"], manifest["n_test"], manifest["patients"]) == (36, 12, 24)
    assert len(ArrayDataset("data/arrays/lesions/sound", "train").ids.patients) == 36
    with pytest.raises(InputError, match=r"'polyps' is not in params\.yaml's own\.images; it has"):
        own_images.main(["polyps"])


def test_the_example_has_a_help_and_writes_nothing_for_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["own_images.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "examples/own_images.py"), run_name="__main__")
    assert (ended.value.code, list(tmp_path.iterdir())) == (0, [])
    assert "FOLDER is data/example" in capsys.readouterr().out
