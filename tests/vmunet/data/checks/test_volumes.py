"""The report on volumes before training."""

from pathlib import Path

import cv2
import numpy as np

from vmunet.data.checks.volumes import report, write_report
from vmunet.data.volumes import Case, Pixels, write_volumes

CLASSES = ["liver", "gallbladder"]
FACTS = {"view": "ct-32", "source": "own"}


def case(name: str, liver: int, gallbladder: int, spaced: bool = True) -> Case:
    """A case with organs of these numbers of voxels of 2.0 x 1.0 x 1.0 mm."""
    labels = np.zeros((4, 20, 25), np.uint8)
    labels.ravel()[:liver] = 1
    labels.ravel()[liver : liver + gallbladder] = 2
    image = np.random.default_rng(list(name.encode())).random(labels.shape, np.float32)
    return Case(name, lambda: Pixels(image, labels, (2.0, 1.0, 1.0) if spaced else None))


def written(tmp_path: Path, spaced: bool = True) -> dict:
    cases = [case(f"c{i}", 1000 + 10 * i, 40 + i, spaced) for i in range(6)]
    cases += [case("tiny", 100, 42, spaced), case("none", 1020, 0, spaced)]
    return write_volumes(tmp_path / "arrays", FACTS, CLASSES, cases[:6], cases[6:])


def test_what_is_odd_comes_first(tmp_path: Path) -> None:
    lines = report(written(tmp_path)).splitlines()
    assert lines[2] == "6 training cases with 24 slices, 2 test cases with 8."
    findings = [line for line in lines if line.startswith("- ")]
    assert findings == [
        "- liver: 0.2 ml in tiny, the median is 2.04",
        "- gallbladder: missing in none",
    ]
    assert lines.index(findings[0]) < lines.index("Organs in ml.")
    rows = [line for line in lines if line.startswith("| c") or line.startswith("| tiny")]
    assert "| c3 | train | 4 | 20x25 | 2.00 1.00 1.00 | 2.1 | 0.1 |" in rows
    assert "| tiny | test | 4 | 20x25 | 2.00 1.00 1.00 | 0.2 | 0.1 |" in rows


def test_without_a_spacing_in_voxels(tmp_path: Path) -> None:
    text = report(written(tmp_path, spaced=False))
    assert "- liver: 100 voxels in tiny, the median is 1.02e+03" in text
    assert "| c3 | train | 4 | 20x25 | unknown | 1030 | 43 |" in text
    assert "Organs in voxels." in text


def test_the_report_shows_every_case(tmp_path: Path) -> None:
    manifest = written(tmp_path)
    write_report(tmp_path / "arrays", manifest, tmp_path / "reports")
    assert sorted(path.name for path in (tmp_path / "reports").iterdir()) == [
        "cases.png",
        "index.md",
    ]
    sheet = cv2.imread(str(tmp_path / "reports" / "cases.png"))
    assert sheet.shape[0] > 8 * 150
    assert "(cases.png)" in (tmp_path / "reports" / "index.md").read_text()
