"""How the authors of each model train it: quoted beside the tables, and not run."""

from collections.abc import Mapping, Sequence
from typing import Any

from reports.make.report import OURS, PaperTable
from reports.make.results.views import load_yaml
from reports.make.tables.inputs import Inputs
from reports.make.tidy import Tidy, tidy
from reports.make.typeset.sheet import Block, Caption, Line, Sheet, SheetCell
from reports.make.typeset.words import DASH
from vmunet.errors import InputError

SOURCE = "reports/recipes.yaml"
FIELDS = (
    *("data", "optimizer", "rate", "schedule", "epochs", "batch", "loss", "augmentation"),
    *("weights", "chosen", "source", "known"),
)
KNOWN = {"code": "", "quoted": " (quoted)", "nothing": " (not published)"}  # the labels' ends
# The printed columns: heading, and the fields with the words before each.
COLUMNS = (
    ("Published for", {"data": ""}),
    ("Optimizer", {"optimizer": "", "rate": "learning rate "}),
    ("Schedule", {"schedule": "", "epochs": "epochs: ", "batch": "batch "}),
    ("Loss", {"loss": ""}),
    ("Augmentation", {"augmentation": ""}),
    ("Initial weights", {"weights": ""}),
    ("Epoch chosen by", {"chosen": ""}),
)
NOTES = (
    "Not run here: all measured rows use the common protocol, VM-UNet's own.",
    "Read in the authors' code, where nothing else is said. A dash: not published, or not found. "
    "recipes.csv and the page have the whole list.",
)


def recipes(tables: Sequence[PaperTable], inputs: Inputs) -> dict[str, dict[str, str]]:
    """The recipes of VM-UNet and of the models with runs, by name; {} without another model.

    A model of your own needs none. Raises InputError if a recipe has a mistake.
    """
    declared: dict[str, Any] = load_yaml(inputs.root / SOURCE)
    measured = {row.model for table in tables for row in table.rows if any(row.runs.values())}
    if not (measured - {OURS}) & declared.keys():
        return {}
    shown = {name: dict(of) for name, of in declared.items() if name in measured | {OURS}}
    for name, recipe in shown.items():
        _check(name, recipe)
    return shown


def _check(name: str, recipe: Mapping[str, Any]) -> None:
    for field in ("label", "source", "known"):
        if field not in recipe:
            raise InputError(f"{SOURCE}: {name}: lacks {field!r}")
    for field, value in recipe.items():
        if field not in ("label", *FIELDS):
            raise InputError(f"{SOURCE}: {name}: unknown {field!r}; known: {', '.join(FIELDS)}")
        if not isinstance(value, str):
            raise InputError(f"{SOURCE}: {name}.{field}: expected a text in quotes, not {value!r}")
    if recipe["known"] not in KNOWN:
        known = ", ".join(KNOWN)
        raise InputError(f"{SOURCE}: {name}.known: {recipe['known']!r} is none of {known}")


def recipes_sheet(shown: Mapping[str, Mapping[str, str]]) -> Sheet:
    """A row for each model, its texts in narrow columns."""
    lines = []
    for recipe in shown.values():
        texts = [_text(recipe, fields) for _, fields in COLUMNS]
        cells = (SheetCell(text, prose=True) for text in texts)
        label = f"{recipe['label']}{KNOWN[recipe['known']]}"
        lines.append(Line((SheetCell(label), *cells), apart=True))
    sources = ". ".join(f"{recipe['label']}: {recipe['source']}" for recipe in shown.values())
    return Sheet(
        name="recipes",
        caption=Caption(
            title="The recipes of the models' authors",
            text=NOTES[0],
            origins=(),
            notes=(NOTES[1], f"Sources. {sources}."),
            legend=(),
        ),
        head=("Model", *(heading for heading, _ in COLUMNS)),
        blocks=(Block("", tuple(lines)),),
        left=1 + len(COLUMNS),
        source=SOURCE,
    )


def _text(recipe: Mapping[str, str], fields: Mapping[str, str]) -> str:
    parts = [f"{words}{recipe[field]}" for field, words in fields.items() if field in recipe]
    return "; ".join(parts) or DASH


def recipes_data(shown: Mapping[str, Mapping[str, str]]) -> Tidy:
    """Tidy: a line for each model."""
    return tidy(
        [
            {"model": name, "label": recipe["label"]} | {f: recipe.get(f) for f in FIELDS}
            for name, recipe in shown.items()
        ]
    )
