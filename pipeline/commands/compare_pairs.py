"""The runs that `vmunet compare` compares: resolve names of cells and runs, and form pairs."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.config.params import Params
from pipeline.config.runs import Run
from vmunet.errors import InputError

# The forms of a name; the first form that matches a run counts.
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
    """The runs that a word on the command line names, and the parts of the form that it has."""

    word: str
    runs: Sequence[Run]
    parts: Sequence[str]


@dataclass(frozen=True)
class Pair:
    """Two cells, each with its seeds, on the same test images."""

    a: Sequence[Run]
    b: Sequence[Run]


def resolve(word: str, declared: Sequence[Run], params: Params) -> Named:
    """The declared runs that `word` names, in one of `FORMS`.

    A run's folder also counts as its name: runs/isic17-64/base/paper/42.

    Raises:
        InputError: no declared run has this name.
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
            "own.cells for your own dataset"
        )
    close = difflib.get_close_matches(name, list(dict.fromkeys(known)), n=2, cutoff=0.5)
    hint = f" (did you mean {' or '.join(close)}?)" if close else ""
    cells = ", ".join(dict.fromkeys(run.cell for run in declared)) or "none"
    raise InputError(
        f"{word}: no cell or run of that name{hint}; cells with runs: {cells}; `vmunet runs` lists "
        "the runs"
    )


def pairs(a: Named, b: Named, params: Params) -> list[Pair]:
    """The pairs with the same view and protocol; a part may differ if both words name it.

    Raises:
        InputError: the two are the same, share no view and protocol, or have different test images.
    """
    common = []
    for (view, protocol), a_runs in _groups(a.runs).items():
        for (other_view, other_protocol), b_runs in _groups(b.runs).items():
            same_view, same_protocol = view == other_view, protocol == other_protocol
            if not same_view and not ("view" in a.parts and "view" in b.parts):
                continue
            if not same_protocol and not ("protocol" in a.parts and "protocol" in b.parts):
                continue
            if params.view(view).dataset != params.view(other_view).dataset:
                raise InputError(
                    f"{a.word} and {b.word} have different test images: {view} and {other_view} "
                    "are of different datasets"
                )
            if set(a_runs) & set(b_runs):
                raise InputError(
                    f"{a.word} and {b.word} are the same runs ({a_runs[0].name}); name two cells, "
                    f"or both protocols: {a_runs[0].cell}-paper and {a_runs[0].cell}-sound"
                )
            common.append(Pair(a_runs, b_runs))
    if not common:
        raise InputError(
            f"{a.word} and {b.word} have no view and protocol in common: {a.word} runs on "
            f"{_places(a.runs)}; {b.word} on {_places(b.runs)}"
        )
    return common


def _groups(runs: Sequence[Run]) -> dict[tuple[str, str], list[Run]]:
    """The runs of each (view, protocol), one for each seed."""
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.view, run.protocol), []).append(run)
    return groups


def _places(runs: Sequence[Run]) -> str:
    return ", ".join(f"{view} ({protocol})" for view, protocol in _groups(runs)) or "nothing"
