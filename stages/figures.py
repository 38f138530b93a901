"""Draw the figures of the report from the declared grid.

Reads params.yaml, reports/figures.yaml, reports/tables.yaml and, of each run of the grid, what it
left in metrics/, runs/ and data/arrays/; writes reports/figures/: each figure as PDF and PNG, and
figures.json, which lists them in order with title, caption, source of the data and alternative
text. A figure of phantoms says so in a band above it.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from pipeline.grid import Run, runs
from pipeline.params import Params, load_params
from pipeline.stage import run_stage
from stages.figure_fields import receptive_fields
from stages.figure_images import lowest, qualitative
from stages.figure_runs import Runs
from stages.figure_scores import by_size, dice_distributions, reliability, training_curves
from stages.figure_volumes import by_organ, outlined_slices
from vmunet.data.files import whole_folder
from vmunet.figures.style import save, settled

OUTPUT = Path("reports/figures")
FIGURES = (
    qualitative,
    lowest,
    dice_distributions,
    by_size,
    reliability,
    training_curves,
    by_organ,
    outlined_slices,
    receptive_fields,
)


def make_figures(root: Path, params: Params, declared_runs: Sequence[Run]) -> list[str]:
    """Write reports/figures/ under `root`, whole or not at all; returns the figures' names.

    Raises InputError where a file that a run of the grid should have left is missing or broken.
    """
    gathered = Runs(root, params, declared_runs)
    listed = []
    with whole_folder(root / OUTPUT) as folder, settled():
        for figure in FIGURES:
            for drawn in figure(gathered):
                save(drawn.figure, folder / drawn.name)
                fields = ("name", "title", "caption", "data", "alt")
                listed.append({field: getattr(drawn, field) for field in fields})
        text = json.dumps(listed, indent=2, ensure_ascii=False) + "\n"
        (folder / "figures.json").write_text(text, encoding="utf-8", newline="\n")
    return [entry["name"] for entry in listed]


def main(argv: Sequence[str] | None = None) -> None:
    argparse.ArgumentParser(prog="python -m stages.figures", description=__doc__).parse_args(argv)
    params = load_params()
    names = make_figures(Path(), params, runs(params))
    print(f"{len(names)} figures written to {OUTPUT}: {', '.join(names)}")


if __name__ == "__main__":
    run_stage(main)
