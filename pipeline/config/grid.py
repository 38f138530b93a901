"""The section `grid` of params.yaml: the views and the runs on them."""

from collections.abc import Sequence
from itertools import product
from typing import Annotated, Literal

from pydantic import Field

from pipeline.config.strict import Name, ProtocolName, Strict


class View(Strict):
    """A dataset at a size: the side of square images in pixels, a multiple of 32."""

    dataset: Literal["isic17", "isic18"]
    size: Annotated[int, Field(ge=32, multiple_of=32)]
    protocols: list[ProtocolName]


class VolumeView(Strict):
    """A dataset of volumes at a size: the side of the square slices, a multiple of 32 px."""

    dataset: Literal["synapse"]
    size: Annotated[int, Field(ge=32, multiple_of=32)]


class Crossing(Strict):
    """Two of `ablation_views`: runs that were trained on `train` are scored on `test`'s images."""

    train: str
    test: str


class Repeats(Strict):
    """`cells` of `ablation_views` that are run with `seeds` too, under the grid's protocols."""

    cells: list[str]
    seeds: list[Annotated[int, Field(ge=0, lt=2**31)]]


class Grid(Strict):
    """The declared runs: ablation_views x ablations x protocols x seeds, and smaller products.

    Attributes:
        datasets: the datasets to download.
        views: the arrays to prepare, by name.
        ablation_views: views on which every ablation cell is run.
        ablations: cells that are run on them.
        rivals: cells of other models (Table I), run on them too.
        protocols: protocols of those runs.
        size_views: further views (Table VI's sizes), for the base cell only.
        sound_cells: cells that are also run under the sound protocol, on `ablation_views`.
        volumes: views of CT volumes by name, for the base cell and `volume_rivals`.
        volume_protocols: protocols of the base cell's runs on them.
        volume_rivals: cells of other models (Table II), run on them under the paper's protocol.
        seeds: seeds of every run.
        repeats: further seeds of some cells alone.
        cross: pairs of views, by name: the main runs of the first are scored on the test images
            of the second, which is of another dataset.
        profiled: the views among `ablation_views` for which speed, memory and receptive fields are
            measured; Table V shows the values of the first.
    """

    datasets: list[Literal["isic17", "isic18"]]
    views: dict[Name, View]
    ablation_views: list[str]
    ablations: list[str]
    rivals: list[str]
    protocols: list[ProtocolName]
    size_views: list[str]
    sound_cells: list[str]
    volumes: dict[Name, VolumeView]
    volume_protocols: list[ProtocolName]
    volume_rivals: list[str]
    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1)]
    repeats: Repeats
    cross: dict[Name, Crossing]
    profiled: list[str]

    @property
    def main_cell(self) -> str | None:
        """The cell of the paper's model: `base`, or if there is none the first of `ablations`."""
        return "base" if "base" in self.ablations else next(iter(self.ablations), None)

    def main_runs(self, view: str) -> list[tuple[str, str, ProtocolName, int]]:
        """(view, cell, protocol, seed) of the main cell's runs on a view of `ablation_views`."""
        cell = self.main_cell
        runs = [run for run in self.runs() if run[:2] == (view, cell)]
        return runs if view in self.ablation_views else []

    def runs(self) -> list[tuple[str, str, ProtocolName, int]]:
        """(view, cell, protocol, seed) of every run, as dvc.yaml's groups enumerate them."""
        seeds, repeats = self.seeds, self.repeats
        groups: Sequence[tuple[list[str], list[str], list[ProtocolName], list[int]]] = (
            (self.ablation_views, self.ablations, self.protocols, seeds),
            (self.ablation_views, self.rivals, self.protocols, seeds),
            (self.size_views, ["base"], self.protocols, seeds),
            (self.ablation_views, self.sound_cells, ["sound"], seeds),
            (list(self.volumes), ["base"], self.volume_protocols, seeds),
            (list(self.volumes), self.volume_rivals, ["paper"], seeds),
            (self.ablation_views, repeats.cells, self.protocols, repeats.seeds),
        )
        return [run for group in groups for run in product(*group)]
