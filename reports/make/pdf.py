"""The report as one PDF, by LaTeX if it is installed."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from reports.make.figures.listing import figure_folders, listed_figures
from reports.make.main_comparison import SAME_IMAGES, main_blocks, main_title
from reports.make.report import read_report
from reports.make.typeset.render import environment
from vmunet.errors import InputError
from vmunet.files import whole_file

OUT = Path("reports/out")
PDF, TEX = OUT / "report.pdf", OUT / "report.tex"
LATEX = "pdflatex"
SECONDS = 300  # of one pass
PASSES = 2  # the second pass knows the references
MISSING = (
    f"No {LATEX} was found when this report was made.",
    "The same report as a page for a browser: reports/out/index.html",
    "For the PDF install LaTeX; on Debian and Ubuntu:",
    "apt-get install texlive-latex-base texlive-latex-recommended lmodern",
    "and then run: dvc repro --force --single-item pdf",
)


def make_pdf(root: Path) -> bool:
    """Write reports/out/report.tex and reports/out/report.pdf under `root`.

    Returns:
        Whether LaTeX compiled it; without LaTeX the PDF is one page that says how to install it.

    Raises:
        InputError: a table or figure is missing, or LaTeX does not accept the document.
    """
    report = read_report(root)
    figures = [
        entry | {"path": (folder.relative_to(OUT) / entry["name"]).as_posix()}
        for folder in figure_folders(report.pictured)
        for entry in listed_figures(root / folder)
    ]
    template = environment(root / "reports/templates/pdf").get_template("report.tex.j2")
    blocks = main_blocks(report)
    text = template.render(
        report=report,
        blocks=blocks,
        title=main_title(blocks),
        figures=figures,
        same_images=SAME_IMAGES,
    )
    with whole_file(root / TEX) as part:
        part.write_text(text, encoding="utf-8", newline="\n")
    latex = shutil.which(LATEX) is not None
    with whole_file(root / PDF) as part:
        if latex:
            compile_tex(root / OUT, text, part)
        else:
            write_page(part, MISSING)
    return latex


def compile_tex(folder: Path, text: str, target: Path) -> None:
    """Compile a document whose inputs lie in `folder`; `target` is the PDF's path.

    Raises:
        InputError: LaTeX stops with an error, whose first lines are quoted.
    """
    inputs = str(folder.resolve())
    # TeX reads from `folder`, runs no programs, and stamps no time: the same input, the same bytes
    settings = os.environ | {
        "TEXINPUTS": f".:{inputs}:{inputs}/tables:",
        "SOURCE_DATE_EPOCH": "0",
        "FORCE_SOURCE_DATE": "1",
    }
    command = [LATEX, "-no-shell-escape", "-interaction=nonstopmode", "-halt-on-error"]
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "report.tex").write_text(text, encoding="utf-8")
        for _ in range(PASSES):
            try:
                process = subprocess.run(
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
            if process.returncode:
                raise InputError(f"{TEX}: {LATEX} stopped: {first_error(process.stdout)}")
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
