"""The architectures that can be trained, by name; each is imported when it is first asked for."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any


class _Registry(Mapping[str, Any]):
    """A mapping from a name to a class, which is imported on access."""

    def __init__(self, places: dict[str, tuple[str, str]]) -> None:
        self._places = places

    def __getitem__(self, name: str) -> Any:
        module, attribute = self._places[name]
        return getattr(import_module(module), attribute)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


# A model's class takes num_classes, in_channels, dims, ... as keywords, and maps images
# (batch, in_channels, height, width) to logits (batch, num_classes, height, width).
MODELS: Mapping[str, Any] = _Registry({"vmunet": ("vmunet.model", "VMUNet")})
