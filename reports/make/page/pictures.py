"""A view's pictures: the figures of its test images or volumes, and its cases for the viewer."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reports.make.figures import images, volumes
from reports.make.figures.listing import CASES, PICTURES
from reports.make.figures.runs import Runs
from reports.make.figures.writing import write_figures
from reports.make.page.cases import image_view
from reports.make.page.models import models_of
from reports.make.page.volumes import volume_view
from vmunet.files import whole_folder

if TYPE_CHECKING:
    from pipeline.config.params import Params
    from pipeline.config.runs import Run

DRAWN = (
    images.qualitative,
    images.models,
    images.lowest,
    volumes.outlined_slices,
    volumes.models,
)


def make_pictures(
    root: Path, params: "Params", declared_runs: Sequence["Run"], view: str
) -> list[str]:
    """Write reports/out/pictures/<view>/ under `root`; return the figures' names.

    The folder is written completely or not at all.

    A view without runs has no figures, and its cases are `null`.

    Raises InputError if a file that a run should have left is missing or foreign.
    """
    gathered = Runs(root, params, [run for run in declared_runs if run.view == view])
    cases = cases_of(gathered, view)
    with whole_folder(root / PICTURES / view) as folder:
        names = write_figures(gathered, DRAWN, folder)
        text = json.dumps(cases, ensure_ascii=False) + "\n"
        (folder / CASES).write_text(text, encoding="utf-8", newline="\n")
    return names


def cases_of(runs: Runs, view: str) -> dict[str, Any] | None:
    """The data of a view for the page's viewer; None if the view has no results.

    Raises InputError as `make_pictures` does.
    """
    gathered = (runs.root, runs.results, view, runs.names)
    cases = image_view(*gathered) or volume_view(*gathered)
    return cases and cases | {"models": models_of(runs, view, cases)}
