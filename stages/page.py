"""Write the report as one page that needs no other file: reports/out/index.html.

Reads reports/out/tables/report.json, reports/out/figures/, reports/out/pictures/ and
reports/templates/page/; writes reports/out/index.html: what was run on what, the main comparison
and three test cases; then every table with links from each figure to its metrics file and MLflow
run, every figure, every test case with truth and prediction and with every model's mask, and
provenance. Scripts, styles and pictures are inside: the page loads nothing from a network.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from pipeline.stage import run_stage
from reports.make.page.document import OUTPUT, make_page


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.page", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.parse_args(argv)
    make_page(Path())
    print(f"written to {OUTPUT}")


if __name__ == "__main__":
    run_stage(main)
