"""What the header of a weights file may say: a foreign file could ask for an endless model."""

import json
from typing import Any

MOST = 2**14  # of channels, classes, blocks and pixels
MOST_BLOCKS = 2**9  # of a stage
LEVELS = 8


def read_entry(text: str) -> dict[str, Any]:
    """An entry of the header, as JSON.

    Raises:
        ValueError: it is no JSON object, or it is nested too deeply.
    """
    try:
        content = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(content, dict):
        raise ValueError("expected names and values")
    return content


def check_arguments(arguments: Any) -> None:
    """Refuse arguments of a model that would make it endless, or its sizes negative.

    Raises:
        ValueError: a whole number is below 0 or too large, or lists are nested too deeply.
    """
    if not isinstance(arguments, dict):
        raise TypeError("the model's arguments are not names and values")
    for name, value in arguments.items():
        most = MOST_BLOCKS if "depth" in name else MOST
        for number in _numbers(value, LEVELS):
            if not 0 <= number <= most:
                raise ValueError(f"{name} is {number:g}; expected 0 to {most}")


def check_size(metadata: dict[str, Any]) -> None:
    """Refuse a training size or patch, px, that no image has.

    Raises:
        ValueError: it is not a number from 1 to MOST, or several such.
    """
    for name in ("size", "patch"):
        size = metadata.get(name, 1)
        numbers = _numbers(size, 1)
        if not numbers or not all(1 <= number <= MOST for number in numbers):
            raise ValueError(f"{name} is {size!r:.40}; expected 1 to {MOST} px")


def _numbers(value: Any, levels: int) -> list[float]:
    """The numbers in a value and in its lists."""
    if isinstance(value, int | float):
        return [value]
    if not isinstance(value, list):
        return []
    if not levels or len(value) > MOST:
        raise ValueError("lists that are nested too deeply or too long")
    return [number for item in value for number in _numbers(item, levels - 1)]
