"""A trained model as an ONNX file, for runtimes that know neither PyTorch nor this project."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import torch

from vmunet.architecture import Model, by, sides
from vmunet.errors import InputError
from vmunet.files import whole_file
from vmunet.scan import backend

NEEDED = ("onnx", "onnxscript")


def export_onnx(model: Model, target: Path, size: int | Sequence[int]) -> None:
    """Write the model for one image of a fixed size as ONNX.

    Input `images`: (1, channels, size, size) float32, ISIC images min-max normalised to 0..255
    (`vmunet.data.resize.min_max`), slices and patches of CT volumes 0..1. Output `logits`: (1,
    classes, size, size) float32. A model of three dimensions has the depth before the height. The
    scan is the reference's recurrence in ONNX's own loop (`Scan`), one node a block.

    Args:
        target: the file; it is written completely or not at all.
        size: of each axis, or one for all of them; divisible by the model's stride.

    Raises:
        InputError: the model does not take this size, or the exporter's packages are not installed.
    """
    shape = sides(size, model.dimensions)
    if any(side < model.stride or side % model.stride for side in shape):
        shown = size if isinstance(size, int) else by(size)
        raise InputError(f"export: size {shown} must be a multiple of {model.stride}")
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise InputError(f"export needs {' and '.join(missing)}: pip install 'vmunet[export]'")
    images = model.check(torch.zeros(1, model.in_channels, *shape))
    with backend("reference"), torch.no_grad(), _quiet(), whole_file(target) as partial:
        program = torch.onnx.export(
            model.cpu().eval(),
            (images,),
            dynamo=True,
            input_names=["images"],
            output_names=["logits"],
            verbose=False,
        )
        assert program is not None  # it is one with dynamo=True
        program.save(partial)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's warnings about missing packages and about its own parts."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
