"""Settings of training and of augmentation; the defaults are the paper's values."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal


@dataclass(frozen=True)
class TrainSettings:
    """Settings of a training run (paper, section IV-B; `vmunet.protocols` holds the rest).

    Attributes:
        epochs: passes over the training images.
        t_max: half period of the `paper` protocol's cosine, in epochs.
        batch_size: images in one step.
        dims: channels of VM-UNet's four stages, doubling.
        states: state size of the scan for each channel.
        width: factor on the channels of every other model (`vmunet.models.build`).
        learning_rate: largest learning rate; the first epoch uses it.
        eta_min: smallest learning rate.
        weight_decay: AdamW's decoupled weight decay.
        precision: `fp32`, or `bf16` for autocast (the scan's state stays fp32).
        gpus: GPUs of this machine that share each batch (`vmunet.training.distributed`).

    Raises:
        ValueError: a value is out of range.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    epochs: int = 300
    t_max: int = 50
    batch_size: int = 32
    dims: tuple[int, int, int, int] = (96, 192, 384, 768)
    states: int = 16
    width: float = 1.0
    learning_rate: float = 1e-3
    eta_min: float = 1e-5
    weight_decay: float = 1e-2
    precision: Literal["fp32", "bf16"] = "fp32"
    gpus: int = 1

    def __post_init__(self) -> None:
        if min(self.epochs, self.t_max, self.batch_size, self.states, self.gpus) < 1:
            raise ValueError("epochs, t_max, batch_size, states and gpus must be at least 1")
        if not 0 < self.eta_min <= self.learning_rate < math.inf:
            raise ValueError("0 < eta_min <= learning_rate must hold")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError("weight_decay must be 0 or more")
        if not 0 < self.width < math.inf:
            raise ValueError("width must be above 0")
        if self.dims[0] < 8 or self.dims[0] % 4:
            raise ValueError("dims must start at a multiple of 4, 8 or more")
        if any(self.dims[i + 1] != 2 * self.dims[i] for i in range(3)):
            raise ValueError("dims must double from stage to stage")


@dataclass(frozen=True)
class Augmentation:
    """How often and how far training samples are turned; the protocol says by which method.

    Attributes:
        horizontal_flip, vertical_flip: probabilities that an image is flipped.
        turns: probability that a CT slice makes quarter turns, if the protocol has them.
        rotation: probability of a rotation. A slice that made quarter turns is not rotated.
        rotation_limit: largest rotation to each side in degrees; None for the published one: the
            whole circle for images, 20 for slices.

    Raises:
        ValueError: a value is out of range.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    horizontal_flip: float = 0.5
    vertical_flip: float = 0.5
    turns: float = 0.5
    rotation: float = 0.5
    rotation_limit: float | None = None

    def __post_init__(self) -> None:
        for name in ("horizontal_flip", "vertical_flip", "turns", "rotation"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be a probability, 0 to 1")
        if self.rotation_limit is not None and not 1 <= self.rotation_limit <= 180:
            raise ValueError("rotation_limit must be 1 to 180 degrees")


PUBLISHED = Augmentation()
