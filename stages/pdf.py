"""The report as one PDF, by LaTeX: the figures, every table, and where all of it comes from.

    python -m stages.pdf

Reads  reports/out/tables/, reports/out/figures/ and reports/out/pictures/, the metrics for the band
       and the provenance, and reports/templates/pdf/report.tex.j2.
Writes reports/out/report.tex, which compiles in its place, and reports/out/report.pdf. If LaTeX is
       absent, that is one page which says so and how to get it; reports/out/index.html needs none.
"""

import argparse
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pipeline.config.params import Params, load_params
from pipeline.config.runs import runs
from pipeline.stage import run_stage
from reports.make.figures.listing import figure_folders, listed_figures
from reports.make.results.metrics import read_results
from reports.make.results.provenance import provenance_of
from reports.make.results.views import load_yaml
from reports.make.tables.rows import wanted_metrics
from reports.make.typeset.render import environment
from vmunet.errors import InputError
from vmunet.files import whole_file

LATEX = "pdflatex"
SECONDS = 300  # of one pass
PASSES = 2  # the second knows the references
MISSING = (
    f"No {LATEX} was found when this report was made.",
    "The same report as a page for a browser: reports/out/index.html",
    "For the PDF install LaTeX; on Debian and Ubuntu:",
    "apt-get install texlive-latex-base texlive-latex-recommended lmodern",
    "and then run: dvc repro --force --single-item pdf",
)


def make_pdf(root: Path, params: Params) -> None:
    """Write reports/out/report.tex and reports/out/report.pdf under `root`.

    Raises:
        InputError: a table or figure is missing, or LaTeX does not accept what was made of them.
    """
    declared = load_yaml(root / "reports/tables.yaml")
    results = read_results(root, params, runs(params), wanted_metrics(declared))
    provenance = provenance_of(params, results, declared["datasets"])
    text = (
        environment(root / "reports/templates/pdf")
        .get_template("report.tex.j2")
        .render(
            provenance=provenance,
            figures=[
                entry | {"path": f"{folder.relative_to('reports/out').as_posix()}/{entry['name']}"}
                for folder in figure_folders(params)
                for entry in listed_figures(root / folder)
            ],
            tables=table_files(root / "reports/out/tables/all.tex"),
        )
    )
    with whole_file(root / "reports/out/report.tex") as part:
        part.write_text(text, encoding="utf-8", newline="\n")
    with whole_file(root / "reports/out/report.pdf") as part:
        if shutil.which(LATEX):
            compile_tex(root / "reports/out", text, part)
        else:
            write_page(part, MISSING)


def table_files(document: Path) -> list[str]:
    """The tables that the document of all tables includes, in its order.

    Raises:
        InputError: it is not there.
    """
    try:
        text = document.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{document}: no such file; run `python -m stages.tables`") from None
    return re.findall(r"\\input\{([\w-]+)\}", text)


def compile_tex(folder: Path, text: str, target: Path) -> None:
    """Compile a document whose inputs lie in `folder`; `target` is the PDF's path.

    Raises:
        InputError: LaTeX stops with an error, whose first lines are quoted.
    """
    where = str(folder.resolve())
    # TeX reads from `folder`, runs no programs, and stamps no time: the same input, the same bytes
    settings = os.environ | {
        "TEXINPUTS": f".:{where}:{where}/tables:",
        "SOURCE_DATE_EPOCH": "0",
        "FORCE_SOURCE_DATE": "1",
    }
    command = [LATEX, "-no-shell-escape", "-interaction=nonstopmode", "-halt-on-error"]
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "report.tex").write_text(text, encoding="utf-8")
        for _ in range(PASSES):
            try:
                done = subprocess.run(
                    [*command, "report.tex"],
                    cwd=place,
                    env=settings,
                    capture_output=True,
                    text=True,
                    errors="replace",
                    timeout=SECONDS,
                )
            except subprocess.TimeoutExpired:
                raise InputError(f"{LATEX} did not end within {SECONDS} s") from None
            if done.returncode:
                raise InputError(
                    f"reports/out/report.tex: {LATEX} stopped: {first_error(done.stdout)}"
                )
        shutil.copyfile(Path(place) / "report.pdf", target)


def first_error(log: str) -> str:
    """The first error of a TeX log and the line that it points to, in one line."""
    lines = log.splitlines()
    at = next((i for i, line in enumerate(lines) if line.startswith("!")), None)
    if at is None:
        return " ".join(lines[-3:])
    place = next((line for line in lines[at:] if line.startswith("l.")), "")
    return f"{lines[at]} {place}".strip()


def write_page(target: Path, lines: Sequence[str]) -> None:
    """A PDF of one page with these lines."""
    from matplotlib.backends.backend_pdf import PdfPages
    from matplotlib.figure import Figure

    page = Figure(figsize=(8.27, 11.69))
    for i, line in enumerate(lines):
        page.text(0.1, 0.9 - 0.03 * i, line, fontsize=10)
    with PdfPages(target, metadata={"CreationDate": None}) as pdf:
        pdf.savefig(page)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.pdf", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.parse_args(argv)
    make_pdf(Path(), load_params())
    if shutil.which(LATEX):
        print("written to reports/out/report.pdf")
    else:
        print(f"no {LATEX}: reports/out/report.pdf is one page that says how to get it")


if __name__ == "__main__":
    run_stage(main)
