"""The search space: each setting with its range, and how a trial becomes a cell of params.yaml."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pipeline.config.params import VMUNET, Cell
from vmunet.settings import TrainSettings

Kind = Literal["images", "volumes"]
FULL_CIRCLE = 180.0  # degrees; this limit allows every angle, as the published rotation does
PUBLISHED_LIMIT = {"images": FULL_CIRCLE, "volumes": 20.0}


@dataclass(frozen=True)
class Dimension:
    """A setting: from `low` to `high`, on a logarithmic scale if `step` is None."""

    name: str
    low: float
    high: float
    step: float | None = None

    def holds(self, value: float) -> bool:
        """Whether a search could draw this value."""
        if not self.low <= value <= self.high:
            return False
        if self.step is None:
            return True
        steps = (value - self.low) / self.step
        return abs(steps - round(steps)) < 1e-6

    def rounded(self, value: float) -> float:
        """The value that a trial trains with: of three digits, or a multiple of the step."""
        return float(f"{value:.3g}") if self.step is None else round(value, 4)


def space(kind: Kind, protocol: str, cell: Cell, budget: TrainSettings) -> list[Dimension]:
    """The dimensions of a search on images or on slices of volumes; VM-UNet alone has drop path.

    The two loss weights are one dimension, Dice's share, because AdamW's steps do not depend on a
    common factor of the loss.
    """
    common = [
        Dimension("learning_rate", max(1e-4, budget.eta_min), 2e-2),
        Dimension("weight_decay", 1e-4, 1e-1),
        *([Dimension("drop_path_rate", 0.0, 0.5, 0.05)] if cell.model == VMUNET else []),
        Dimension("dice_share", 0.1, 0.9, 0.05),
    ]
    if kind == "images":
        return [
            *common,
            Dimension("horizontal_flip", 0.0, 0.5, 0.1),  # above 0.5 the same images come mirrored
            Dimension("vertical_flip", 0.0, 0.5, 0.1),
            Dimension("rotation", 0.0, 1.0, 0.1),
            Dimension("rotation_limit", 10.0, FULL_CIRCLE, 10.0),
        ]
    turns = [Dimension("turns", 0.0, 1.0, 0.1)] if protocol == "paper" else []
    return [
        *common,
        *turns,
        Dimension("rotation", 0.0, 1.0, 0.1),
        Dimension("rotation_limit", 5.0, 45.0, 5.0),
    ]


def own_values(dimensions: list[Dimension], cell: Cell, budget: TrainSettings, kind: Kind) -> dict:
    """The cell's own settings as the values of a trial; empty if a search could not draw them."""
    settings, first, second = cell.settings(budget), *cell.weights
    values = {
        **asdict(cell.augmentation),
        "learning_rate": settings.learning_rate,
        "weight_decay": settings.weight_decay,
        "drop_path_rate": cell.drop_path_rate,
        "dice_share": second / (first + second),
    }
    if values["rotation_limit"] is None:
        values["rotation_limit"] = PUBLISHED_LIMIT[kind]
    inside = all(d.holds(values[d.name]) for d in dimensions)
    return {d.name: values[d.name] for d in dimensions} if inside else {}


def overrides(dimensions: list[Dimension], values: Mapping[str, float], kind: Kind) -> dict:
    """A trial's values in the form of a cell of params.yaml."""
    augment = {d.name: d.rounded(values[d.name]) for d in dimensions}
    share = augment.pop("dice_share")
    training = {name: augment.pop(name) for name in ("learning_rate", "weight_decay")}
    own = {"drop_path_rate": augment.pop("drop_path_rate")} if "drop_path_rate" in augment else {}
    if augment["rotation_limit"] == PUBLISHED_LIMIT[kind]:
        del augment["rotation_limit"]
    return {
        **own,
        "train": training,
        "loss_weights": [round(2 * (1 - share), 4), round(2 * share, 4)],
        "augment": augment,
    }


def cell_with(cell: Cell, changes: Mapping[str, Any]) -> Cell:
    """The cell with changed settings, checked like a cell of params.yaml."""
    return Cell.model_validate({**cell.model_dump(exclude_none=True), **changes})


def as_yaml(name: str, cell: Mapping[str, Any]) -> str:
    """A cell in the form of the lines under `cells:` in params.yaml."""
    lines = [f"  {name}:"]
    for key, value in cell.items():
        lines.append(f"    {key}: {on_one_line(value)}")
    return "\n".join(lines) + "\n"


def on_one_line(value: Any) -> str:
    """A value as YAML on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {on_one_line(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(on_one_line, value)) + "]"
    if isinstance(value, float):
        text = repr(value)  # in YAML 1.1, 1e-05 is a text and 1.0e-05 a number
        return text if "." in text or "e" not in text else text.replace("e", ".0e")
    return str(value)
