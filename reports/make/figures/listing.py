"""Where the report's figures and cases lie, which there are, in order, and what is said of each."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmunet.errors import InputError

if TYPE_CHECKING:
    from pipeline.config.params import Params

FIGURES, PICTURES = Path("reports/out/figures"), Path("reports/out/pictures")
NAME, CASES = "figures.json", "cases.json"
# name: of its files, without suffix; data: `phantom`, `real` or `mixed`
FIELDS = ("name", "title", "caption", "data", "alt")
AGAIN = "run `python -m stages.figures` again"


def listed_figures(folder: Path) -> list[dict[str, str]]:
    """The entries (`FIELDS`) of a folder's figures.json; none where there is no such file.

    Raises:
        InputError: it is malformed, or the PDF or PNG of a figure is missing.
    """
    path = folder / NAME
    if not path.exists():
        return []
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}); {AGAIN}") from None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f"{path}: expected a list of figures; {AGAIN}")
    for entry in entries:
        for field in FIELDS:
            if not isinstance(entry.get(field), str):
                raise InputError(f"{path}: a figure lacks its '{field}'; {AGAIN}")
        for suffix in ("pdf", "png"):
            file = folder / f"{entry['name']}.{suffix}"
            if not file.is_file():
                raise InputError(f"{file}: no such file, though {path} lists it; {AGAIN}")
    return entries


def pictured_views(params: "Params") -> list[str]:
    """The views whose images or volumes the report shows, in order."""
    return [*params.grid.ablation_views, *params.grid.volumes]


def figure_folders(params: "Params") -> list[Path]:
    """Every folder with figures, in the order of the report: first those of images."""
    return [*(PICTURES / view for view in pictured_views(params)), FIGURES]


def read_cases(root: Path, view: str) -> dict[str, Any] | None:
    """What the page's viewer is given of a view's test cases; None where the view has no runs.

    Raises:
        InputError: it is not there, or not JSON.
    """
    path = root / PICTURES / view / CASES
    again = f"run `python -m stages.pictures {view}`"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; {again}") from None
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}); {again}") from None
