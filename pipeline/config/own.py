"""Your own datasets, which params.yaml's `own` declares: folders of images or of volumes."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from pipeline.config.strict import Name, ProtocolName, Strict


def written_out(path: str) -> str:
    """Refuse a path with ~ or variables, which a shell would expand but DVC does not."""
    if path.startswith("~") or "$" in path:
        hint = f", {Path(path).expanduser()}" if path.startswith("~/") else ""
        raise ValueError(
            "DVC watches this path without expanding ~ or variables; write it in full" + hint
        )
    return path


Place = Annotated[str, Field(min_length=1), AfterValidator(written_out)]


class Split(Strict):
    """The split into training and test files: by the share `test`, by a `csv`, or by both.

    A rule chooses the share `test`. The columns of the CSV are `id` (a file's name without its
    suffix) and `split` (train or test), `patient`, or both. If it has only `patient`, the rule
    chooses whole patients.
    """

    test: Annotated[float, Field(gt=0, lt=1)] | None = None
    csv: Place | None = None

    @model_validator(mode="after")
    def _something_is_said(self) -> "Split":
        if self.test is None and self.csv is None:
            raise ValueError("give test: (a share, such as 0.2), csv: (a file's path), or both")
        return self


class OwnImages(Strict):
    """A folder of images and a folder of masks.

    Attributes:
        images, masks: folders, absolute or from the repository's root.
        classes: names of the mask's values 1, 2, ...; a single class may also be 255.
        split: how the images are split into training and test.
        size: side of the square that the model sees, px, a multiple of 32.
    """

    images: Place
    masks: Place
    classes: Annotated[
        list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=254)
    ]
    split: Split
    size: Annotated[int, Field(ge=32, multiple_of=32)]

    @model_validator(mode="after")
    def _classes_differ(self) -> "OwnImages":
        if len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes: {', '.join(self.classes)}: a name appears twice")
        return self


class OwnVolumes(OwnImages):
    """The same with NIfTI files; for CT, `window` has the two HU values that become 0 and 1."""

    window: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None

    @model_validator(mode="after")
    def _window_is_open(self) -> "OwnVolumes":
        if self.window and self.window[0] >= self.window[1]:
            raise ValueError(f"window: {self.window}: expected two values, the lower one first")
        return self


@dataclass(frozen=True)
class OwnView:
    """One of your datasets as a view: its name, the side in px, the protocols of its runs."""

    dataset: str
    size: int
    protocols: list[ProtocolName]


class Own(Strict):
    """The datasets by name, and the cells and protocols of the runs on each of them."""

    cells: list[str]
    protocols: Annotated[list[ProtocolName], Field(min_length=1)]
    images: dict[Name, OwnImages]
    volumes: dict[Name, OwnVolumes]

    @property
    def datasets(self) -> dict[str, OwnImages]:
        """All datasets by name, images first."""
        return {**self.images, **self.volumes}

    def views(self) -> dict[str, OwnView]:
        """All datasets as views, by name."""
        return {
            name: OwnView(name, data.size, self.protocols) for name, data in self.datasets.items()
        }

    def runs(self, seeds: Iterable[int]) -> list[tuple[str, str, ProtocolName, int]]:
        """(view, cell, protocol, seed) of every run, as dvc.yaml enumerates them."""
        return list(product(self.datasets, self.cells, self.protocols, seeds))

    def check_names(self, cells: Iterable[str], taken: Iterable[str]) -> None:
        """Refuse undeclared cells, and names that `taken` or another dataset has.

        Raises:
            ValueError: its message names the parameter.
        """
        known = list(cells)
        for cell in self.cells if self.datasets else []:
            if cell not in known:
                raise ValueError(f"own.cells: unknown cell {cell!r}; known: {', '.join(known)}")
        for section, names in (("images", self.images), ("volumes", self.volumes)):
            for name in names:
                if name in taken:
                    raise ValueError(f"own.{section}.{name}: the grid has this name too")
                if section == "volumes" and name in self.images:
                    raise ValueError(f"own.volumes.{name}: own.images has this name too")
