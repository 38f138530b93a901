"""Train one run of the grid on images: a cell on a view, under a protocol, with a seed.

`stages/common/training.py` describes the outputs and how a killed run continues.
"""

from pathlib import Path
from typing import Any

from pipeline.config.params import Params, load_params
from pipeline.config.runs import Run, parse_training
from pipeline.stage import run_stage
from stages.common.training import Task, train_run
from vmunet.errors import InputError
from vmunet.protocols import PROTOCOLS, Protocol
from vmunet.settings import PUBLISHED, Augmentation


def main(argv: list[str] | None = None) -> None:
    """Train VIEW CELL PROTOCOL SEED."""
    (run, seconds), params = parse_training(argv, "train", __doc__), load_params()
    train_run(run, params, image_task(run, params), seconds)


def image_task(run: Run, params: Params, protocol: Protocol | None = None) -> Task:
    """The task of a run on images. Its classes are the lesion, or those that the manifest names.

    A search gives a `protocol` with other switches than the run's own.

    Raises:
        InputError: the arrays are missing or broken, or the cell's model takes volumes.
    """
    from vmunet.classes import channels_of, classes_of
    from vmunet.data.arrays import load_manifest
    from vmunet.models import model_class

    arrays = Path("data/arrays", run.view, run.protocol)
    manifest = load_manifest(arrays)  # one clear error if the arrays are missing
    model = model_class(params.cell(run.cell).model)
    if model.dimensions != 2:
        raise InputError(
            f"{run.name}: {model.title} segments volumes, not images; run the cell {run.cell} on a "
            "view of CT volumes"
        )
    classes = classes_of(manifest, arrays / "manifest.json")
    metadata: dict[str, Any] = {"normalisation": "minmax"}
    if "classes" in manifest:
        metadata["classes"] = list(classes)
    return Task(
        script=Path("stages/train.py"),
        arrays=arrays,
        settings=params.profile.train,
        classes=channels_of(classes),
        size=params.view(run.view).size,
        datasets=lambda: datasets(
            arrays,
            protocol or PROTOCOLS[run.protocol],
            run.seed,
            len(classes),
            params.cell(run.cell).augmentation,
        ),
        metadata=metadata,
    )


def datasets(
    arrays: Path, protocol: Protocol, seed: int, classes: int, settings: Augmentation = PUBLISHED
) -> tuple[Any, Any]:
    """Images to train on, augmented, and images whose loss selects the epoch."""
    from torch.utils.data import Subset

    from vmunet.data.arrays import ArrayDataset, held_out
    from vmunet.data.augment import Augment

    augmented = ArrayDataset(arrays, "train", Augment(protocol, seed, settings), seed, classes)
    if protocol.selection == "test":
        return augmented, ArrayDataset(arrays, "test", classes=classes)
    kept, held = held_out(augmented.ids)
    return Subset(augmented, kept), Subset(ArrayDataset(arrays, "train", classes=classes), held)


if __name__ == "__main__":
    run_stage(main)
