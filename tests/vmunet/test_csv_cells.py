"""Names in CSV files: a spreadsheet runs none of them, and our readers get them back."""

import csv
import io
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from reports.make.files import read_rows
from reports.make.tidy import tidy
from vmunet.csv_cells import UnixLines, from_cell, to_cell
from vmunet.data.own.split import Sample, read_samples, write_samples
from vmunet.inference.tables import VolumePrediction, append_rows

HOSTILE = ("=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "'=1", "''-x", "=cmd|' /C calc'!A0")
STARTS = tuple("=+-@\t\r\n")
TEXTS = st.text("'=+-@\t\r\n\uff1d1.ea ,\"", max_size=6) | st.text(max_size=6)


@settings(max_examples=300, deadline=None)
@given(TEXTS)
@example("-1.5")
@example("'-1.5")
def test_a_text_comes_back_and_no_cell_is_a_formula(text: str) -> None:
    cell = to_cell(text)
    assert from_cell(cell) == text
    if cell.startswith(STARTS):
        assert set(cell) == {"-"} or float(cell) is not None  # only a number may begin so
    # through a file
    file = io.StringIO(newline="")
    csv.writer(UnixLines(file)).writerow([cell, "end"])
    file.seek(0)
    assert from_cell(next(csv.reader(file))[0]) == text


@pytest.mark.parametrize("number", [-1.5, "-1.5", "+3", "-2e-05", "-.5", "-inf", 0, None, True])
def test_a_number_stays_one(number: object) -> None:
    assert to_cell(number) == number


@pytest.mark.parametrize("name", HOSTILE)
def test_our_tables_hold_hostile_names_as_text(tmp_path: Path, name: str) -> None:
    sample = Sample(name, "train", name, f"images/{name}", f"masks/{name}")
    write_samples(tmp_path / "split.csv", [sample])
    assert read_samples(tmp_path / "split.csv") == ([sample], [])

    append_rows(tmp_path / "predictions.csv", [VolumePrediction(name, name, 3, 0.5)], begin=True)
    (tmp_path / "runs.csv").write_bytes(tidy([{"id": name, "change": -1.5}]).csv().encode())
    assert read_rows(tmp_path / "runs.csv") == [{"id": name, "change": "-1.5"}]
    for path in tmp_path.glob("*.csv"):
        with path.open(newline="") as file:
            cells = [cell for row in csv.reader(file) for cell in row]
        assert [cell for cell in cells if cell.startswith(STARTS)] in ([], ["-1.5"])
