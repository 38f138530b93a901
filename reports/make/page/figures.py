"""The figures of the report on the page: pictures inside it, with a link to each PDF."""

from dataclasses import dataclass
from pathlib import Path

from reports.make.figures.listing import FIELDS, listed_figures
from reports.make.page.layout import linked
from reports.make.page.pixels import lossless


@dataclass(frozen=True)
class Picture:
    """A figure; `picture` is its PNG's as a data: URI, `pdf` the address of its PDF.

    `width` and `height` are the PNG's, px.
    """

    name: str
    title: str
    caption: str
    alt: str
    picture: str
    pdf: str
    width: int
    height: int


def embedded(root: Path, folder: Path) -> list[Picture]:
    """The figures in figures.json of `folder` (relative to `root`); none without that file.

    Raises:
        InputError: figures.json is malformed, or a picture that it names is missing.
    """
    pictures = []
    for entry in listed_figures(root / folder):
        name = entry["name"]
        content = (root / folder / f"{name}.png").read_bytes()
        width, height = (int.from_bytes(content[at : at + 4]) for at in (16, 20))  # a PNG's head
        pictures.append(
            Picture(
                **{field: entry[field] for field in FIELDS if field != "data"},
                picture=lossless(content),
                pdf=linked((folder / f"{name}.pdf").as_posix()),
                width=width,
                height=height,
            )
        )
    return pictures
