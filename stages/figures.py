"""Draw the report's figures of scores; stages.pictures draws those of images.

Reads params.yaml, reports/figures.yaml, reports/tables.yaml and the files of each run of the grid
in metrics/; writes reports/out/figures/: each figure as PDF and PNG, and figures.json, which lists
them in order with title, caption, source of the data and alternative text. A band above a figure
says if its data are phantoms.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from pipeline.config.params import load_params
from pipeline.config.runs import runs
from pipeline.stage import run_stage
from reports.make.figures.drawn import make_figures
from reports.make.figures.listing import FIGURES


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.figures", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.parse_args(argv)
    params = load_params()
    names = make_figures(Path(), params, runs(params))
    print(f"{len(names)} figures written to {FIGURES}: {', '.join(names)}")


if __name__ == "__main__":
    run_stage(main)
