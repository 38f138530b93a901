"""What the report shows of a view's test images or volumes: picture figures, and every case.

    python -m stages.pictures isic17-256

Reads params.yaml, reports/figures.yaml, reports/tables.yaml, what the view's runs left in metrics/,
and data/arrays/<view>/; writes reports/out/pictures/<view>/: figures as PDF and PNG with
figures.json, and cases.json, what the page's viewer is given of every test case. Its image or
slice, the truth and the main cell's predictions lie in it as data: URIs.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.config.params import Params, load_params
from pipeline.config.runs import Run, runs
from pipeline.stage import run_stage
from reports.make.figures.images import lowest, qualitative
from reports.make.figures.listing import CASES, PICTURES
from reports.make.figures.runs import Runs
from reports.make.figures.volumes import outlined_slices
from reports.make.figures.writing import write_figures
from reports.make.page.cases import image_views
from reports.make.page.volumes import volume_views
from reports.make.results.metrics import Result
from vmunet.files import whole_folder

DRAWN = (qualitative, lowest, outlined_slices)


def make_pictures(root: Path, params: Params, declared_runs: Sequence[Run], view: str) -> list[str]:
    """Write reports/out/pictures/<view>/ under `root`, whole or not at all; the figures' names.

    Of a view without runs there are no figures, and `null` for its cases.

    Raises InputError where a file that a run should have left is missing or broken.
    """
    gathered = Runs(root, params, [run for run in declared_runs if run.view == view])
    cases = cases_of(root, gathered.results, view, gathered.names)
    with whole_folder(root / PICTURES / view) as folder:
        names = write_figures(gathered, DRAWN, folder)
        text = json.dumps(cases, ensure_ascii=False) + "\n"
        (folder / CASES).write_text(text, encoding="utf-8", newline="\n")
    return names


def cases_of(
    root: Path, results: Sequence[Result], view: str, names: Mapping[str, str]
) -> dict[str, Any] | None:
    """What the page's viewer is given of a view; None where it has no results.

    `names` are the datasets'. Raises InputError as `make_pictures` does.
    """
    about = root, results, [view], names
    return next(iter([*image_views(*about), *volume_views(*about)]), None)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.pictures", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "view", help="a view of grid.ablation_views or grid.volumes, such as isic17-256"
    )
    view, params = parser.parse_args(argv).view, load_params()
    names = make_pictures(Path(), params, runs(params), view)
    print(f"{', '.join([*names, 'every case'])}; written to {PICTURES / view}")


if __name__ == "__main__":
    run_stage(main)
