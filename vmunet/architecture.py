"""What every model offers: a title, legal sizes, one output or several, and a way to rebuild it."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from vmunet.errors import InputError


class Model(nn.Module):
    """A segmentation model: images to logits of the same size, one channel for each class.

    A subclass takes `in_channels`, `num_classes` and its own arguments as keywords and keeps all of
    them in `config`, so that `type(model)(**model.config)` builds it again. Its `forward` begins
    with `self.check(images)`.

    Class attributes:
        title: the model's name in the paper's tables.
        stride: height and width of the images are multiples of it.
        dimensions: 2 for images `(batch, channels, height, width)`, 3 for volumes
            `(batch, channels, depth, height, width)`.
        sized: whether it is built for one image size (`size`), because its weights depend on it.
        min_classes: the smallest `num_classes`.

    Attributes:
        config: the arguments of the constructor, as JSON can hold them.
        in_channels: channels of the images; a 1-channel image is repeated to fill 3.
        size: the only size that it takes, (height, width); None if it takes any legal size.
    """

    title: ClassVar[str]
    stride: ClassVar[int] = 1
    dimensions: ClassVar[int] = 2
    sized: ClassVar[bool] = False
    min_classes: ClassVar[int] = 1

    config: dict[str, Any]
    in_channels: int
    size: tuple[int, ...] | None = None

    @classmethod
    def arguments(cls, size: int, width: float) -> dict[str, Any]:
        """The constructor's arguments for images of `size` px and a factor on the channels."""
        return {"width": width, "size": size} if cls.sized else {"width": width}

    def check(self, images: Tensor) -> Tensor:
        """The images, with one channel repeated to three if the model takes three.

        Raises:
            InputError: wrong number of axes or channels, or a size that the model cannot take.
        """
        axes = ("depth", "height", "width")[-self.dimensions :]
        if images.ndim != 2 + self.dimensions:
            raise InputError(
                f"{self.title} takes (batch, channels, {', '.join(axes)}), not "
                f"{tuple(images.shape)}"
            )
        if images.shape[1] == 1 and self.in_channels == 3:
            images = images.expand(-1, 3, *images.shape[2:])
        if images.shape[1] != self.in_channels:
            raise InputError(
                f"{self.title} was made for {self.in_channels} channels, the images have "
                f"{images.shape[1]}"
            )
        size = tuple(images.shape[2:])
        if any(side % self.stride or not side for side in size):
            raise InputError(
                f"{self.title} takes sizes divisible by {self.stride}, not {by(size)}: resize or "
                "pad the images (vmunet.inference.images pads)"
            )
        if self.size is not None and size != self.size:
            raise InputError(
                f"{self.title} was built for images of {by(self.size)}, not {by(size)}: resize the "
                "images, or build and train it for their size"
            )
        return images


class SeveralHeads(Model):
    """A model with auxiliary outputs: all of them are trained, one of them predicts.

    In training `forward` gives all outputs by name, otherwise the logits of `prediction`.

    Attributes:
        heads: the weight of each output's loss, by its name.
        prediction: the name of the output that predicts.
    """

    heads: Mapping[str, float]
    prediction: str

    def outputs(self, images: Tensor) -> dict[str, Tensor]:
        """The logits of every head, each of the images' size."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor | dict[str, Tensor]:
        outputs = self.outputs(images)
        return outputs if self.training else outputs[self.prediction]


def scaled(channels: int, width: float, multiple: int = 1) -> int:
    """`channels * width`, rounded to a multiple that the layer needs (of its groups or heads).

    Raises:
        InputError: nothing would be left.
    """
    value = round(channels * width / multiple) * multiple
    if value < 1:
        raise InputError(
            f"width {width:g} leaves no channel of a layer that has {channels}; take a width above "
            f"{multiple / (2 * channels):.3g}"
        )
    return value


def sides(size: int | Sequence[int], dimensions: int = 2) -> tuple[int, ...]:
    """A size in px for each axis: one number is a square."""
    return (size,) * dimensions if isinstance(size, int) else tuple(size)


def by(size: Sequence[int]) -> str:
    """A size as people write it: 192x256."""
    return "x".join(map(str, size))
