"""Draw the report's pictures of a view's test images or volumes: figures, and every case.

    python -m stages.pictures isic17-256

Reads params.yaml, reports/figures.yaml, reports/tables.yaml, the files of the view's runs in
metrics/, and data/arrays/<view>/; writes reports/out/pictures/<view>/: figures as PDF and PNG with
figures.json, and cases.json, the page's data about every test case: its image or slice, the truth,
the main cell's predictions and every other model's mask as data: URIs.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from pipeline.config.params import load_params
from pipeline.config.runs import runs
from pipeline.stage import run_stage
from reports.make.figures.listing import PICTURES
from reports.make.page.pictures import make_pictures


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
