"""The figures of the report on the page: pictures inside it, with a link to each PDF."""

import json
from dataclasses import dataclass
from pathlib import Path

from stages.page_layout import linked
from stages.page_pixels import data_uri
from vmunet.errors import InputError

FIELDS = ("name", "title", "caption", "alt")


@dataclass(frozen=True)
class Picture:
    """A figure; `picture` is its PNG as a data: URI, `pdf` the address of its PDF.

    `width` and `height` are the PNG's, px.
    """

    name: str
    title: str
    caption: str
    alt: str
    phantom: bool
    picture: str
    pdf: str
    width: int
    height: int


def pictures(root: Path, folder: Path) -> list[Picture]:
    """The figures that figures.json of `folder` (relative to `root`) lists; none without it.

    Raises:
        InputError: figures.json is malformed, or a picture that it names is missing.
    """
    path = root / folder / "figures.json"
    if not path.exists():
        return []
    again = "run `python -m stages.figures` again"
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}); {again}") from None
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        raise InputError(f"{path}: expected a list of figures; {again}")
    made = []
    for entry in listed:
        for field in FIELDS:
            if not isinstance(entry.get(field), str):
                raise InputError(f"{path}: a figure lacks its '{field}'; {again}")
        name = entry["name"]
        file = root / folder / f"{name}.png"
        try:
            content = file.read_bytes()
        except FileNotFoundError:
            raise InputError(f"{file}: no such file, though {path} lists it; {again}") from None
        width, height = _size(content, file)
        made.append(
            Picture(
                **{field: entry[field] for field in FIELDS},
                phantom=entry.get("data") == "phantom",
                picture=data_uri("image/png", content),
                pdf=linked((folder / f"{name}.pdf").as_posix()),
                width=width,
                height=height,
            )
        )
    return made


def _size(content: bytes, file: Path) -> tuple[int, int]:
    """Width and height that a PNG's head states."""
    if content[:8] != b"\x89PNG\r\n\x1a\n" or len(content) < 24:
        raise InputError(f"{file}: not a PNG; run `python -m stages.figures` again")
    return int.from_bytes(content[16:20]), int.from_bytes(content[20:24])
