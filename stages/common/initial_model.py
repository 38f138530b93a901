"""The model that a run starts from: a cell's architecture with the cell's initial weights."""

from dataclasses import asdict
from typing import Any

from pipeline.config.initial import initial_files
from pipeline.config.params import VMUNET, Cell
from vmunet.settings import TrainSettings


def initial_model(
    cell: Cell, classes: int, settings: TrainSettings, size: int, brightest: float = 255.0
) -> tuple[Any, dict[str, int]]:
    """The cell's model with its initial weights, and the number of tensors that those filled.

    The other tensors are random: after `torch.manual_seed(seed)` they equal those with which a run
    of that seed starts, to the last bit.

    Args:
        classes: channels of the model's output.
        settings: the profile's and the cell's; the width of the model, the number of its states.
        size: side of the square images, px.
        brightest: the images' largest value.
    """
    from vmunet.model import VMUNet
    from vmunet.models import build
    from vmunet.weights.checkpoints import read_tensors
    from vmunet.weights.imagenet.fill import fill_from_imagenet
    from vmunet.weights.initial import fill_from_vmamba

    files = initial_files(cell)
    if cell.model != VMUNET:
        rival = build(cell.model, classes, size, settings.width)
        return rival, counts(fill_from_imagenet(rival, files, brightest)) if files else {}
    depths, depths_decoder = cell.blocks
    model = VMUNet(
        num_classes=classes,
        depths=depths,
        depths_decoder=depths_decoder,
        dims=settings.dims,
        d_state=settings.states,
        drop_path_rate=cell.drop_path_rate or 0.0,
    )
    if not files:
        return model, {"encoder": 0, "decoder": 0, "unused": 0}
    path = files[cell.init]
    return model, counts(fill_from_vmamba(model, read_tensors(path)[0], path))


def counts(filled: Any) -> dict[str, int]:
    """The lengths of the lists of names in a dataclass."""
    return {key: len(names) for key, names in asdict(filled).items()}
