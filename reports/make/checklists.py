"""Reporting checklists, answered from what the report knows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vmunet.errors import InputError

UNKNOWN = "not known to the pipeline"
NOT_IN_PAPER = "not reported by the paper"
FIELDS = {"ask", "here", "tables", "paper"}
# The values of a report by the names that reports/checklists.yaml gives them.
VALUES = {
    "Profile": "Profile",
    "Data": "Data",
    "Runs": "Runs",
    "Code": "Code revision",
    "Device": "Trained on",
    "Time": "Training time, all runs",
    "Packages": "Packages",
}


@dataclass(frozen=True)
class Checklist:
    """A checklist: its name, its source, and (what is asked, the answer) of each item."""

    name: str
    about: str
    items: tuple[tuple[str, str], ...]


def answered(
    declared: Mapping[str, Any], provenance: Sequence[tuple[str, str]], tables: Sequence[str]
) -> tuple[Checklist, ...]:
    """Every checklist of reports/checklists.yaml with its answers.

    Args:
        declared: the file's content.
        provenance: (heading, text), of `reports.make.report.Provenance.lines`.
        tables: the names of the report's tables.

    Raises:
        InputError: an item lacks a field, or names a value that a report does not have.
    """
    texts = dict(provenance)
    values = {name: texts[heading] for name, heading in VALUES.items()}
    try:
        return tuple(
            Checklist(
                checklist["name"],
                checklist["about"],
                tuple((item["ask"], _answer(item, values, tables)) for item in checklist["items"]),
            )
            for checklist in declared["checklists"]
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"reports/checklists.yaml: an item is malformed ({type(error).__name__}: {error}); "
            "the file's first lines say what an item may hold"
        ) from None


def _answer(item: Mapping[str, Any], values: Mapping[str, str], tables: Sequence[str]) -> str:
    if unknown := item.keys() - FIELDS:
        raise ValueError(f"{item['ask']!r} has {', '.join(sorted(unknown))}")
    parts = [item["here"].format_map(values)] if "here" in item else []
    if shown := [name for name in item.get("tables", ()) if name in tables]:
        parts.append(f"table{'s' if shown[1:] else ''} {', '.join(shown)}")
    text = "; ".join(part.rstrip(".") for part in parts) or UNKNOWN
    return text if item.get("paper", True) else f"{text} ({NOT_IN_PAPER})"
