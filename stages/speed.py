"""DVC stage: images per second and peak memory of the grid's architectures and models.

    python -m stages.speed isic17-256

Reads  params.yaml and the profile: the depths of grid.ablations' cells, the models of grid.rivals
       and grid.volume_rivals, the widths (train.dims, train.width), the size of the view, and the
       batch sizes train.batch_size and evaluate.batch_size.
Writes metrics/<profile>/<view>/speed.json: VM-UNet's architectures by their depths, other models by
       their names, all for one class (V-Net: for two, on cubes with the side of a patch, as many
       as have the voxels of a batch of images). What does not fit into memory has null.

`vmunet.measure.speed` describes the measurement. The figures are valid only for this machine and
time: another machine has other figures, and other programs that run at the same time change them.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from pipeline.config.params import VMUNET, Params, load_params
from pipeline.provenance import versions
from pipeline.stage import run_stage
from vmunet.data.patches import patch_side, patches_of
from vmunet.files import whole_file
from vmunet.measure.speed import Workload, architecture_name, device_names, measure
from vmunet.models import MODELS
from vmunet.settings import TrainSettings
from vmunet.training.processor import use_processor

MODES = ("inference", "training")


def main(argv: Sequence[str] | None = None) -> None:
    """Measure the architectures of the grid and write speed.json."""
    parser = argparse.ArgumentParser(prog="python -m stages.speed", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("view", help="a view of grid.ablation_views, such as isic17-256")
    view = parser.parse_args(argv).view
    params = load_params()
    speed(params, view, Path("metrics", params.profile_name, view, "speed.json"))


def speed(params: Params, view: str, target: Path) -> None:
    """Measure at the size of `view` and write `target`, completely or not at all."""
    use_processor(params.profile.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    settings, size = params.profile.train, params.view(view).size
    batches = dict(
        zip(MODES, (params.profile.evaluate.batch_size, settings.batch_size), strict=True)
    )
    named_workloads = workloads(params, size, batches)
    results = measure({f"{name} {mode}": w for name, mode, w in named_workloads}, device)
    architectures: dict[str, dict[str, Any]] = {}
    for name, mode, _ in named_workloads:
        result = results[f"{name} {mode}"]
        architectures.setdefault(name, {}).update(
            {
                f"{mode}_images_per_second": result.images_per_second,
                f"{mode}_peak_bytes": result.peak_bytes,
                f"{mode}_repetitions": result.repetitions,
            }
        )
    content = {
        **device_names(device),
        "threads": torch.get_num_threads(),
        "size": size,
        "dims": list(settings.dims),
        "states": settings.states,
        "width": settings.width,
        "batch_size": batches,
        "precision": {"inference": "fp32", "training": settings.precision},
        "versions": versions(),
        "architectures": architectures,
    }
    with whole_file(target) as part:
        part.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
    print(f"{len(architectures)} architectures on {content['device']}; written to {target}")


def workloads(
    params: Params, size: int, batches: dict[str, int]
) -> list[tuple[str, str, Workload]]:
    """(architecture, mode, workload) of each pair of depths and each model, in the grid's order."""
    grid, distinct = params.grid, dict[str, tuple[str, dict[str, Any], TrainSettings]]()
    for name in (*grid.ablations, *grid.rivals, *grid.volume_rivals):
        cell = params.cell(name)
        settings = cell.settings(params.profile.train)
        if cell.model == VMUNET:
            architecture = architecture_name(*cell.blocks)
            arguments: dict[str, Any] = dict(
                zip(("depths", "depths_decoder"), cell.blocks, strict=True),
                dims=settings.dims,
                d_state=settings.states,
            )
        else:
            architecture, chosen = cell.model, MODELS[cell.model]
            arguments = chosen.arguments(size, settings.width)
            arguments["num_classes"] = chosen.min_classes
        distinct.setdefault(architecture, (cell.model, arguments, settings))

    named = []
    for architecture, (model, arguments, settings) in distinct.items():
        for mode in MODES:
            side, count = size, batches[mode]
            if MODELS[model].dimensions == 3:
                side = patch_side(size, MODELS[model].stride)
                count = patches_of(count, size, (side,) * 3)
            workload = Workload(model, arguments, side, count, mode == "training", settings)
            named.append((architecture, mode, workload))
    return named


if __name__ == "__main__":
    run_stage(main)
