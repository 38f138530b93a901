"""Every model that can be trained, by name; each is imported when it is first asked for.

`build("transunet", num_classes=9, size=224)` gives a new model. docs/models.md shows how to add
one.
"""

from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from vmunet.errors import InputError
from vmunet.models.places import PLACES

if TYPE_CHECKING:
    from vmunet.architecture import Model


class _Registry(Mapping[str, "type[Model]"]):
    """A mapping from a name to a class, which is imported on access."""

    def __getitem__(self, name: str) -> "type[Model]":
        module, attribute = PLACES[name]
        return getattr(import_module(module), attribute)

    def __contains__(self, name: object) -> bool:  # without importing the model
        return name in PLACES

    def __iter__(self) -> Iterator[str]:
        return iter(PLACES)

    def __len__(self) -> int:
        return len(PLACES)


MODELS: Mapping[str, "type[Model]"] = _Registry()


def model_class(name: str) -> "type[Model]":
    """The class of this name.

    Raises:
        InputError: there is none.
    """
    if name not in MODELS:
        raise InputError(f"unknown model {name!r}; known: {', '.join(MODELS)}")
    return MODELS[name]


def file_of(name: str) -> Path:
    """The file of a model, from the folder that holds the package."""
    return Path(*PLACES[name][0].split(".")).with_suffix(".py")


def name_of(model: "Model") -> str:
    """The name of a model in `MODELS`."""
    place = (type(model).__module__, type(model).__name__)
    return next(name for name, known in PLACES.items() if known == place)


def build(
    name: str,
    num_classes: int = 1,
    size: int = 256,
    width: float = 1.0,
    in_channels: int | None = None,
) -> "Model":
    """A new model, randomly initialised.

    Args:
        name: a key of `MODELS`.
        num_classes: channels of the logits: 1 for a binary mask, otherwise one for each class.
        size: side of the square images in px, for models whose weights depend on it.
        width: factor on the channels of every layer; 1.0 is the published model.
        in_channels: channels of the images; by default the model's own, 3 for images.

    Raises:
        InputError: unknown name, too few classes, a size that the model cannot take, or a width
            that leaves a layer empty.
    """
    chosen = model_class(name)
    if num_classes < chosen.min_classes:
        raise InputError(
            f"{chosen.title} needs at least {chosen.min_classes} classes, not {num_classes}"
        )
    if size % chosen.stride or size < chosen.stride:
        raise InputError(
            f"{chosen.title} takes sizes divisible by {chosen.stride}, not {size}x{size}"
        )
    arguments = chosen.arguments(size, width)
    if in_channels is not None:
        arguments["in_channels"] = in_channels
    return chosen(num_classes=num_classes, **arguments)
