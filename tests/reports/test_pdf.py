"""The report as a PDF: compiled where LaTeX is, one page that says so where it is not."""

import json
import shutil
import subprocess
from types import SimpleNamespace

import pytest

from reports.make.figures.listing import FIGURES, NAME, PICTURES
from stages import pdf as stage
from stages.pdf import compile_tex, make_pdf, table_files
from tests.helpers.tables import REPOSITORY, all_runs, made, make_params, prepare, write_metrics
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
    monkeypatch.setattr(stage, "runs", lambda params: runs)
    return SimpleNamespace(root=tmp_path, params=params)


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
def test_the_report_has_figures_tables_provenance_and_the_band_on_every_page(project):
    make_pdf(project.root, project.params)
    path = project.root / "reports/out/report.pdf"
    assert path.read_bytes().startswith(b"%PDF")
    if shutil.which("pdftotext"):
        pages = text_of(path).split("Phantom data: these figures say nothing about skin lesions.")
        assert len(pages) > 8  # the band of each page, and the captions
        text = text_of(path)
        assert "Code revision: revision" in text
        assert "Profile: demo: A made-up profile, 100% invented." in text
        assert "Comparison with other models on ISIC17 and ISIC18" in text
        assert "Measured against published" in text
        assert "50% of $A_b & #1 {x}" in text


@needs_latex
def test_the_document_compiles_in_its_place_and_to_the_same_bytes(project):
    make_pdf(project.root, project.params)
    folder = project.root / "reports"
    before = (folder / "report.pdf").read_bytes()
    make_pdf(project.root, project.params)
    assert (folder / "report.pdf").read_bytes() == before
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "report.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout


def test_without_latex_one_page_says_how_to_get_it(project, monkeypatch):
    monkeypatch.setattr(stage.shutil, "which", lambda name: None)
    make_pdf(project.root, project.params)
    content = (project.root / "reports/out/report.pdf").read_bytes()
    assert content.startswith(b"%PDF")
    assert b"/Count 1" in content
    assert r"\documentclass" in (project.root / "reports/out/report.tex").read_text()


@needs_latex
def test_a_document_that_latex_refuses_is_one_error_and_the_old_one_stays(project, monkeypatch):
    path = project.root / "reports/out/report.pdf"
    path.write_bytes(b"old")
    template = project.root / "reports/templates/pdf/report.tex.j2"
    template.write_text(template.read_text().replace(r"\end{document}", r"\unknowncommand"))
    with pytest.raises(InputError, match=r"pdflatex stopped: ! Undefined control sequence"):
        make_pdf(project.root, project.params)
    assert path.read_bytes() == b"old"
    assert not list((project.root / "reports").glob(".*.part"))


@needs_latex
def test_a_document_cannot_run_programs_or_take_for_ever(tmp_path, monkeypatch):
    text = r"\documentclass{article}\begin{document}\immediate\write18{touch ran}x\end{document}"
    compile_tex(tmp_path, text, tmp_path / "a.pdf")
    assert not list(tmp_path.rglob("ran"))
    monkeypatch.setattr(stage, "SECONDS", 1)
    with pytest.raises(InputError, match="did not end within 1 s"):
        compile_tex(tmp_path, r"\def\x{\x}\x", tmp_path / "b.pdf")


def test_what_is_missing_is_named(project):
    (project.root / "reports/out/figures/curves.pdf").unlink()
    with pytest.raises(InputError, match=r"curves\.pdf: no such file, though .*figures\.json"):
        make_pdf(project.root, project.params)
    with pytest.raises(InputError, match=r"all\.tex: no such file; run `python -m stages.tables`"):
        table_files(project.root / "nowhere/all.tex")


def test_the_report_includes_every_table_once():
    tables = table_files(REPOSITORY / "tests/golden_tables/all.tex")
    written = {path.stem for path in (REPOSITORY / "tests/golden_tables").glob("*.tex")} - {"all"}
    assert set(tables) == written
    assert len(tables) == len(written)
