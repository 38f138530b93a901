"""Speed and memory of each architecture, as the stage `speed` measured them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reports.make.files import read_json, trusted

if TYPE_CHECKING:
    from pipeline.config.params import Params

PHASES = ("inference", "training")
# The fields of an architecture in speed.json: images a second, then bytes.
RATES = tuple(f"{phase}_images_per_second" for phase in PHASES)
PEAKS = tuple(f"{phase}_peak_bytes" for phase in PHASES)
SPEED = "measurements of speed"


@dataclass(frozen=True)
class Speed:
    """metrics/<profile>/<view>/speed.json.

    Attributes:
        device: its name; of `CPU` memory is resident, else the GPU's.
        size, width: of the images, px; of VM-UNet, channels of the first stage.
        batch_size: by phase.
        width_factor: of the models other than VM-UNet, relative to the published ones.
        architectures: VM-UNet's by `<depths>-<decoder's depths>`, other models by name: `RATES` and
            `PEAKS`, None if there is no measurement.
    """

    device: str
    threads: int
    size: int
    width: int
    width_factor: float
    batch_size: Mapping[str, int]
    architectures: Mapping[str, Mapping[str, float | None]]


def read_speed(root: Path, params: "Params") -> Speed | None:
    """The speed measured at the first view of grid.profiled; None if nothing was measured.

    Raises:
        InputError: the file does not hold measurements of speed.
    """
    if not params.grid.profiled:
        return None
    path = f"metrics/{params.profile_name}/{params.grid.profiled[0]}/speed.json"
    again = f"run `python -m stages.speed {params.grid.profiled[0]}`"
    if not (root / path).exists():
        return None
    content = read_json(root, path, SPEED, again)
    with trusted(path, SPEED, again):
        return Speed(
            device=content["device"],
            threads=content["threads"],
            size=content["size"],
            width=content["dims"][0],
            width_factor=content["width"],
            batch_size={phase: content["batch_size"][phase] for phase in PHASES},
            architectures={
                name: {field: measured.get(field) for field in (*RATES, *PEAKS)}
                for name, measured in content["architectures"].items()
            },
        )
