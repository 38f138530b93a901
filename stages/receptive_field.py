"""DVC stage: effective receptive fields of the main cell before and after training.

    python -m stages.receptive_field isic17-256

The run is that of the main cell (base, or the first of grid.ablations) on this view of
grid.ablation_views, under the paper's protocol (or the first of grid.protocols) with the first
seed. "Before training" is the model with which this run started, made again from its seed and its
initial weights.

Reads  runs/<view>/<cell>/<protocol>/<seed>/weights.safetensors, data/arrays/<view>/<protocol>/test,
       and data/weights/ if the cell has initial weights.
Writes metrics/<profile>/<view>/receptive_field.npz:
       before_bottleneck, after_bottleneck, before_output, after_output: float32 (size, size), the
       fields in logits (or the bottleneck's units) by gray level, see
       `vmunet.measure.receptive_field`; r20, r30, r50, r99: float (4,), for these four in this
       order, the fraction of the image's area that the smallest square holding that share of a
       field covers; centres: float (4,), the squares' centre in px along both axes; images: the
       number of test images over which the fields are averaged; run: the run's name. If the grid
       declares no such run, the file has only images 0 and run ''. If the model is not VM-UNet,
       there are the two fields of the output alone.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.config.params import Params, load_params
from pipeline.config.runs import Run
from pipeline.stage import run_stage
from stages.common.initial_model import initial_model
from vmunet.errors import InputError
from vmunet.evaluation.images import load_test_images
from vmunet.files import whole_file
from vmunet.measure.receptive_field import (
    SHARES,
    area_fractions,
    centre_of,
    feature_names,
    features_of,
    receptive_fields,
)
from vmunet.training.processor import use_processor
from vmunet.weights.checkpoints import load_checkpoint

MOST_IMAGES = 50  # as in the published scripts


def main(argv: Sequence[str] | None = None) -> None:
    """Measure the receptive fields of a view's main run and write receptive_field.npz."""
    parser = argparse.ArgumentParser(prog="python -m stages.receptive_field", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("view", help="a view of grid.ablation_views, such as isic17-256")
    view = parser.parse_args(argv).view
    params = load_params()
    target = Path("metrics", params.profile_name, view, "receptive_field.npz")
    run = declared_run(params, view)
    content = {"images": 0, "run": ""} if run is None else measure(run, params)
    with whole_file(target) as part, open(part, "wb") as file:
        np.savez(file, **content)
    print(f"{content['run'] or 'no run of images is declared'}; written to {target}")


def declared_run(params: Params, view: str) -> Run | None:
    """The run whose receptive fields are measured; None if the grid has no such run."""
    runs = [Run(*run) for run in params.grid.main_runs(view)]
    ordered = sorted(runs, key=lambda run: run.protocol != "paper")
    return next(iter(ordered), None)


def measure(run: Run, params: Params) -> dict[str, Any]:
    """The content of receptive_field.npz.

    Raises:
        InputError: the run, its arrays or its initial weights are missing or do not match.
    """
    weights = run.folder / "weights.safetensors"
    if not weights.is_file():
        raise InputError(f"{weights}: no such file; train it first with dvc repro train@{run.name}")
    test = load_test_images(Path("data/arrays", run.view, run.protocol))
    after, metadata = load_checkpoint(weights)
    if metadata["size"] != test.size:
        raise InputError(
            f"{weights} was trained at {metadata['size']} px and its arrays hold {test.size} px; "
            "train the run again"
        )
    use_processor(params.profile.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(run.seed)
    cell = params.cell(run.cell)
    before, _ = initial_model(
        cell, after.config["num_classes"], cell.settings(params.profile.train), test.size
    )
    count = min(MOST_IMAGES, len(test.ids))
    images = test.images[np.linspace(0, len(test.ids) - 1, count).round().astype(int)]
    content: dict[str, Any] = {}
    names = feature_names(after)
    for when, model in (("before", before), ("after", after)):
        model.to(device)
        fields = receptive_fields(model, features_of(model), images)
        content |= {f"{when}_{name}": field for name, field in zip(names, fields, strict=True)}
    order = [f"{when}_{name}" for name in names for when in ("before", "after")]
    positions = {"bottleneck": test.size // 32, "output": test.size}
    centres = [centre_of(test.size, positions[name.split("_")[1]]) for name in order]
    fractions = np.array(
        [area_fractions(content[name], at) for name, at in zip(order, centres, strict=True)]
    )
    return {
        **{name: content[name] for name in order},
        **{f"r{share * 100:.0f}": fractions[:, i] for i, share in enumerate(SHARES)},
        "centres": np.array(centres),
        "images": count,
        "run": run.name,
    }


if __name__ == "__main__":
    run_stage(main)
