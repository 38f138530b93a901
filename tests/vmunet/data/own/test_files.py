"""Own datasets: the pairs of files, and their split."""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.own_data import touch
from vmunet.data.own.files import Pair, pair_images, pair_volumes
from vmunet.data.own.split import assign, part_for_test, read_samples, write_samples
from vmunet.errors import InputError

names = st.text("abcdefgh0123456789", min_size=1, max_size=6)


def pairs_of(ids):
    return [Pair(key, f"images/{key}.png", f"masks/{key}.png") for key in ids]


def parts_of(samples):
    return {sample.id: sample.part for sample in samples}


def table(tmp_path, text):
    path = tmp_path / "split.csv"
    path.write_text(text)
    return path


def test_the_three_names_of_a_mask(tmp_path):
    images = touch(tmp_path / "i", "a.jpg", "b.PNG", "c 1.tif", "a_superpixels.png", ".d.png", "x")
    masks = touch(tmp_path / "m", "a.png", "b_Mask.bmp", "c 1_segmentation.tiff", "a_overlay.jpg")
    pairs = [(p.id, p.image.name, p.mask.name) for p in pair_images(images, masks)]
    assert pairs == [
        ("a", "a.jpg", "a.png"),
        ("b", "b.PNG", "b_Mask.bmp"),
        ("c_1", "c 1.tif", "c 1_segmentation.tiff"),
    ]


def test_images_and_masks_may_share_a_folder(tmp_path):
    both = touch(tmp_path, "a.png", "a_mask.png", "b.jpg", "b_segmentation.png")
    assert [p.mask.name for p in pair_images(both, both)] == ["a_mask.png", "b_segmentation.png"]


def test_accents_pair_whatever_system_wrote_them(tmp_path):
    """macOS writes an accent as a character of its own (NFD), others the letter with it (NFC)."""
    composed, apart = "L\u00e4sion", "La\u0308sion"
    images, masks = touch(tmp_path / "i", apart + ".png"), touch(tmp_path / "m", composed + ".png")
    pairs = pair_images(images, masks)
    assert [(p.id, p.image.name) for p in pairs] == [(composed, apart + ".png")]
    path = tmp_path / "split.csv"
    path.write_text(f"id,split\n{apart},train\nb,test\n", encoding="utf-8")
    assert parts_of(assign(pairs_of([composed, "b"]), None, path))[composed] == "train"


def test_a_name_that_is_not_utf8_is_refused(tmp_path):
    touch(tmp_path / "i", os.fsdecode(b"L\xe4sion.png"), "b.png")
    with pytest.raises(InputError, match=r"i: 1 names are not UTF-8 \(L\\xe4sion\.png\)"):
        pair_images(tmp_path / "i", touch(tmp_path / "m", "b.png"))


@pytest.mark.parametrize(
    ("images", "masks", "message"),
    [
        ((), ("a.png",), r"i: no images; expected \.jpg"),
        (("a.png", "b.png", "c.png"), ("a.png",), r"m: no mask for 2 of 3 images \(b, c\); expect"),
        (("b.png",), (), r"no mask for 1 of 1 .*expected b\.png, b_mask\.png or b_segmentation"),
        (("a.png",), ("a.png", "z.png"), r"i: no image for 1 of 2 masks \(z\)"),
        (("a.png", "a.jpg"), ("a.png",), r"a\.jpg and a\.png: two files of the id a"),
        (("a.png",), ("a.png", "a_mask.png"), r"a\.png and a_mask\.png: two files of the id a"),
        (("a b.png", "a_b.png"), ("a_b.png",), r"two files of the id a_b"),
        (("a.png", "b.png"), ("a.jpg", "b.png"), r"1 masks are JPEG or WebP \(a\.jpg\), whose com"),
        ([f"{i}.png" for i in range(9)], (), r"9 of 9 images \(0, 1, 2, 3, 4, \.\.\.\)"),
    ],
)
def test_images_that_do_not_pair(tmp_path, images, masks, message):
    with pytest.raises(InputError, match=message):
        pair_images(touch(tmp_path / "i", *images), touch(tmp_path / "m", *masks))


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere: no such folder; correct its path in params"):
        pair_images(tmp_path / "nowhere", tmp_path)


def test_volumes_pair_by_name_or_as_nnunet_names_them(tmp_path):
    images = touch(tmp_path / "i", "a_0000.nii.gz", "b.nii", "img_0001.nii.gz")
    masks = touch(tmp_path / "m", "a.nii.gz", "b.nii.gz", "img_0001.nii.gz")
    pairs = [(p.id, p.image.name, p.mask.name) for p in pair_volumes(images, masks)]
    assert pairs == [
        ("a", "a_0000.nii.gz", "a.nii.gz"),
        ("b", "b.nii", "b.nii.gz"),
        ("img_0001", "img_0001.nii.gz", "img_0001.nii.gz"),
    ]


@pytest.mark.parametrize(
    ("images", "masks", "message"),
    [
        (("a.png",), (), r"i: no volumes; expected \.nii\.gz or \.nii files"),
        (("a.nii.gz",), (), r"no mask for 1 of 1 images \(a\); expected a\.nii\.gz"),
        (("a_0000.nii.gz", "a_0001.nii.gz"), (), r"1 files are further channels .*\(a_0001\)"),
        (("a.nii", "a_0000.nii"), ("a.nii",), r"two files of the id a"),
    ],
)
def test_volumes_that_do_not_pair(tmp_path, images, masks, message):
    with pytest.raises(InputError, match=message):
        pair_volumes(touch(tmp_path / "i", *images), touch(tmp_path / "m", *masks))
    with pytest.raises(InputError, match="are the same folder"):
        pair_volumes(tmp_path / "i", tmp_path / "i")


@given(st.sets(names, min_size=2, max_size=60), st.floats(0.01, 0.99), st.data())
def test_the_rule_depends_on_the_names_alone_and_fills_both_parts(ids, share, data):
    chosen = part_for_test(ids, share)
    assert len(chosen) == min(max(1, round(share * len(ids))), len(ids) - 1)
    assert part_for_test(data.draw(st.permutations(sorted(ids))), share) == chosen


@given(st.sets(names, min_size=2, max_size=60), names, st.floats(0.01, 0.99))
def test_one_more_image_moves_at_most_one_other(ids, added, share):
    before, after = part_for_test(ids, share), part_for_test(ids | {added}, share)
    assert len((before ^ after) - ({added} - ids)) <= 1


def test_the_rule_stays_what_it_is():
    """Fixed: another order would move images from test to training in everyone's datasets."""
    chosen = part_for_test([f"case{i:02}" for i in range(10)], 0.3)
    assert sorted(chosen) == ["case02", "case04", "case09"]


@given(st.lists(st.integers(0, 5), min_size=4, max_size=40), st.floats(0.05, 0.95))
def test_the_rule_never_parts_a_patient(owners, share):
    if len(set(owners)) < 2:
        owners = [*owners, 6]
    ids = [f"i{n}" for n in range(len(owners))]
    with tempfile.TemporaryDirectory() as folder:
        rows = "".join(f"{key},p{owner}\n" for key, owner in zip(ids, owners, strict=True))
        samples = assign(pairs_of(ids), share, table(Path(folder), "id,patient\n" + rows))
    parts = {}
    for sample in samples:
        parts.setdefault(sample.patient, set()).add(sample.part)
    assert all(len(of_patient) == 1 for of_patient in parts.values())
    assert set.union(*parts.values()) == {"train", "test"}


def test_a_table_says_which_test(tmp_path):
    path = table(tmp_path, "\ufeffid, split ,age\nb,Test,3\na 1,train,4\n")
    assert parts_of(assign(pairs_of(["a_1", "b"]), None, path)) == {"a_1": "train", "b": "test"}
    both = table(tmp_path, "id,split,patient\na,train,Ann  B\nb,test,Bob\nc,train,Ann B\n")
    samples = assign(pairs_of("abc"), None, both)
    assert [sample.patient for sample in samples] == ["Ann B", "Bob", "Ann B"]
    write_samples(tmp_path / "own" / "x.csv", samples)
    train, test = read_samples(tmp_path / "own" / "x.csv")
    assert ([s.id for s in train], test) == (["a", "c"], [samples[1]])
    with pytest.raises(InputError, match=r"y\.csv: not found; run the own_split stage"):
        read_samples(tmp_path / "y.csv")


@pytest.mark.parametrize(
    ("text", "share", "message"),
    [
        (None, None, r"none\.csv: no such file; correct csv:"),
        ("id;split\na;train\n", None, r"columns are id;split; expected id, and split or patient"),
        ("", None, r"its columns are none"),
        ("id,age\na,1\n", 0.5, r"its columns are id, age; expected id, and split or patient"),
        ("id,split\na,train\nb,test\n", 0.5, r"so does test: 0\.5 in params\.yaml; remove one"),
        ("id,patient\na,1\nb,2\n", None, r"no column split, so params\.yaml has .*add test: 0\.2"),
        ("id,split\na,train\nb,val\n", None, r"column split holds 'val'; expected train or test"),
        ("id,split\na,train\nb,train\n", None, r"column split has no test row"),
        ("id,split\na,train\na,test\nb,test\n", None, r"a has two rows; keep one"),
        ("id,split\na,train\n", None, r"no row for 1 of 2 images \(b\)"),
        ("id,split\na,train\nb,test\nc,test\n", None, r"1 rows have no image \(c\)"),
        ("id,split,patient\na,train,P\nb,test,P\n", None, r"1 patients are in train and .*\(P\)"),
        ("id,patient\na,P\nb,\n", 0.5, r"no patient for b; name one in every row"),
        ("id,split\na,train\nb,test\n,train\n", None, r"a row \(train\) has no id; name its image"),
        ("id,patient\na,P\nb,P\n", 0.5, r"1 image or patient cannot be split"),
    ],
)
def test_a_table_that_does_not_fit(tmp_path, text, share, message):
    path = tmp_path / "none.csv" if text is None else table(tmp_path, text)
    with pytest.raises(InputError, match=message):
        assign(pairs_of("ab"), share, path)


def test_empty_rows_below_a_table_are_passed_over(tmp_path):
    path = table(tmp_path, "id,split,\na,train,\nb,test,\n,,\n,,\n")
    assert parts_of(assign(pairs_of("ab"), None, path)) == {"a": "train", "b": "test"}


def test_a_table_that_is_no_text(tmp_path):
    (tmp_path / "split.csv").write_bytes(b"id,split\n\xff\xfe,train\n")
    with pytest.raises(InputError, match=r"split\.csv: not a CSV file in UTF-8"):
        assign(pairs_of("ab"), None, tmp_path / "split.csv")


def test_the_rule_is_told_by_its_messages_where_it_cannot_part():
    with pytest.raises(InputError, match="at least two are needed"):
        assign(pairs_of("a"), 0.5, None)
