"""Which runs `vmunet compare` sets against each other: names of cells and runs, resolved."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.config.params import Params
from pipeline.config.runs import Run
from vmunet.errors import InputError

# What a name may be made of; the first form that fits some run is what is meant.
FORMS = (
    ("cell",),
    ("cell", "protocol"),
    ("cell", "protocol", "seed"),
    ("view", "cell"),
    ("view", "cell", "protocol"),
    ("view", "cell", "protocol", "seed"),
)


@dataclass(frozen=True)
class Named:
    """The runs that a word on the command line names, and what of them it says."""

    word: str
    runs: Sequence[Run]
    says: Sequence[str]


@dataclass(frozen=True)
class Pair:
    """Two cells, each with its seeds, on the same test images."""

    a: Sequence[Run]
    b: Sequence[Run]


def resolve(word: str, declared: Sequence[Run], params: Params) -> Named:
    """The declared runs that `word` names: a cell, a run, or what lies between.

    A run's folder is taken for its name: runs/isic17-64/base/paper/42.

    Raises:
        InputError: it names none.
    """
    name = word.removeprefix("./").removeprefix("runs/").strip("/").replace("/", "-")
    known: list[str] = []
    for form in FORMS:
        names = {run: "-".join(str(getattr(run, part)) for part in form) for run in declared}
        if named := [run for run in declared if names[run] == name]:
            return Named(name, named, form)
        known += names.values()
    if name in params.cells:
        raise InputError(
            f"cell {name} has no run in the grid; add it to grid.ablations of params.yaml, or to "
            "own.cells for a dataset of your own"
        )
    close = difflib.get_close_matches(name, list(dict.fromkeys(known)), n=2, cutoff=0.5)
    hint = f" (did you mean {' or '.join(close)}?)" if close else ""
    cells = ", ".join(dict.fromkeys(run.cell for run in declared)) or "none"
    raise InputError(
        f"{word}: no cell or run of that name{hint}; cells with runs: {cells}; `vmunet runs` lists "
        "the runs"
    )


def pairs(a: Named, b: Named, params: Params) -> list[Pair]:
    """What can be compared: the same view and protocol, unless both words say theirs.

    Raises:
        InputError: the two are the same, have nothing in common, or have no common test images.
    """
    common = []
    for (view, protocol), one in _groups(a.runs).items():
        for (other_view, other_protocol), other in _groups(b.runs).items():
            same_view, same_protocol = view == other_view, protocol == other_protocol
            if not same_view and not ("view" in a.says and "view" in b.says):
                continue
            if not same_protocol and not ("protocol" in a.says and "protocol" in b.says):
                continue
            if params.view(view).dataset != params.view(other_view).dataset:
                raise InputError(
                    f"{a.word} and {b.word} have other test images: {view} and {other_view} are of "
                    "different datasets"
                )
            if set(one) & set(other):
                raise InputError(
                    f"{a.word} and {b.word} are the same runs ({one[0].name}); name two cells, or "
                    f"both protocols: {one[0].cell}-paper and {one[0].cell}-sound"
                )
            common.append(Pair(one, other))
    if not common:
        raise InputError(
            f"{a.word} and {b.word} have no view and protocol in common: {a.word} runs on "
            f"{_places(a.runs)}; {b.word} on {_places(b.runs)}"
        )
    return common


def _groups(runs: Sequence[Run]) -> dict[tuple[str, str], list[Run]]:
    """The seeds of each (view, protocol)."""
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.view, run.protocol), []).append(run)
    return groups


def _places(runs: Sequence[Run]) -> str:
    return ", ".join(f"{view} ({protocol})" for view, protocol in _groups(runs)) or "nothing"
