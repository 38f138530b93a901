"""The stages of a sweep: all, or those of the cells that tables, names or seeds select.

A cell is a run of the grid: the stages `train...@NAME`, `evaluate...@NAME` and
`model_card...@NAME`. NAME is the run's name, such as isic17-64-base-paper-42. Stages are selected
from DVC's own graph.
"""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from pipeline.dvc.record import Record
from pipeline.sweep.options import SweepOptions
from vmunet.errors import InputError

CELL = re.compile(r"(?P<kind>train|evaluate|model_card)\w*@(?P<run>.+)")
# The stages that read the scores of all cells, and the stages that only those need.
REPORT = (
    "cross",
    "costs",
    "speed",
    "receptive_field",
    "tables",
    "pictures",
    "pictures_volumes",
    "figures",
    "page",
    "pdf",
)


def trains_or_evaluates(name: str) -> bool:
    """Whether a stage is a training or an evaluation, which take the time of a sweep."""
    match = CELL.fullmatch(name)
    return match is not None and match["kind"] != "model_card"


@dataclass(frozen=True)
class Selection:
    """The stages of a sweep, including the stages that they need.

    Attributes:
        stages: names of the stages.
        last: the report's stages, which need the scores of every cell; empty if all stages are
            selected.
        shown: the numerals of the tables that show a run, by the run's name.
    """

    stages: set[str]
    last: set[str]
    shown: Mapping[str, Sequence[str]] = field(default_factory=dict)


def select(record: Record, options: SweepOptions) -> Selection:
    """The stages that the options select, with all stages that they need.

    Raises:
        InputError: a table, cell or seed is unknown, or nothing is left.
    """
    shown = tables_of_runs(record.root)
    if options.everything:
        return Selection(set(record.stages), set(), invert(shown))
    of_run: dict[str, list[str]] = {}
    for name in record.stages:
        if match := CELL.fullmatch(name):
            of_run.setdefault(match["run"], []).append(name)
    runs = set(of_run)
    if options.tables:
        runs &= {run for key in table_keys(options.tables, shown) for run in shown[key]}
    if options.cells:
        runs &= {run for pattern in options.cells for run in matching(pattern, of_run)}
    if options.seeds:
        declared = {seed for run in of_run if (seed := seed_of(run)) is not None}
        for seed in options.seeds:
            if seed not in declared:
                raise InputError(
                    f"--seeds {seed}: params.yaml declares {listed(sorted(declared))}; add it to "
                    "grid.seeds there, which adds its runs and leaves the others as they are"
                )
        runs = {run for run in runs if seed_of(run) in options.seeds}
    if not runs:
        raise InputError("no cell of the grid matches all options; `vmunet runs` lists the cells")
    stages = record.with_ancestors(name for run in runs for name in of_run[run])
    last = {name for name in record.stages if name.partition("@")[0] in REPORT}
    return Selection(stages, last, invert(shown))


def matching(pattern: str, runs: Iterable[str]) -> list[str]:
    """The runs whose name matches the pattern.

    Raises:
        InputError: no name matches.
    """
    names = list(runs)
    matches = [run for run in names if fnmatchcase(run, pattern.split("@")[-1])]
    if not matches:
        close = difflib.get_close_matches(pattern, names, n=2, cutoff=0.5)
        hint = f" Did you mean {' or '.join(close)}?" if close else ""
        raise InputError(
            f"--cells {pattern}: no cell has that name; `vmunet runs` lists the cells.{hint}"
        )
    return matches


def table_keys(wanted: Iterable[str], shown: Mapping[str, Iterable[str]]) -> list[str]:
    """The numerals of the tables that `wanted` names by number or numeral.

    Raises:
        InputError: there is no such table, or it shows no cell of this grid.
    """
    keys = list(shown)
    by_name = {str(number): key for number, key in enumerate(keys, 1)} | {key: key for key in keys}
    wanted_keys = []
    for name in wanted:
        key = by_name.get(name.upper())
        if key is None:
            known = ", ".join(f"{number} ({key})" for number, key in enumerate(keys, 1))
            raise InputError(f"--tables {name}: no such table; known: {known or 'none'}")
        if not shown[key]:
            raise InputError(f"--tables {name}: the active grid runs none of its cells")
        wanted_keys.append(key)
    return wanted_keys


def tables_of_runs(root: Path) -> dict[str, list[str]]:
    """The names of the grid's runs that each declared table shows; empty if no table is declared.

    Raises:
        InputError: params.yaml or reports/*.yaml has a mistake.
    """
    from pipeline.config.params import load_params
    from pipeline.config.runs import runs
    from reports.make.results.views import runs_of_tables

    if not (root / "reports/tables.yaml").is_file():
        return {}
    params = load_params(root)
    return runs_of_tables(runs(params), params, root)


def seed_of(run: str) -> int | None:
    """The seed in a run's name."""
    seed = run.rpartition("-")[2]
    return int(seed) if seed.isdecimal() else None


def invert(shown: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    """The tables that show a run, by the run's name."""
    tables: dict[str, list[str]] = {}
    for key, runs in shown.items():
        for run in runs:
            tables.setdefault(run, []).append(key)
    return tables


def listed(values: Iterable[object]) -> str:
    return ", ".join(map(str, values)) or "none"
