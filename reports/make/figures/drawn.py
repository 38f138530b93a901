"""Draws all figures of scores."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reports.make.figures.fields import receptive_fields
from reports.make.figures.listing import FIGURES
from reports.make.figures.runs import Runs
from reports.make.figures.scores import by_size, dice_distributions, reliability, training_curves
from reports.make.figures.volumes import by_organ
from reports.make.figures.writing import write_figures
from vmunet.files import whole_folder

if TYPE_CHECKING:
    from pipeline.config.params import Params
    from pipeline.config.runs import Run

DRAWN = (
    dice_distributions,
    by_size,
    reliability,
    training_curves,
    by_organ,
    receptive_fields,
)


def make_figures(root: Path, params: "Params", declared_runs: Sequence["Run"]) -> list[str]:
    """Write reports/out/figures/ under `root`, completely or not at all; return the figures' names.

    Raises InputError if a file that a run of the grid should have left is missing or foreign.
    """
    with whole_folder(root / FIGURES) as folder:
        return write_figures(Runs(root, params, declared_runs), DRAWN, folder)
