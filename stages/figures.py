"""Draw the report's figures of scores; stages.pictures draws those of images.

Reads params.yaml, reports/figures.yaml, reports/tables.yaml and what each run of the grid left in
metrics/; writes reports/out/figures/: each figure as PDF and PNG, and figures.json, which lists
them in order with title, caption, source of the data and alternative text. A figure of phantoms
says so in a band above it.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from pipeline.config.params import Params, load_params
from pipeline.config.runs import Run, runs
from pipeline.stage import run_stage
from reports.make.figures.fields import receptive_fields
from reports.make.figures.listing import FIGURES as OUTPUT
from reports.make.figures.runs import Runs
from reports.make.figures.scores import by_size, dice_distributions, reliability, training_curves
from reports.make.figures.volumes import by_organ
from reports.make.figures.writing import write_figures
from vmunet.files import whole_folder

DRAWN = (
    dice_distributions,
    by_size,
    reliability,
    training_curves,
    by_organ,
    receptive_fields,
)


def make_figures(root: Path, params: Params, declared_runs: Sequence[Run]) -> list[str]:
    """Write reports/out/figures/ under `root`, whole or not at all; returns the figures' names.

    Raises InputError where a file that a run of the grid should have left is missing or broken.
    """
    with whole_folder(root / OUTPUT) as folder:
        return write_figures(Runs(root, params, declared_runs), DRAWN, folder)


def main(argv: Sequence[str] | None = None) -> None:
    argparse.ArgumentParser(prog="python -m stages.figures", description=__doc__).parse_args(argv)
    params = load_params()
    names = make_figures(Path(), params, runs(params))
    print(f"{len(names)} figures written to {OUTPUT}: {', '.join(names)}")


if __name__ == "__main__":
    run_stage(main)
