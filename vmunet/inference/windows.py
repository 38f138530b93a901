"""Run models of three dimensions on a volume: overlapping windows of the training patch's size.

MONAI slides the windows. Neighbours overlap by a half along each axis, and a window's probabilities
count less towards its borders, by a Gaussian. A volume that is smaller than a window gets zeros at
both ends.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn
from tqdm import tqdm

from vmunet.errors import InputError

OVERLAP = 0.5
# Depths of a window whose probabilities are computed at once: so a volume of any depth takes no
# more than 352 slices, 0.7 GB with windows of 64 voxels, 9 classes and 224 px.
DEEP = 4


def window_probabilities(
    models: Sequence[nn.Module], volume: Tensor, sides: Sequence[int], batch_size: int
) -> Iterator[Iterator[Tensor]]:
    """The probabilities of each model, block by block along the depth, so that memory is bounded.

    A block's probabilities are those of windows over the whole volume.

    Args:
        models: give logits (batch, classes, depth, height, width); in eval mode.
        volume: float32 (depth, height, width), as the models see it, on the CPU.
        sides: of a window, even.
        batch_size: windows that a model sees at once.

    Yields:
        For each block, of each model float32 (classes, slices, height, width), on the CPU, computed
        when it is asked for. The blocks follow one another and end with the volume's last slice.

    Raises:
        InputError: MONAI is not installed.
    """
    with tqdm(desc="windows", leave=False, disable=None) as bar:
        for begin, end, first, last in blocks(len(volume), sides[0]):
            part = volume[None, None, first:last]
            wanted = slice(begin - first, end - first)
            yield (_slide(model, part, sides, batch_size, bar)[0, :, wanted] for model in models)


def blocks(depth: int, side: int) -> Iterator[tuple[int, int, int, int]]:
    """(begin, end, first, last): slices begin..end need the windows that lie in first..last.

    Args:
        depth: slices of the volume.
        side: depth of a window; the windows start at every half of it.
    """
    step, begin = side // 2, 0
    while begin < depth:
        end = begin + DEEP * side
        if end > depth - side:  # the last window, moved back into the volume, may begin before it
            end = depth
        yield begin, end, max(0, begin - step), min(depth, end + step)
        begin = end


def _slide(
    model: nn.Module, volume: Tensor, sides: Sequence[int], batch_size: int, bar: Any
) -> Tensor:
    """The probabilities (1, classes, depth, height, width) of a volume (1, 1, ...)."""
    try:
        from monai.inferers import sliding_window_inference  # slow: it imports all of MONAI
    except ImportError:
        raise InputError(
            "segmenting with a model of volumes needs MONAI: pip install 'vmunet[volumes]'"
        ) from None

    def probabilities(windows: Tensor) -> Tensor:
        bar.update(len(windows))
        return model(windows).float().softmax(1)

    averaged = sliding_window_inference(
        volume,
        tuple(sides),
        batch_size,
        probabilities,
        overlap=OVERLAP,
        mode="gaussian",
        sw_device=next(model.parameters()).device,
        device="cpu",
    )
    assert isinstance(averaged, Tensor)  # as the model's output
    return averaged
