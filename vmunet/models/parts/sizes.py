"""The size that a model is built for."""

from collections.abc import Sequence

from vmunet.architecture import Model, by, sides
from vmunet.errors import InputError


def legal_size(model: type[Model], size: int | Sequence[int]) -> tuple[int, ...]:
    """The size in px of every axis, for a model that is `sized`.

    Raises:
        InputError: the model cannot be built for it.
    """
    chosen = sides(size, model.dimensions)
    if any(side < 1 or side % model.stride for side in chosen):
        raise InputError(f"{model.title} takes sizes divisible by {model.stride}, not {by(chosen)}")
    return chosen
