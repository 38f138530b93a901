"""Which of the paper's tables show a run: a tag to find it by."""

from pathlib import Path

from pipeline.config.params import Params, read_yaml
from pipeline.config.runs import Run
from vmunet.errors import InputError


def tables_of(run: Run, params: Params, root: Path = Path(".")) -> str:
    """The tables' numerals, such as `I III IV`; '' for a run that no table shows.

    A table shows a cell at its dataset's base size; the table on sizes shows it at all sizes.
    """
    grid = params.grid
    try:
        dataset = params.view(run.view).dataset
        tables = read_yaml(root / "reports/tables.yaml")["tables"]
    except (InputError, KeyError):  # no longer declared, or not one of the paper's
        return ""
    volumes = [name for name, view in grid.volumes.items() if view.dataset == dataset]
    smallest = min(volumes, key=lambda name: grid.volumes[name].size, default=None)
    at_base_size = run.view in grid.ablation_views or run.view == smallest
    return " ".join(
        name
        for name, table in tables.items()
        if dataset in table["datasets"]
        and any(row.get("cell") == run.cell for row in table["rows"])
        and (at_base_size or table.get("extra") == "size")
    )
