"""The declared runs: their names and folders."""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.config.params import Params
from pipeline.config.strict import ProtocolName
from pipeline.config.yaml_file import read_yaml
from vmunet.errors import InputError


@dataclass(frozen=True)
class Run:
    """One training run: a cell on a dataset at a size, under a protocol, with a seed."""

    view: str
    cell: str
    protocol: ProtocolName
    seed: int

    @property
    def name(self) -> str:
        return f"{self.view}-{self.cell}-{self.protocol}-{self.seed}"

    @property
    def folder(self) -> Path:
        """The folder of weights, history and provenance."""
        return Path("runs") / self._path

    def metrics_folder(self, profile: str) -> Path:
        """The folder of scores; it has the profile's name, so that tables never mix budgets."""
        return Path("metrics") / profile / self._path

    @property
    def card(self) -> Path:
        """The model card."""
        return Path("reports/out/cards") / self._path / "MODEL_CARD.md"

    @property
    def _path(self) -> Path:
        return Path(self.view, self.cell, self.protocol, str(self.seed))


class OwnRun(Run):
    """A run on your own dataset, which no table of the paper shows.

    Its scores are outside metrics/<profile>/, the folder on which the `tables` stage depends.
    """

    def metrics_folder(self, profile: str) -> Path:
        return Path("metrics", "own", profile) / self._path


def runs(params: Params) -> list[Run]:
    """Every run of the declared grid."""
    return [Run(*run) for run in params.grid.runs()]


def own_runs(params: Params) -> list[Run]:
    """Every run on the datasets that `own` declares."""
    return [OwnRun(*run) for run in params.own.runs(params.grid.seeds)]


def own_names(root: Path = Path(".")) -> set[str]:
    """The datasets that params.yaml's `own` names, unchecked: `load_params` reports mistakes."""
    try:
        own = read_yaml(root / "params.yaml").get("own")
    except InputError:
        return set()
    parts = [own.get(kind) for kind in ("images", "volumes")] if isinstance(own, dict) else []
    return {str(name) for part in parts if isinstance(part, dict) for name in part}


def parse_run(argv: Sequence[str] | None, stage: str, about: str | None) -> Run:
    """The run that a stage's command line names: VIEW CELL PROTOCOL SEED."""
    return _run_of(_run_parser(stage, about).parse_args(argv))


def parse_scoring(argv: Sequence[str] | None, stage: str, about: str | None) -> tuple[Run, bool]:
    """The run that a scoring of volumes names, and its --medpy."""
    parser = _run_parser(stage, about)
    parser.add_argument(
        "--medpy", action="store_true", help="compare the scores with medpy's, and write nothing"
    )
    arguments = parser.parse_args(argv)
    return _run_of(arguments), arguments.medpy


def parse_training(argv: Sequence[str] | None, stage: str, about: str | None) -> tuple[Run, float]:
    """The run that a training's command line names, and its --seconds, infinite by default."""
    parser = _run_parser(stage, about)
    parser.add_argument(
        "--seconds",
        type=positive,
        default=math.inf,
        metavar="N",
        help="end after the epoch in which N seconds are over, with exit status 124; the same "
        "command goes on from there",
    )
    arguments = parser.parse_args(argv)
    return _run_of(arguments), arguments.seconds


def _run_parser(stage: str, about: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m stages.{stage}", description=about)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("view", help="a dataset at a size, such as isic17-256, or your own dataset")
    parser.add_argument("cell", help="a cell of params.yaml, such as base")
    parser.add_argument("protocol", choices=["paper", "sound"])
    parser.add_argument("seed", type=int)
    return parser


def _run_of(arguments: argparse.Namespace) -> Run:
    kind = OwnRun if arguments.view in own_names() else Run
    return kind(arguments.view, arguments.cell, arguments.protocol, arguments.seed)


def positive(text: str) -> float:
    """A number of seconds; argparse explains the ValueError."""
    value = float(text)
    if not value > 0:
        raise ValueError
    return value
