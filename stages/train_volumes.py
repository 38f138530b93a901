"""Train one run of the grid on CT volumes: on their slices, or a model of volumes on patches.

An epoch and a batch have as many patches as have the voxels of its slices.

`stages/common/training.py` describes the outputs and how a killed run continues.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config.params import Params, load_params
from pipeline.config.runs import Run, parse_training
from pipeline.stage import run_stage
from stages.common.training import Task, train_run
from vmunet.protocols import PROTOCOLS, Protocol
from vmunet.settings import PUBLISHED, Augmentation

if TYPE_CHECKING:
    from vmunet.data.patches import Sides


def main(argv: list[str] | None = None) -> None:
    """Train VIEW CELL PROTOCOL SEED."""
    (run, seconds), params = parse_training(argv, "train_volumes", __doc__), load_params()
    train_run(run, params, organ_task(run, params), seconds)


def organ_task(run: Run, params: Params, protocol: Protocol | None = None) -> Task:
    """The task of a run on volumes; for `protocol` see `stages.train.image_task`."""
    from vmunet.data.arrays import load_manifest
    from vmunet.data.patches import patch_sides, patches_of
    from vmunet.models import model_class

    arrays = Path("data/arrays", run.view)
    manifest = load_manifest(arrays)  # one clear error if the arrays are missing
    size, cell = params.view(run.view).size, params.cell(run.cell)
    metadata = {
        "normalisation": "window" if manifest["window"] else "percentiles",
        "window": manifest["window"],
        "classes": manifest["classes"],
    }
    settings, patch = params.profile.train_volumes, None
    model = model_class(cell.model)
    if model.dimensions == 3:
        depths = [manifest["cases"][case]["shape"][0] for case in manifest["train"]]
        patch = patch_sides(depths, size, model.stride)
        settings = replace(settings, batch_size=patches_of(settings.batch_size, size, patch))
        metadata["patch"] = list(patch)
    return Task(
        script=Path("stages/train_volumes.py"),
        arrays=arrays,
        settings=settings,
        classes=len(manifest["classes"]) + 1,
        size=size,
        datasets=lambda: datasets(
            arrays,
            training_cases(manifest),
            size,
            protocol or PROTOCOLS[run.protocol],
            run.seed,
            cell.augmentation,
            patch,
            len(manifest["classes"]),
        ),
        metadata=metadata,
    )


def training_cases(manifest: dict[str, Any]) -> list[str]:
    """The training cases, with their patients if these are known (your own datasets)."""
    from vmunet.data.arrays import Ids

    cases, patients = manifest["train"], manifest.get("patients")
    return Ids(cases, [patients[case] for case in cases] if patients else None)


def datasets(
    arrays: Path,
    cases: list[str],
    size: int,
    protocol: Protocol,
    seed: int,
    settings: Augmentation = PUBLISHED,
    patch: "Sides | None" = None,
    classes: int = 0,
) -> tuple[Any, Any]:
    """Samples to train on, augmented, and samples whose loss selects the epoch, or None.

    They are slices, or patches if `patch` gives their sides.
    """
    from vmunet.data.arrays import held_out
    from vmunet.data.patches import PatchDataset, TileDataset, Volumes
    from vmunet.data.slice_dataset import SliceDataset

    def samples(cases: list[str], augmented: bool) -> Any:
        if patch is None:
            return SliceDataset(arrays, cases, size, protocol, augmented, seed, settings)
        volumes = Volumes(arrays, cases, classes, size, protocol.slice_resize, patch[0])
        if augmented:
            return PatchDataset(volumes, patch, protocol, seed, settings)
        return TileDataset(volumes, patch)

    if protocol.volume_selection == "batch_losses":
        return samples(cases, True), None
    kept, held = held_out(cases, fraction=1 / 6)  # 3 of Synapse's 18
    return samples([cases[i] for i in kept], True), samples([cases[i] for i in held], False)


if __name__ == "__main__":
    run_stage(main)
