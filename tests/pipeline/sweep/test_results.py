"""What a complete sweep prints: Table III as report.json has it, and the paths."""

import os
from pathlib import Path

import pytest

from pipeline.sweep import results as results_module
from pipeline.sweep.results import NO_LATEX, results
from reports.make.pdf import PDF
from tests.helpers.tables import all_runs, made, make_params, prepare, write_metrics

WIDE = """\
                          ISIC17 (phantoms)           ISIC18 (phantoms)
                          mIoU          DSC           mIoU          DSC
Initial weights           publ.  meas.  publ.  meas.  publ.  meas.  publ.  meas.
none                      77.59  70.40  87.38  82.63  78.66  71.40  88.06  83.31
"""


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the tables of made-up runs."""
    prepare(tmp_path, monkeypatch.setitem)
    params = make_params()
    write_metrics(tmp_path, params, all_runs(params))
    made(tmp_path, params, all_runs(params))
    return tmp_path


def columns(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    size = os.terminal_size((count, 24))
    monkeypatch.setattr(results_module.shutil, "get_terminal_size", lambda: size)


def test_table_iii_is_printed_with_what_it_was_made_from(
    report: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns(monkeypatch, 80)
    text = results(report)
    assert "Table III. Initial weights. Profile demo, " in text
    assert "ISIC18: " in text
    assert WIDE in text
    assert max(map(len, text.splitlines())) <= 80
    assert "page    reports/out/index.html\n" in text
    columns(monkeypatch, 79)  # one dataset below the other
    narrow = results(report)
    assert max(map(len, narrow.splitlines())) < 80
    assert narrow.count("VMamba-S, sound protocol") == 2


def test_a_pdf_that_latex_did_not_make_is_not_named(report: Path) -> None:
    assert f"PDF     {NO_LATEX}" in results(report)
    (report / PDF).write_bytes(b"%PDF-1.4 /Producer (Matplotlib pdf backend)")
    assert f"PDF     {NO_LATEX}" in results(report)
    (report / PDF).write_bytes(b"%PDF-1.5 /Producer (pdfTeX-1.40.24)")
    assert f"PDF     {PDF}\n" in results(report)


def test_without_a_report_nothing_is_printed(tmp_path: Path) -> None:
    assert results(tmp_path) == ""
