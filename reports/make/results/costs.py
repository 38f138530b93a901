"""Parameters and multiply-accumulates of the models, as the stage `costs` counted them."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reports.make.files import read_json, trusted

if TYPE_CHECKING:
    from pipeline.config.params import Params

COSTS = "the models' parameters and multiply-accumulates"
AGAIN = "run `python -m stages.costs`"


@dataclass(frozen=True)
class ModelCost:
    """A model of published width: `sides` are those of its input, px or voxels.

    `parameters`, `macs_paper`, `macs_complete`: see `vmunet.complexity.Counted`.
    """

    sides: tuple[int, ...]
    classes: int
    parameters: int
    macs_paper: int
    macs_complete: int


def read_costs(root: Path, params: "Params") -> dict[str, dict[str, ModelCost]]:
    """The cost of each model, by table and name; {} if nothing was counted.

    Raises:
        InputError: the file does not hold the costs.
    """
    path = Path("metrics", params.profile_name, "costs.json")
    if not (root / path).exists():
        return {}
    content = read_json(root, path, COSTS, AGAIN)
    with trusted(path, COSTS, AGAIN):
        return {
            table: {
                name: ModelCost(
                    tuple(cost["input"]),
                    cost["classes"],
                    cost["parameters"],
                    cost["macs_paper"],
                    cost["macs_complete"],
                )
                for name, cost in models.items()
            }
            for table, models in content.items()
        }
