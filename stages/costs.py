"""DVC stage: parameters and multiply-accumulates of every model of the grid, as published.

    python -m stages.costs

Reads  params.yaml: the models of grid.rivals (Table I) and grid.volume_rivals (Table II).
Writes metrics/<profile>/costs.json: by table and model the size of its input, and
       `vmunet.complexity.Counted`. Every model has its published width, and makes masks of 1 class
       from 256x256 px in Table I and 9 classes from 224x224 px in Table II; a model of volumes
       takes a cube of 64 voxels a side.
"""

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from pipeline.config.params import VMUNET, load_params
from pipeline.stage import run_stage
from vmunet.complexity import complexity, counted
from vmunet.files import whole_file
from vmunet.models import build, model_class

INPUTS = {"I": (256, 1), "II": (224, 9)}  # side in px and number of classes of each table
PATCH = 64  # side of a cube, voxels


def main(argv: Sequence[str] | None = None) -> None:
    """Count the models and write costs.json."""
    parser = argparse.ArgumentParser(prog="python -m stages.costs", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.parse_args(argv)
    params = load_params()
    cells = {"I": params.grid.rivals, "II": params.grid.volume_rivals}
    content = {
        table: costs([VMUNET, *(params.cell(name).model for name in names)], *INPUTS[table])
        for table, names in cells.items()
    }
    target = Path("metrics", params.profile_name, "costs.json")
    with whole_file(target) as part:
        part.write_text(json.dumps(content, indent=2) + "\n")
    print(f"{sum(map(len, content.values()))} models counted; written to {target}")


def costs(models: Iterable[str], size: int, classes: int) -> dict[str, dict[str, Any]]:
    """The cost of each model once, by its name."""
    return {name: cost(name, size, classes) for name in dict.fromkeys(models)}


def cost(name: str, size: int, classes: int) -> dict[str, Any]:
    """The cost of one model, for square images of `size` px or a cube of `PATCH` voxels."""
    dimensions = model_class(name).dimensions
    sides = (size if dimensions == 2 else PATCH,) * dimensions
    if name == VMUNET:
        own = complexity(size=size, num_classes=classes)
        counts = (own.parameters, own.macs_paper, own.macs_complete)
    else:
        with torch.device("meta"):
            model = build(name, classes, sides[0])
        of_pass = counted(model, sides)
        counts = (of_pass.parameters, of_pass.macs_paper, of_pass.macs_complete)
    names = ("parameters", "macs_paper", "macs_complete")
    return {"input": list(sides), "classes": classes} | dict(zip(names, counts, strict=True))


if __name__ == "__main__":
    run_stage(main)
