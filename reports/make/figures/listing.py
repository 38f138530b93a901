"""The report's figures and cases: their paths, order and captions."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from reports.make.files import read_json, trusted
from vmunet.errors import InputError

FIGURES, PICTURES = Path("reports/out/figures"), Path("reports/out/pictures")
NAME, CASES = "figures.json", "cases.json"
# name: of its files, without suffix; data: `phantom`, `real` or `mixed`
FIELDS = ("name", "title", "caption", "data", "alt")


def listed_figures(folder: Path) -> list[dict[str, str]]:
    """The entries (`FIELDS`) of a folder's figures.json; an empty list without such a file.

    Raises:
        InputError: the file is not a list of figures, or the PDF or PNG of a figure is missing.
    """
    path = folder / NAME
    if not path.exists():
        return []
    of_view = folder.parent.name == PICTURES.name
    again = f"run `python -m stages.{f'pictures {folder.name}' if of_view else 'figures'}`"
    with trusted(path, "a list of figures", again):
        entries = [
            {field: entry[field] for field in FIELDS}
            for entry in read_json(Path(), path, "a list of figures", again)
        ]
    for entry in entries:
        for suffix in ("pdf", "png"):
            file = folder / f"{entry['name']}.{suffix}"
            if not file.is_file():
                raise InputError(f"{file}: no such file, though {path} lists it; {again}")
    return entries


def figure_folders(pictured: Iterable[str]) -> list[Path]:
    """Every folder with figures, in the order of the report: first those of images.

    `pictured` are the views whose images or volumes the report shows.
    """
    return [*(PICTURES / view for view in pictured), FIGURES]


def read_cases(root: Path, view: str) -> dict[str, Any] | None:
    """The data of a view's test cases for the page's viewer; None if the view has no runs.

    Raises:
        InputError: the file is missing, or it is not JSON.
    """
    again = f"run `python -m stages.pictures {view}`"
    return read_json(root, PICTURES / view / CASES, "the test cases of a view", again)
