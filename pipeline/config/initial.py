"""The files of a cell's initial weights, which the stage `weights` writes."""

from pathlib import Path

from pipeline.config.params import IMAGENET, Cell
from vmunet.errors import InputError
from vmunet.weights.imagenet.files import FILES, files_for

WEIGHTS = Path("data/weights")


def initial_files(cell: Cell) -> dict[str, Path]:
    """The files that a cell starts from, by name; none if it starts at random.

    Raises:
        InputError: one is not there.
    """
    if cell.init == "none":
        return {}
    if cell.init != IMAGENET:
        path = WEIGHTS / f"{cell.init}.safetensors"
        if not path.is_file():
            raise InputError(
                f"{path}: not found; run `dvc repro weights` in a profile with weights"
            )
        return {cell.init: path}
    paths = {name: WEIGHTS / IMAGENET / f"{name}.safetensors" for name in files_for(cell.model)}
    for name, path in paths.items():
        if not path.is_file():
            raise InputError(
                f"{path}: not found; name a path or an address of {FILES[name].file} in the "
                f"profile, under weights: imagenet: {name}:, and run `dvc repro weights`"
            )
    return paths
