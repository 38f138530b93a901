"""A weights file's header may not ask for an endless model."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from vmunet.errors import InputError
from vmunet.inference.volumes import is_volume_model
from vmunet.weights.checkpoints import HEADER, load_checkpoint
from vmunet.weights.remote import _promised

DEEP = "[" * 100_000


def written(path: Path, header: str) -> Path:
    save_file({"a": torch.zeros(1)}, path, metadata={HEADER: header})
    return path


@pytest.mark.parametrize(
    ("config", "metadata"),
    [
        ({"dims": [-64, 128, 256, 512]}, {}),
        ({"dims": [10**9] * 4}, {}),
        ({"num_classes": 10**9}, {}),
        ({"depths": [10**9, 1, 1, 1]}, {}),
        ({"depths": [1000, 1, 1, 1]}, {}),
        ({"d_state": float("inf")}, {}),
        ({"d_state": float("nan")}, {}),
        ({"dims": [[[[[[[[[[1]]]]]]]]]]}, {}),
        ({"dims": [1] * 20_000}, {}),
        ({}, {"size": -64}),
        ({}, {"size": 0}),
        ({}, {"size": 10**9}),
        ({}, {"size": "64"}),
        ({}, {"size": None}),
        ({}, {"patch": [64, -64, 64]}),
        ([1], {}),
    ],
)
def test_impossible_sizes_are_refused_in_one_line(
    tmp_path: Path, config: Any, metadata: dict[str, Any]
) -> None:
    header = json.dumps({"model": "vmunet", "config": config, "metadata": metadata})
    with pytest.raises(InputError, match="its header is not one that this project writes") as error:
        load_checkpoint(written(tmp_path / "w.safetensors", header))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("header", [DEEP, '{"config": ' + DEEP, "[]", "3", "{"])
def test_a_header_nested_without_end_is_refused(tmp_path: Path, header: str) -> None:
    path = written(tmp_path / "w.safetensors", header)
    with pytest.raises(InputError, match="header"):
        load_checkpoint(path)
    assert not is_volume_model(path)


def test_a_file_whose_own_header_is_nested_without_end_is_refused(tmp_path: Path) -> None:
    path, content = tmp_path / "w.safetensors", b'{"a": ' + DEEP.encode()
    path.write_bytes(len(content).to_bytes(8, "little") + content)
    with pytest.raises(InputError, match="not a whole safetensors file"):
        load_checkpoint(path)
    assert _promised(path) == 0
