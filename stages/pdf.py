"""Write the report as one PDF with LaTeX: the figures, every table, and their provenance.

Reads  reports/out/tables/, reports/out/figures/, reports/out/pictures/ and
       reports/templates/pdf/report.tex.j2.
Writes reports/out/report.tex, which compiles in this folder, and reports/out/report.pdf. If LaTeX
       is absent, the PDF is one page that says how to install it; reports/out/index.html needs no
       LaTeX.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from pipeline.stage import run_stage
from reports.make.pdf import LATEX, PDF, make_pdf


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.pdf", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.parse_args(argv)
    if make_pdf(Path()):
        print(f"written to {PDF}")
    else:
        print(f"no {LATEX}: {PDF} is one page that says how to get it")


if __name__ == "__main__":
    run_stage(main)
