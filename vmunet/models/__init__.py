"""Every model that can be trained, by name; each is imported when it is first asked for.

`build("transunet", num_classes=9, size=224)` gives a new model. docs/models.md shows how to add
one.
"""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING

from vmunet.errors import InputError

if TYPE_CHECKING:
    from vmunet.architecture import Model

# name: module and class. The rows of the paper's Tables I and II, in their order.
PLACES = {
    "vmunet": ("vmunet.model", "VMUNet"),
    "unet": ("vmunet.models.unet", "UNet"),
    "unet-34m": ("vmunet.models.unet", "UNet34M"),
    "unetpp": ("vmunet.models.unetpp", "UNetPlusPlus"),
    "att-unet": ("vmunet.models.att_unet", "AttUNet"),
    "utnetv2": ("vmunet.models.utnetv2", "UTNetV2"),
    "sanet": ("vmunet.models.sanet", "SANet"),
    "transfuse": ("vmunet.models.transfuse", "TransFuse"),
    "malunet": ("vmunet.models.malunet", "MALUNet"),
    "vnet": ("vmunet.models.vnet", "VNet"),
    "r50-unet": ("vmunet.models.r50_unet", "R50UNet"),
    "transunet": ("vmunet.models.transunet", "TransUNet"),
    "transnorm": ("vmunet.models.transnorm", "TransNorm"),
    "swin-unet": ("vmunet.models.swin_unet", "SwinUNet"),
    "transdeeplab": ("vmunet.models.transdeeplab", "TransDeepLab"),
    "uctransnet": ("vmunet.models.uctransnet", "UCTransNet"),
    "mt-unet": ("vmunet.models.mt_unet", "MTUNet"),
    "mew-unet": ("vmunet.models.mew_unet", "MEWUNet"),
}


class _Registry(Mapping[str, "type[Model]"]):
    """A mapping from a name to a class, which is imported on access."""

    def __getitem__(self, name: str) -> "type[Model]":
        module, attribute = PLACES[name]
        return getattr(import_module(module), attribute)

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


def name_of(model: "Model") -> str:
    """The name of a model in `MODELS`."""
    place = (type(model).__module__, type(model).__name__)
    return next(name for name, known in PLACES.items() if known == place)


def build(
    name: str, num_classes: int = 1, size: int = 256, width: float = 1.0, in_channels: int = 3
) -> "Model":
    """A new model, randomly initialised.

    Args:
        name: a key of `MODELS`.
        num_classes: channels of the logits: 1 for a binary mask, otherwise one for each class.
        size: side of the square images in px, for models whose weights depend on it.
        width: factor on the channels of every layer; 1.0 is the published model.
        in_channels: channels of the images.

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
    return chosen(in_channels=in_channels, num_classes=num_classes, **arguments)
