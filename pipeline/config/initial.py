"""The files of a cell's initial weights, which the stage `weights` writes."""

from pathlib import Path

from pipeline.config.params import IMAGENET, Cell
from vmunet.errors import InputError
from vmunet.weights.imagenet.files import FILES, files_for

WEIGHTS = Path("data/weights")


def initial_paths(cell: Cell) -> dict[str, Path]:
    """The path of each file that a cell starts from, by name; none if it starts at random."""
    if cell.init == "none":
        return {}
    if cell.init != IMAGENET:
        return {cell.init: WEIGHTS / f"{cell.init}.safetensors"}
    return {name: WEIGHTS / IMAGENET / f"{name}.safetensors" for name in files_for(cell.model)}


def initial_files(cell: Cell) -> dict[str, Path]:
    """`initial_paths`, of which each is there.

    Raises:
        InputError: one is not there.
    """
    paths = initial_paths(cell)
    for name, path in paths.items():
        if not path.is_file():
            cure = "run `dvc repro weights` in a profile with weights"
            if cell.init == IMAGENET:
                cure = (
                    f"name a path or an address of {FILES[name].file} in the profile, under "
                    f"weights: imagenet: {name}:, and run `dvc repro weights`"
                )
            raise InputError(f"{path}: not found; {cure}")
    return paths
