"""Read a YAML file that a person wrote, or that came with another person's clone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    Event,
    ScalarEvent,
)

from vmunet.errors import InputError

MOST_BYTES = 2**16  # params.yaml of the repository has 4,400
MOST_VALUES = 100_000  # after each alias is replaced by what its anchor holds
MOST_LEVELS = 20


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        InputError: the file is missing, is not YAML in UTF-8, is too large or nested too deeply,
            or holds something else than a mapping.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise InputError(f"{path}: more than {MOST_BYTES:,} bytes; expected settings alone")
        text = content.decode("utf-8-sig")
        check_size(YAML(typ="safe", pure=True).parse(text), path)
        values = YAML(typ="safe", pure=True).load(text)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; run from the repository's root") from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: byte {error.start + 1} is not UTF-8; save the file as UTF-8"
        ) from None
    # ruamel raises the last three for a tag or a number that it cannot read
    except (YAMLError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected names and values")
    return values


def check_size(events: Iterator[Event], path: Path) -> None:
    """Refuse a document that grows while it is loaded, or whose nesting needs a deep stack.

    Raises:
        InputError: it has more than `MOST_VALUES` values or `MOST_LEVELS` levels.
    """
    sizes: dict[str, int] = {}  # the values that an anchor stands for
    open_sizes: list[int] = [0]  # the values so far of each open collection; first the document's
    open_anchors: list[str | None] = [None]
    for event in events:
        if isinstance(event, CollectionEndEvent):
            size, anchor = open_sizes.pop(), open_anchors.pop()
        elif isinstance(event, CollectionStartEvent):
            open_sizes.append(1)
            open_anchors.append(event.anchor)
            if len(open_sizes) > MOST_LEVELS + 1:
                raise InputError(f"{path}: nested in more than {MOST_LEVELS} levels")
            continue
        elif isinstance(event, AliasEvent):
            if event.anchor in open_anchors:
                raise InputError(f"{path}: the alias *{event.anchor} lies inside its own anchor")
            size, anchor = sizes.get(event.anchor, 1), None
        elif isinstance(event, ScalarEvent):
            size, anchor = 1, event.anchor
        else:
            continue
        if anchor is not None:
            sizes[anchor] = size
        open_sizes[-1] += size
        if sum(open_sizes) > MOST_VALUES:
            raise InputError(
                f"{path}: its anchors and aliases stand for more than {MOST_VALUES:,} values; "
                "write the values themselves"
            )
