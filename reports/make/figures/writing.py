"""Writing figures into a folder: each as PDF and PNG, and figures.json."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from reports.make.figures.listing import FIELDS, NAME
from reports.make.figures.runs import Drawn, Runs
from vmunet.drawing.figures.style import save, settled


def write_figures(
    gathered: Runs, figures: Sequence[Callable[[Runs], Iterator[Drawn]]], folder: Path
) -> list[str]:
    """Draw figures into a folder, write figures.json and return the figures' names."""
    listed = []
    with settled():
        for figure in figures:
            for drawn in figure(gathered):
                save(drawn.figure, folder / drawn.name)
                listed.append({field: getattr(drawn, field) for field in FIELDS})
    text = json.dumps(listed, indent=2, ensure_ascii=False) + "\n"
    (folder / NAME).write_text(text, encoding="utf-8", newline="\n")
    return [entry["name"] for entry in listed]
