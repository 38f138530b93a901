"""The arrays that a search may read: those that train. It never opens a test image."""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config.params import Params
from pipeline.provenance import hash_files
from pipeline.search.space import Kind
from vmunet.errors import InputError

ARRAYS = Path("data/arrays")
PARTS = ("train", "test")  # keys of a manifest of volumes


@dataclass(frozen=True)
class SearchData:
    """The arrays of a view.

    Attributes:
        kind: images or volumes.
        training: the folders that a search reads.
        test: the folders that it must not read.
    """

    kind: Kind
    training: list[Path]
    test: list[Path]

    def hash(self) -> str:
        return hash_files(self.training)


def search_data(params: Params, view: str, protocol: str) -> SearchData:
    """The arrays of a view under a protocol.

    Raises:
        InputError: the view is unknown, not run under the protocol, or not prepared.
    """
    listed = getattr(params.view(view), "protocols", [protocol])  # checks the name too
    if protocol not in listed:
        raise InputError(
            f"{view} is not prepared for --protocol {protocol}; its protocols: {', '.join(listed)}"
        )
    volumes = view in params.grid.volumes or view in params.own.volumes
    folder = ARRAYS / view if volumes else ARRAYS / view / protocol
    manifest_file = folder / "manifest.json"
    if not manifest_file.is_file():
        stage = stage_of(params, view)
        raise InputError(f"{folder}: not prepared yet; run `dvc repro {stage}@{view}` first")
    if not volumes:
        return SearchData("images", [folder / "train"], [folder / "test"])
    manifest = json.loads(manifest_file.read_text())
    cases = {part: [folder / "cases" / name for name in manifest[part]] for part in PARTS}
    return SearchData("volumes", cases["train"], cases["test"])


def stage_of(params: Params, view: str) -> str:
    """The stage that prepares a view."""
    if view in params.own.images:
        return "own_images"
    if view in params.own.volumes:
        return "own_volumes"
    return "volumes" if view in params.grid.volumes else "preprocess"


def refuse_to_open(folders: Sequence[Path]) -> None:
    """Stop this process from opening files in these folders; an attempt is a bug in the code.

    The attempt then raises a RuntimeError that names the file.
    """
    closed = tuple(os.path.abspath(folder) + os.sep for folder in folders)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
            path = os.path.abspath(os.fsdecode(arguments[0]))
            if path.startswith(closed):
                raise RuntimeError(f"{path}: a search must not read test data")

    sys.addaudithook(hook)
