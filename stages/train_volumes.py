"""Train one run of the grid on the slices of CT volumes.

`stages/common/training.py` describes the outputs and how a killed run continues.
"""

from pathlib import Path
from typing import Any

from pipeline.config.params import Params, load_params
from pipeline.config.runs import Run, parse_run
from pipeline.stage import run_stage
from stages.common.training import Task, train_run
from vmunet.protocols import PROTOCOLS, Protocol
from vmunet.settings import PUBLISHED, Augmentation


def main(argv: list[str] | None = None) -> None:
    """Train VIEW CELL PROTOCOL SEED."""
    run, params = parse_run(argv, "train_volumes", __doc__), load_params()
    train_run(run, params, organ_task(run, params))


def organ_task(run: Run, params: Params, protocol: Protocol | None = None) -> Task:
    """The task of a run on slices of volumes; for `protocol` see `stages.train.image_task`."""
    from vmunet.data.arrays import load_manifest

    arrays = Path("data/arrays", run.view)
    manifest = load_manifest(arrays)  # one clear error if the arrays are missing
    size = params.view(run.view).size
    return Task(
        script=Path("stages/train_volumes.py"),
        arrays=arrays,
        settings=params.profile.train_volumes,
        classes=len(manifest["classes"]) + 1,
        size=size,
        datasets=lambda: datasets(
            arrays,
            training_cases(manifest),
            size,
            protocol or PROTOCOLS[run.protocol],
            run.seed,
            params.cell(run.cell).augmentation,
        ),
        metadata={
            "normalisation": "window" if manifest["window"] else "percentiles",
            "window": manifest["window"],
            "classes": manifest["classes"],
        },
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
) -> tuple[Any, Any]:
    """Slices to train on, augmented, and slices whose loss selects the epoch, or None."""
    from vmunet.data.arrays import held_out
    from vmunet.data.slice_dataset import SliceDataset

    def augmented(cases: list[str]) -> SliceDataset:
        return SliceDataset(arrays, cases, size, protocol, True, seed, settings)

    if protocol.volume_selection == "training_loss":
        return augmented(cases), None
    kept, held = held_out(cases, fraction=1 / 6)  # 3 of Synapse's 18
    held_cases = [cases[i] for i in held]
    return augmented([cases[i] for i in kept]), SliceDataset(arrays, held_cases, size, protocol)


if __name__ == "__main__":
    run_stage(main)
