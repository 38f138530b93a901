"""Every table compiles in a bare article and in IEEEtran, and no line is too wide."""

import re
import shutil
import subprocess

import pytest

from tests.helpers.tables import (
    Run,
    all_runs,
    made,
    made_up,
    make_params,
    write_metrics,
)
from tests.helpers.tables_measuring import (
    MadeUpStatistics,
    make_everything,
    write_costs,
    write_cross,
    write_speed,
)

pytestmark = pytest.mark.skipif(
    shutil.which("pdflatex") is None, reason="pdflatex is not installed"
)
# 2 cm margins on A4, without a package.
ARTICLE = r"""\documentclass[10pt,a4paper]{article}
\usepackage{booktabs}
\setlength{\textwidth}{17cm}\setlength{\oddsidemargin}{-.54cm}
\setlength{\textheight}{25.7cm}\setlength{\topmargin}{-2cm}
"""
IEEETRAN = r"""\documentclass[10pt,journal]{IEEEtran}
\usepackage{booktabs}
"""
NASTY = 'A & B % $ # _ { } ~ ^ \\\\ < > " [ ] * ± × − é ß µ 肝 '
LONG = NASTY + "a very long name " + "w" * 50


def compiled(folder, name, runs=2):
    """The log of the last run of pdflatex, with broken lines joined."""
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", f"{name}.tex"]
    for _ in range(runs):
        process = subprocess.run(command, cwd=folder, capture_output=True, timeout=120)
        log = process.stdout.decode("latin-1")
        assert process.returncode == 0, log[-2000:]
    return re.sub(r"(?<=.{79})\n", "", log)


def document(folder, preamble):
    """Write a document with every table and references to them; returns the number of tables."""
    names = sorted(path.stem for path in folder.glob("*.tex") if path.stem != "all")
    body = [rf"Table~\ref{{tab:{name}}}" for name in names]
    body += [rf"\input{{{name}}}" for name in names]
    begin = r"\maxdeadcycles=1000 \begin{document}"  # floats alone: more than TeX expects
    text = "\n".join([preamble, begin, *body, r"\end{document}", ""])
    (folder / "document.tex").write_text(text, encoding="ascii")
    return len(names)


def fine(log):
    """No line too wide, no float too large, no missing reference or character."""
    complaints = ("Overfull", "too large", "undefined", "Missing character", "Warning")
    return [line for line in log.splitlines() if any(word in line for word in complaints)]


def long_names(root):
    """Datasets, rows, cells, titles and notes with any text that a person may write."""
    path = root / "reports" / "tables.yaml"
    text = path.read_text()
    quoted = LONG.replace("'", "''")
    text = text.replace("isic17: ISIC17", f"isic17: '{quoted}'")
    text = text.replace("label: VM-UNet,", f"label: '{quoted} r',")
    text = text.replace("label: MALUNet,", f"label: '{quoted} m',")
    text = text.replace("title: Initial weights", f"title: '{quoted}'")
    text = text.replace("heading: Drop path", f"heading: '{quoted}'")
    text = text.replace("heading: mIoU", f"heading: '{quoted}'")
    text = text.replace('The paper\'s "dropout" is', f"{LONG.replace(': ', '')} is")
    path.write_text(text)
    params = make_params(volumes=(64,), cross=("isic17-to-isic18",))
    params.profile.about = params.profile_name = "demo"
    params.profile.about = LONG
    mine = "my_own & cell_" + "x" * 60
    params.cells[mine] = params.cells["base"]
    rivals, volume_rivals = params.grid.rivals, params.grid.volume_rivals
    runs = all_runs(params, (1, 20, 300), rivals=rivals, volume_rivals=volume_rivals)
    runs += [Run("isic17-64", mine, protocol, 1) for protocol in ("paper", "sound")]

    def scores(run):
        cell = "base" if run.cell == mine else run.cell
        return made_up(Run(run.view, cell, run.protocol, run.seed))

    write_metrics(root, params, runs, scores)
    write_cross(root, params, runs)
    write_speed(root, params, device=LONG)
    write_costs(root, params)
    return made(root, params, runs, MadeUpStatistics())


@pytest.mark.parametrize(("made_by", "number"), [(make_everything, 18), (long_names, 18)])
@pytest.mark.parametrize(("preamble", "needs"), [(ARTICLE, "article"), (IEEETRAN, "IEEEtran")])
def test_every_table_compiles_with_booktabs_alone(root, made_by, number, preamble, needs):
    located = subprocess.run(["kpsewhich", f"{needs}.cls"], capture_output=True)
    if located.returncode != 0:
        pytest.skip(f"{needs}.cls is not installed")
    folder = made_by(root)
    assert document(folder, preamble) == number
    assert fine(compiled(folder, "document")) == []


@pytest.mark.parametrize("made_by", [make_everything, long_names])
def test_the_whole_document_compiles(root, made_by):
    folder = made_by(root)
    assert fine(compiled(folder, "all")) == []
    assert (folder / "all.pdf").stat().st_size > 10_000


def test_a_table_too_wide_would_be_seen(root):
    folder = make_everything(root)
    path = folder / "table3.tex"
    path.write_text(path.read_text().replace("VMamba-T", r"\mbox{" + "W" * 120 + "}"))
    document(folder, ARTICLE)
    assert "Overfull" in fine(compiled(folder, "document"))[0]


def test_no_other_package_and_no_long_float(root):
    folder = make_everything(root)
    for path in folder.glob("*.tex"):
        text = path.read_text()
        assert text.isascii(), path.name
        for word in ("longtable", "multirow", "color", "makecell", "resizebox", "arraybackslash"):
            assert word not in text, (path.name, word)
        for float_ in text.split(r"\end{table*}")[:-1]:
            assert float_.split(r"\midrule", 1)[1].count(r" \\") <= 40
    sound = (folder / "sound.tex").read_text()
    assert sound.count(r"\begin{table*}") == 3
    assert sound.count("(continued).") == 2
    assert sound.count(r"\label{") == 1
