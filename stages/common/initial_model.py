"""The model that a run starts from: a cell's architecture with the cell's initial weights."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.config.params import Cell
from vmunet.settings import TrainSettings


def initial_model(cell: Cell, classes: int, settings: TrainSettings) -> tuple[Any, dict[str, int]]:
    """The cell's model with its initial weights, and the number of tensors that those filled.

    The other tensors are random: after `torch.manual_seed(seed)` they equal those with which a run
    of that seed starts, to the last bit.

    Args:
        classes: channels of the model's output.
        settings: the profile's; the width of the model and the number of its states.
    """
    from vmunet.models import MODELS
    from vmunet.weights.checkpoints import read_tensors
    from vmunet.weights.initial import fill_from_vmamba

    model = MODELS["vmunet"](
        num_classes=classes,
        depths=cell.depths,
        depths_decoder=cell.depths_decoder,
        dims=settings.dims,
        d_state=settings.states,
        drop_path_rate=cell.drop_path_rate,
    )
    if cell.init == "none":
        return model, {"encoder": 0, "decoder": 0, "unused": 0}
    path = Path("data/weights") / f"{cell.init}.safetensors"
    filled = fill_from_vmamba(model, read_tensors(path)[0], path)
    return model, {key: len(names) for key, names in asdict(filled).items()}
