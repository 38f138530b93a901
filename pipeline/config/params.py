"""Read and check params.yaml and the profiles; the message about a mistake is one sentence.

params.yaml declares the active profile, the grid and the cells. A profile in profiles/ is a budget:
the source of the data, the width of the models and the length of training.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from pipeline.config.grid import Crossing, Grid, View, VolumeView
from pipeline.config.names import check_name, check_names, shortened
from pipeline.config.own import Own, OwnView
from pipeline.config.sources import (
    ArchiveSource,
    PhantomSource,
    PhantomVolumes,
    PreparedSource,
    SampleSource,
    SynapseSource,
    WeightsSource,
)
from pipeline.config.strict import Name, Strict
from pipeline.config.yaml_file import read_yaml
from vmunet.errors import InputError
from vmunet.models import MODELS
from vmunet.settings import PUBLISHED, Augmentation, TrainSettings
from vmunet.weights.imagenet.files import files_for

PROFILES = Path("profiles")
SECTIONS = ("profile", "grid", "own", "cell", "cells")
NO_OWN = "own: {cells: [scratch], protocols: [sound], images: {}, volumes: {}}"
CROSS = "cross"  # the folder in metrics/<profile>/ with the scores of grid.cross
VMUNET = "vmunet"
IMAGENET = "imagenet"  # a cell's `init`
ONLY_VMUNET = ("drop_path_rate", "depths", "depths_decoder")  # a cell's settings for it alone
Depths = Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=4, max_length=4)]
Model = TypeVar("Model", bound=BaseModel)


class CellTraining(Strict):
    """A cell's training settings that replace those of the profile's `train` or `train_volumes`."""

    learning_rate: Annotated[float, Field(gt=0)] | None = None
    width: Annotated[float, Field(gt=0)] | None = None
    weight_decay: Annotated[float, Field(ge=0)] | None = None


def augmentation(content: Any) -> Augmentation:
    """A cell's `augment` section; it is validated as JSON for the reason in `train_settings`."""
    return TypeAdapter(Augmentation).validate_json(json.dumps(content, default=str), strict=True)


class Cell(Strict):
    """One cell: VM-UNet with its init, drop path rate and depths (Tables III-V), or another model.

    Without the last three the profile's and the paper's settings apply.

    Attributes:
        model: a name in `vmunet.models.MODELS`. VM-UNet alone has a drop path rate and depths.
        init: initial weights: VMamba's for VM-UNet, `imagenet` for the others.
        train: learning rate, weight decay, and the width of another model than VM-UNet.
        loss_weights: the weights of cross-entropy and Dice in training; epochs are selected with
            the weights 1 and 1.
        augment: probabilities of the augmentations, and the limit of rotations.
    """

    model: str = VMUNET
    init: Literal["none", "vmamba-t", "vmamba-s", "imagenet"] = "none"
    drop_path_rate: Annotated[float, Field(ge=0, lt=1)] | None = None
    depths: Depths | None = None
    depths_decoder: Depths | None = None
    train: CellTraining | None = None
    loss_weights: (
        Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=2, max_length=2)] | None
    ) = None
    augment: Annotated[Augmentation, BeforeValidator(augmentation)] | None = None

    @model_validator(mode="after")
    def _something_is_learned(self) -> "Cell":
        if self.loss_weights is not None and not any(self.loss_weights):
            raise ValueError("loss_weights: both are 0")
        return self

    @model_validator(mode="after")
    def _belongs_to_its_model(self) -> "Cell":
        if self.model not in MODELS:
            raise ValueError(f"unknown model {self.model!r}; known: {', '.join(MODELS)}")
        own = {name: getattr(self, name) for name in ONLY_VMUNET}
        if self.model != VMUNET and (given := [name for name in own if own[name] is not None]):
            raise ValueError(f"{given[0]}: only {VMUNET} has it, and the model is {self.model}")
        if self.model == VMUNET and (missing := [name for name in own if own[name] is None]):
            raise ValueError(f"{missing[0]}: {VMUNET} needs it")
        if (self.init == IMAGENET) == (self.model == VMUNET) and self.init != "none":
            raise ValueError(f"init: {self.init} is not for the model {self.model}")
        if self.init == IMAGENET and not files_for(self.model):
            having = ", ".join(model for model in MODELS if files_for(model))
            raise ValueError(
                f"init: no ImageNet weights are known for the model {self.model}; known for: "
                f"{having}"
            )
        return self

    @property
    def blocks(self) -> tuple[list[int], list[int]]:
        """The depths of VM-UNet's encoder and decoder; empty for another model."""
        return self.depths or [], self.depths_decoder or []

    @property
    def weights(self) -> tuple[float, float]:
        """The loss weights of cross-entropy and Dice."""
        first, second = self.loss_weights or (1.0, 1.0)
        return first, second

    @property
    def augmentation(self) -> Augmentation:
        return self.augment or PUBLISHED

    def settings(self, budget: TrainSettings) -> TrainSettings:
        """The profile's settings, replaced by the cell's own if it has any.

        Raises:
            InputError: the two contradict each other.
        """
        overrides = self.train.model_dump(exclude_none=True) if self.train else {}
        try:
            return replace(budget, **overrides)
        except ValueError as error:
            raise InputError(f"params.yaml: a cell's train: {error} (found {overrides})") from None


def train_settings(content: Any) -> TrainSettings:
    """A profile's `train` section; validated as JSON, because strict mode then accepts lists."""
    return TypeAdapter(TrainSettings).validate_json(json.dumps(content, default=str), strict=True)


class EvaluateSettings(Strict):
    """Settings of evaluation: images in a batch, and resamples of the bootstrap."""

    batch_size: Annotated[int, Field(ge=1)] = 32
    bootstrap: Annotated[int, Field(ge=100)] = 10_000


class Profile(Strict):
    """A budget: data sources, initial weights, training, evaluation, and the grid it runs.

    `threads` is the number of threads of a stage; 0 means one for each core. Small models are
    faster with one thread. A change of `threads` does not rerun a stage.
    """

    about: str
    threads: Annotated[int, Field(ge=0)] = 0
    data: dict[
        Literal["isic17", "isic18"],
        Annotated[
            PhantomSource | SampleSource | ArchiveSource | PreparedSource,
            Field(discriminator="source"),
        ],
    ]
    volumes: dict[
        Literal["synapse"],
        Annotated[PhantomVolumes | SynapseSource, Field(discriminator="source")],
    ]
    weights: WeightsSource
    train: Annotated[TrainSettings, BeforeValidator(train_settings)]
    train_volumes: Annotated[TrainSettings, BeforeValidator(train_settings)]
    evaluate: EvaluateSettings
    grid: Grid


class Params(Strict):
    """All parameters of the stages: the profile, the grid, own datasets, resolved cells."""

    profile_name: str
    profile: Profile
    grid: Grid
    own: Own
    cells: dict[Name, Cell]

    @model_validator(mode="after")
    def _names_exist(self) -> "Params":
        grid = self.grid
        cells = {
            "ablations": grid.ablations,
            "rivals": grid.rivals,
            "sound_cells": grid.sound_cells,
            "size_views": ["base"] if grid.size_views else [],
            "volumes": ["base"] if grid.volumes else [],
            "volume_rivals": grid.volume_rivals,
            "repeats.cells": grid.repeats.cells,
        }
        for field, names in cells.items():
            for name in names:
                if name not in self.cells:
                    raise ValueError(f"grid.{field}: unknown cell {name!r}; {known(self.cells)}")
        for field in ("ablation_views", "size_views"):
            for name in getattr(grid, field):
                if name not in grid.views:
                    raise ValueError(f"grid.{field}: unknown view {name!r}; {known(grid.views)}")
        for name, view in grid.views.items():
            if view.dataset not in self.grid.datasets:
                raise ValueError(f"grid.views.{name}: {view.dataset} is not in grid.datasets")
        for dataset in grid.datasets:
            if dataset not in self.profile.data:
                raise ValueError(f"profile {self.profile_name} has no data source for {dataset}")
        for name, volumes in grid.volumes.items():
            if volumes.dataset not in self.profile.volumes:
                raise ValueError(
                    f"profile {self.profile_name} has no data source for {volumes.dataset}"
                )
            if name in grid.views:
                raise ValueError(f"grid.volumes.{name}: grid.views has this name too")
        if CROSS in {*grid.views, *grid.volumes}:
            raise ValueError(
                f"grid: a view cannot be called {CROSS}: that folder has the scores of grid.cross"
            )
        runs = grid.runs()
        twice = [run for i, run in enumerate(runs) if run in runs[:i]]
        if twice:
            raise ValueError(f"grid: {'-'.join(map(str, twice[0]))} is declared twice")
        for place, cell, protocol, _ in runs:
            if place in grid.views and protocol not in grid.views[place].protocols:
                raise ValueError(
                    f"grid: {place}-{cell} runs under {protocol}, which "
                    f"grid.views.{place}.protocols does not list"
                )
        for name, crossing in grid.cross.items():
            self._check_crossing(name, crossing)
        for name in grid.profiled:
            if name not in grid.ablation_views:
                known_views = known(dict.fromkeys(grid.ablation_views))
                raise ValueError(
                    f"grid.profiled: {name!r} is not in grid.ablation_views; {known_views}"
                )
        self.own.check_names(self.cells, {*grid.views, *grid.volumes})
        return self

    def _check_crossing(self, name: str, crossing: Crossing) -> None:
        grid, field = self.grid, f"grid.cross.{name}"
        for part, view in (("train", crossing.train), ("test", crossing.test)):
            if view not in grid.ablation_views:
                names = dict.fromkeys(grid.ablation_views)
                raise ValueError(
                    f"{field}.{part}: {view!r} is not in grid.ablation_views; {known(names)}"
                )
        train, test = grid.views[crossing.train], grid.views[crossing.test]
        if train.dataset == test.dataset:
            raise ValueError(f"{field}: both views are of {train.dataset}; take two datasets")
        if train.size != test.size:
            raise ValueError(
                f"{field}: {crossing.train} has {train.size} px and {crossing.test} {test.size}; "
                "take views of one size"
            )
        if not grid.main_runs(crossing.train):
            raise ValueError(f"{field}: the grid runs no cell on {crossing.train}")

    def cell(self, name: str) -> Cell:
        """The cell of this name.

        Raises:
            InputError: there is none.
        """
        if name not in self.cells:
            raise InputError(f"params.yaml: unknown cell {name!r}; {known(self.cells)}")
        return self.cells[name]

    def view(self, name: str) -> View | VolumeView | OwnView:
        """The view of this name: of images, of volumes, or a dataset of `own`.

        Raises:
            InputError: there is none.
        """
        views: dict[str, View | VolumeView | OwnView] = {
            **self.grid.views,
            **self.grid.volumes,
            **self.own.views(),
        }
        if name not in views:
            raise InputError(f"params.yaml: unknown view {name!r}; {known(views)}")
        return views[name]


def load_params(root: Path = Path(".")) -> Params:
    """Read params.yaml and the profile that it names.

    Raises:
        InputError: a file is missing or not YAML, a name is unknown, a value is of the wrong type
            or out of range.
    """
    path = root / "params.yaml"
    content = read_yaml(path)
    check_names(content, path)
    name = content.get("profile")
    profile = load_profile(name, root)
    _need_lines(content, path)
    defaults, overrides = section(content, "cell", path), section(content, "cells", path)
    cells = {key: _cell(defaults, section(overrides, key, path)) for key in overrides}
    unknown = sorted(content.keys() - set(SECTIONS))
    if unknown:
        raise InputError(f"{path}: unknown key {unknown[0]!r}; known: {', '.join(SECTIONS)}")
    if "own" not in content:  # dvc.yaml needs it too
        raise InputError(f"{path}: no section own; add the line `{NO_OWN}`")
    return checked(
        Params,
        {
            "profile_name": name,
            "profile": profile,
            "grid": content.get("grid", {}),
            "own": content["own"],
            "cells": cells,
        },
        path,
    )


def _cell(defaults: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """A cell with the defaults that it does not replace; VM-UNet's are for VM-UNet's cells."""
    if own.get("model", defaults.get("model", VMUNET)) != VMUNET:
        defaults = {k: v for k, v in defaults.items() if k not in (*ONLY_VMUNET, "init")}
    return {**defaults, **own}


def section(content: dict[str, Any], key: str, path: Path) -> dict[str, Any]:
    """The mapping under `key`; empty if the key is missing or has no value."""
    value = content.get(key) or {}
    if not isinstance(value, dict):
        raise InputError(f"{path}: {key}: expected names and values (found {shortened(value)})")
    return value


def load_profile(name: Any, root: Path = Path(".")) -> Profile:
    """The profile of this name, from profiles/.

    Raises:
        InputError: there is no such profile, or it has a mistake.
    """
    check_name(name, "a profile's name")
    path = root / PROFILES / f"{name}.yaml"
    if name == "own":
        raise InputError("a profile cannot be called own: metrics/own/ is for your own datasets")
    if not path.is_file():
        names = sorted(file.stem for file in (root / PROFILES).glob("*.yaml"))
        raise InputError(f"unknown profile {name!r}; known: {', '.join(names)}")
    content = read_yaml(path)
    _need_lines(content, path)
    return checked(Profile, content, path)


def _need_lines(content: dict[str, Any], path: Path) -> None:
    """Refuse a grid that lacks a section which dvc.yaml also reads; the section may be empty."""
    grid = content.get("grid")
    empties = {"rivals": "[]", "volume_rivals": "[]", "cross": "{}", "profiled": "[]"}
    empties["repeats"] = "{cells: [], seeds: []}"
    for key, empty in empties.items():
        if isinstance(grid, dict) and key not in grid:
            raise InputError(
                f"{path}: no grid.{key}; add the line `{key}: {empty}` at the end of grid"
            )


def checked(model: type[Model], content: Any, path: Path) -> Model:
    """`content` as `model`; the first mistake is an InputError that names file and parameter."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        value = "" if isinstance(first["input"], dict) else f" (found {shortened(first['input'])})"
        message = first["msg"].removeprefix("Value error, ")
        raise InputError(f"{path}: {place + ': ' if place else ''}{message}{value}") from None


def known(names: Mapping[str, Any]) -> str:
    return f"known: {', '.join(names)}"
