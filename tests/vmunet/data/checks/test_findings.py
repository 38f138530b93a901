"""The findings of the data checks, what they do not report, and the report's text."""

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.helpers.data import blob, encoded, picture, write_raw_folder
from vmunet.data.checks.facts import MeasuredDataset, measure
from vmunet.data.checks.findings import KINDS, find, find_pairs, shared_ids
from vmunet.data.checks.report import report, write_findings
from vmunet.drawing.sheets.findings import dataset_groups, draw, pair_groups
from vmunet.drawing.sheets.images import COLUMNS, GAP, TILE
from vmunet.errors import InputError

DECLARED = {"train": 4, "test": 2}


def pictures(*seeds: int) -> dict[str, np.ndarray]:
    return {f"ISIC_{seed:07d}": picture(seed) for seed in seeds}


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return write_raw_folder(tmp_path / "isic17", pictures(0, 1, 2, 3), pictures(4, 5))


def kinds(raw: Path) -> list[tuple[str, str]]:
    return [(finding.kind, finding.id) for finding in find(measure("isic17", raw), DECLARED)]


def test_clean_data_give_no_finding(raw: Path) -> None:
    measured = measure("isic17", raw)
    assert find(measured, DECLARED) == []
    assert find_pairs([measured]) == []


def paint(path: Path, pixels: np.ndarray) -> None:
    path.write_bytes(encoded(pixels))


def mask(*boxes: tuple[int, int, int, int], value: int = 255, shape=(96, 128)) -> np.ndarray:
    pixels = np.zeros(shape, np.uint8)
    for top, bottom, left, right in boxes:
        pixels[top:bottom, left:right] = value
    return pixels


def only_red() -> np.ndarray:
    pixels = picture(9)
    pixels[..., :2] = 0
    return pixels


@pytest.mark.parametrize(
    ("kind", "pixels"),
    [
        ("values", mask((20, 40, 20, 40), value=200)),
        ("empty", mask()),
        ("tiny", mask((20, 24, 20, 24))),
        ("pieces", mask((20, 40, 20, 40), (60, 62, 60, 62))),
        ("border", mask((0, 40, 20, 40))),
        ("size", blob(48, 64)),
    ],
)
def test_an_odd_mask_is_found(raw: Path, kind: str, pixels: np.ndarray) -> None:
    paint(raw / "masks" / "ISIC_0000002.png", pixels)
    assert kinds(raw) == [(kind, "ISIC_0000002")]


def test_a_full_mask_is_found_and_touches_the_border(raw: Path) -> None:
    paint(raw / "masks" / "ISIC_0000004.png", np.full((96, 128), 255, np.uint8))
    assert kinds(raw) == [("full", "ISIC_0000004"), ("border", "ISIC_0000004")]


@pytest.mark.parametrize(
    ("kinds_found", "pixels"),
    [
        (["flat"], np.full((96, 128, 3), (90, 120, 200), np.uint8)),
        (["dark"], picture(9) // 8),
        (["flat", "bright"], 255 - picture(9) // 16),
        (["channel"], only_red()),
        (["channel"], cv2.cvtColor(picture(9)[..., 0], cv2.COLOR_GRAY2BGR)),
        (["aspect"], picture(9, 96, 256)),
    ],
)
def test_an_odd_image_is_found(raw: Path, kinds_found: list[str], pixels: np.ndarray) -> None:
    paint(raw / "images" / "ISIC_0000001.png", pixels)
    paint(raw / "masks" / "ISIC_0000001.png", blob(*pixels.shape[:2]))
    assert kinds(raw) == [(kind, "ISIC_0000001") for kind in kinds_found]


def test_unreadable_missing_and_stray_files_are_found_and_end_nothing(raw: Path) -> None:
    (raw / "images" / "ISIC_0000000.png").write_bytes(b"not an image")
    (raw / "masks" / "ISIC_0000001.png").unlink()
    (raw / "images" / "ISIC_0000099.jpg").write_bytes(encoded(picture(99), ".jpg"))
    measured = measure("isic17", raw)
    findings = find(measured, DECLARED)
    assert [each.kind for each in findings] == ["unreadable", "unreadable", "stray"]
    assert "not a readable image" in findings[0].detail
    assert findings[1].detail == "masks/ISIC_0000001.png: missing"
    assert findings[2].detail == "images/ISIC_0000099.jpg"
    sheet = draw(dataset_groups(measured, findings, []), "isic17", lambda _: raw)
    assert sheet.dtype == np.uint8


def test_a_jpeg_that_is_decoded_only_in_part_is_found(raw: Path) -> None:
    for key, damaged in (("ISIC_0000001", True), ("ISIC_0000002", False)):
        content = bytearray(encoded(picture(7), ".jpg"))
        if damaged:
            middle = len(content) // 2
            del content[middle : middle + 100]
        (raw / "images" / f"{key}.png").unlink()
        (raw / "images" / f"{key}.jpg").write_bytes(content)
    findings = find(measure("isic17", raw), DECLARED)
    assert [(one.kind, one.id) for one in findings] == [("damaged", "ISIC_0000001")]
    assert findings[0].detail.startswith("Corrupt JPEG data")


def test_other_counts_and_an_id_in_both_splits_are_found(raw: Path) -> None:
    manifest = json.loads((raw / "manifest.json").read_text())
    manifest["test"].append("ISIC_0000000")
    (raw / "manifest.json").write_text(json.dumps(manifest))
    first, second = find(measure("isic17", raw), DECLARED)
    assert (first.kind, first.detail) == ("count", "3 images, declared 2")
    assert (second.kind, second.id, second.detail) == ("twice", "ISIC_0000000", "in train and test")


def test_the_most_extreme_of_a_kind_comes_first(raw: Path) -> None:
    for key, side in (("ISIC_0000001", 6), ("ISIC_0000003", 4)):
        paint(raw / "masks" / f"{key}.png", mask((20, 20 + side, 20, 20 + side)))
    assert kinds(raw) == [("tiny", "ISIC_0000003"), ("tiny", "ISIC_0000001")]


@pytest.mark.parametrize("content", [None, "{", "[]", '{"train": []}'])
def test_a_dataset_without_manifest_is_one_sentence(raw: Path, content: str | None) -> None:
    path = raw / "manifest.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(InputError, match=r"manifest.*run the download stage"):
        measure("isic17", raw)


@pytest.fixture
def leaking(raw: Path) -> MeasuredDataset:
    """A test image is a training image at half the size; two training images are identical."""
    small = cv2.resize(picture(1), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    paint(raw / "images" / "ISIC_0000005.png", small)
    paint(raw / "masks" / "ISIC_0000005.png", blob(48, 64))
    paint(raw / "images" / "ISIC_0000003.png", picture(0))
    return measure("isic17", raw)


def test_a_leak_comes_first_everywhere(leaking: MeasuredDataset, raw: Path, tmp_path: Path) -> None:
    findings, pairs = {"isic17": find(leaking, DECLARED)}, find_pairs([leaking])
    assert findings["isic17"] == []
    text = report("Made images.", [leaking], findings, pairs, [], ["isic17"])
    lines = text.splitlines()
    assert lines[:3] == ["# Data checks", "", "Made images."]
    assert lines[4] == "## Train and test show the same picture"
    assert lines[6].startswith("**1 leak** (isic17: 1): 1 test image with a picture that is")
    row = [cell.strip() for cell in lines[10].strip("|").split("|")]
    assert row[:2] == ["isic17 train ISIC_0000001", "isic17 test ISIC_0000005"]
    assert int(row[2]) <= 2
    assert float(row[3]) > 0.9
    assert row[5:] == ["1.00", "upright"]
    assert "Copies within a split: 1 pair." in text
    assert "| isic17 train ISIC_0000000 | isic17 train ISIC_0000003 | 0 | 1.000 | 1.000 |" in text
    write_findings(tmp_path / "findings.csv", findings, pairs)
    with open(tmp_path / "findings.csv") as file:
        rows = list(csv.DictReader(file))
    assert [(row["finding"], row["id"], row["other_id"]) for row in rows] == [
        ("leak", "ISIC_0000001", "ISIC_0000005"),
        ("copy", "ISIC_0000000", "ISIC_0000003"),
    ]
    groups = dataset_groups(leaking, [], pairs)
    assert [title for title, _ in groups] == [
        "train and test show the same picture: 1 pair",
        "copies within a split: 1 pair",
        "train: 4 of 4, evenly spaced",
        "test: 2 of 2, evenly spaced",
    ]
    assert [shown.lines[0] for shown in groups[0][1]] == ["ISIC_0000001", "ISIC_0000005"]
    sheet = draw(groups, "isic17", lambda _: raw)
    assert sheet.shape[1:] == (GAP + COLUMNS * (TILE + GAP), 3)


def test_a_clean_report(raw: Path) -> None:
    measured = measure("isic17", raw)
    text = report("Made images.", [measured], {"isic17": []}, [], [], ["isic17"])
    assert text.startswith(
        "# Data checks\n\nMade images.\n\n## Train and test show the same picture\n\n"
        "No leak found.\n\n## isic17 (source: made)\n\n"
        "| split | images | width x height: min | median | max | mask share: min | 5% | median "
        "| 95% | max |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
        "| train | 4 | 128x96 | 128x96 | 128x96 | 6.2% | 6.2% | 6.2% | 6.2% | 6.2% |\n"
        "| test | 2 | 128x96 | 128x96 | 128x96 | 6.2% | 6.2% | 6.2% | 6.2% | 6.2% |\n\n"
        "Nothing was found wrong with an image or a mask.\n\nNo copies within a split.\n\n"
        "![images with their masks' outlines](isic17.png)\n\n## How copies are found\n"
    )


def test_every_kind_is_told_in_the_report(raw: Path) -> None:
    paint(raw / "masks" / "ISIC_0000002.png", mask())
    measured = measure("isic17", raw)
    text = report("", [measured], {"isic17": find(measured, DECLARED)}, [], [], [])
    assert f"| {KINDS['empty']} | 1 | 0 | ISIC_0000002 (nothing marked) |" in text


def test_what_two_datasets_share(raw: Path, tmp_path: Path) -> None:
    """One id is the same in both, one is in the other split, one has another picture."""
    there = pictures(0, 5, 20)
    there["ISIC_0000001"] = picture(21)
    here = measure("isic17", raw)
    other = write_raw_folder(tmp_path / "isic18", there, {"ISIC_0000030": picture(2)})
    other_measured = measure("isic18", other)
    shared = shared_ids(here, other_measured)
    assert (shared.count, shared.identical, shared.crossing) == (3, 2, 1)
    assert shared.unlike == ["ISIC_0000001"]
    (pair,) = find_pairs([here, other_measured])
    assert pair.across
    assert (pair.first.id, pair.second.id) == ("ISIC_0000002", "ISIC_0000030")
    findings = {"isic17": [], "isic18": []}
    text = report("", [here, other_measured], findings, [pair], [shared], ["between"])
    assert "No leak found." in text
    assert "isic17 and isic18 share 3 ids." in text
    assert "Under 2 of them the picture is the same (2: every pixel). 1 of those train" in text
    assert "Under 1 of them the pictures differ: ISIC_0000001." in text
    assert "| isic17 train ISIC_0000002 | isic18 test ISIC_0000030 | 0 |" in text
    assert pair_groups("across", [pair])[0][1][1].lines == (
        "ISIC_0000030",
        "isic18 test: masks' IoU 1.00",
    )


def test_a_turned_copy_trains_first_and_is_named_as_it_must_be_laid(tmp_path: Path) -> None:
    """The test image of one dataset, turned left, is another one's training image."""
    square = picture(3, 128, 128)
    one = write_raw_folder(tmp_path / "isic17", pictures(0), {"ISIC_0000003": square})
    turned = {"ISIC_0000009": np.ascontiguousarray(np.rot90(square))}
    other = write_raw_folder(tmp_path / "isic18", turned, pictures(1))
    (pair,) = find_pairs([measure("isic17", one), measure("isic18", other)])
    assert (pair.first.id, pair.second.id) == ("ISIC_0000009", "ISIC_0000003")
    assert pair.copy.turn.name == "turned left"  # this turn of the second matches the first


def test_the_report_names_the_files_the_data_came_from(raw: Path) -> None:
    manifest = json.loads((raw / "manifest.json").read_text())
    manifest["archives"] = [{"name": "a.zip", "bytes": 12345, "sha256": "0123456789abcdef" * 4}]
    (raw / "manifest.json").write_text(json.dumps(manifest))
    text = report("", [measure("isic17", raw)], {"isic17": []}, [], [], [])
    assert "Made from a.zip (12,345 bytes, sha256 0123456789ab...)." in text


def test_datasets_of_no_common_id(raw: Path, tmp_path: Path) -> None:
    other = write_raw_folder(tmp_path / "isic18", pictures(40), pictures(41))
    both = [measure("isic17", raw), measure("isic18", other)]
    findings = {"isic17": [], "isic18": []}
    text = report("", both, findings, [], [shared_ids(*both)], [])
    assert "isic17 and isic18 share no id." in text
    assert "No picture was found under two ids." in text
