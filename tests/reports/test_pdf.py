"""The report as a PDF: compiled if LaTeX is installed, otherwise one page that says so."""

import json
import re
import shutil
import subprocess

import pytest

from reports.make import pdf
from reports.make.figures.listing import FIGURES, NAME, PICTURES
from reports.make.pdf import compile_tex, make_pdf
from tests.helpers.tables import all_runs, made, make_params, prepare, write_metrics
from vmunet.errors import InputError

needs_latex = pytest.mark.skipif(shutil.which("pdflatex") is None, reason="LaTeX is not installed")
NASTY = r"50% of $A_b & #1 {x} ~ ^ \ <b>é 肝 ✓"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Tables of a small grid, and two figures with a hostile title."""
    prepare(tmp_path, monkeypatch.setitem)
    params = make_params()
    runs = all_runs(params, cells=("base", "scratch"))
    write_metrics(tmp_path, params, runs)
    made(tmp_path, params, runs)
    for folder, name in ((FIGURES, "curves"), (PICTURES / "isic17-64", "examples")):
        write_figure(tmp_path / folder, name)
    return tmp_path


def write_figure(folder, name):
    from matplotlib.figure import Figure

    folder.mkdir(parents=True)
    for suffix in ("pdf", "png"):
        Figure(figsize=(3, 2)).savefig(folder / f"{name}.{suffix}")
    entry = {"name": name, "title": NASTY, "caption": NASTY, "data": "phantom", "alt": NASTY}
    (folder / NAME).write_text(json.dumps([entry]))


def text_of(path):
    done = subprocess.run(["pdftotext", "-layout", path, "-"], capture_output=True, text=True)
    return " ".join(done.stdout.split())


@needs_latex
def test_the_report_starts_with_what_was_run_and_ends_with_its_provenance(project):
    make_pdf(project)
    path = project / "reports/out/report.pdf"
    assert path.read_bytes().startswith(b"%PDF")
    if shutil.which("pdftotext"):
        text = text_of(path)
        assert text.count("Figures on phantoms say nothing about skin lesions.") > 8  # captions
        places = [
            text.index(words)
            for words in (
                "Profile demo: ",
                "VM-UNet, measured against published",
                "ISIC17 (phantoms), mIoU in %",
                "Comparison with other models on ISIC17 and ISIC18",
                "50% of $A_b & #1 {x}",
                "Where these figures come from",
            )
        ]
        assert places == sorted(places)
        assert "Code revision: revision" in text
        assert "Profile: demo: A made-up profile, 100% invented." in text
        assert "Comparison with other models on ISIC17 and ISIC18" in text
        assert "Measured against published" in text
        assert "50% of $A_b & #1 {x}" in text


@needs_latex
def test_the_document_compiles_in_its_place_and_to_the_same_bytes(project):
    make_pdf(project)
    folder = project / "reports/out"
    before = (folder / "report.pdf").read_bytes()
    make_pdf(project)
    assert (folder / "report.pdf").read_bytes() == before
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "report.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout


def test_without_latex_one_page_says_how_to_get_it(project, monkeypatch):
    monkeypatch.setattr(pdf.shutil, "which", lambda name: None)
    make_pdf(project)
    content = (project / "reports/out/report.pdf").read_bytes()
    assert content.startswith(b"%PDF")
    assert b"/Count 1" in content
    assert r"\documentclass" in (project / "reports/out/report.tex").read_text()


@needs_latex
def test_a_document_that_latex_refuses_is_one_error_and_the_old_one_stays(project, monkeypatch):
    path = project / "reports/out/report.pdf"
    path.write_bytes(b"old")
    template = project / "reports/templates/pdf/report.tex.j2"
    template.write_text(template.read_text().replace(r"\end{document}", r"\unknowncommand"))
    with pytest.raises(InputError, match=r"pdflatex stopped: ! Undefined control sequence"):
        make_pdf(project)
    assert path.read_bytes() == b"old"
    assert not list((project / "reports/out").glob(".*.part"))


@needs_latex
def test_a_document_cannot_run_programs_or_take_for_ever(tmp_path, monkeypatch):
    text = r"\documentclass{article}\begin{document}\immediate\write18{touch ran}x\end{document}"
    compile_tex(tmp_path, text, tmp_path / "a.pdf")
    assert not list(tmp_path.rglob("ran"))
    monkeypatch.setattr(pdf, "SECONDS", 1)
    with pytest.raises(InputError, match="did not end within 1 s"):
        compile_tex(tmp_path, r"\def\x{\x}\x", tmp_path / "b.pdf")


def test_missing_files_are_named(project):
    (project / "reports/out/figures/curves.pdf").unlink()
    with pytest.raises(InputError, match=r"curves\.pdf: no such file, though .*figures\.json"):
        make_pdf(project)
    (project / "reports/out/tables/report.json").unlink()
    with pytest.raises(InputError, match=r"report\.json: no such file; .* -m stages.tables`"):
        make_pdf(project)


def test_the_report_includes_every_table_once(project):
    make_pdf(project)
    text = (project / "reports/out/report.tex").read_text()
    written = {path.stem for path in (project / "reports/out/tables").glob("*.tex")} - {"all"}
    tables = re.findall(r"\\input\{([\w-]+)\}", text)
    assert set(tables) == written
    assert len(tables) == len(written) > 8
