"""Write the page about a set of volumes: their sizes and organs, and a picture of every case."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vmunet.data.checks.volumes import report
from vmunet.drawing.sheets.images import write as write_sheet
from vmunet.drawing.sheets.organs import draw_cases
from vmunet.files import whole_folder


def write_report(arrays: Path, manifest: Mapping[str, Any], target: Path) -> None:
    """Write index.md and cases.png about data/arrays/<view> to `target`, both or neither."""
    with whole_folder(target) as folder:
        title = f"{manifest['view']}   source: {manifest['source']}   outlines: the true labels"
        write_sheet(
            folder / "cases.png", draw_cases(arrays, manifest, list(manifest["cases"]), title)
        )
        (folder / "index.md").write_text(report(manifest))
