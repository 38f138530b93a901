"""Weights on disk: writing and reading, the published form, and refused files."""

import argparse
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.helpers.paths import ROOT
from vmunet import InputError
from vmunet.inference.ensemble import load_members
from vmunet.model import VMUNet
from vmunet.weights.checkpoints import load_checkpoint, read_tensors, save_checkpoint

GOLDEN = ROOT / "tests/golden"
DIMS = (8, 16, 32, 64)


def test_round_trip(tmp_path: Path) -> None:
    model = VMUNet(dims=DIMS, num_classes=2, depths=(1, 2, 1, 1), drop_path_rate=0.1)
    path = tmp_path / "weights.safetensors"
    save_checkpoint(path, model, {"size": 64, "run": "a run"})
    loaded, metadata = load_checkpoint(path)
    assert loaded.config == model.config
    assert not loaded.training
    assert metadata["size"] == 64
    assert metadata["run"] == "a run"
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name])
    assert [p.name for p in tmp_path.iterdir()] == ["weights.safetensors"]


@pytest.mark.parametrize("wrap", [lambda t: t, lambda t: {"model": t}], ids=["plain", "model"])
def test_published_checkpoint_with_prefix_loads(tmp_path: Path, wrap) -> None:
    tensors = load_file(GOLDEN / "small_weights.safetensors")
    path = tmp_path / "best.pth"
    torch.save(wrap({f"vmunet.{name}": t for name, t in tensors.items()}), path)
    model, metadata = load_checkpoint(path)
    golden = load_file(GOLDEN / "small_io.safetensors")
    with torch.no_grad():
        logits = model(golden["input"])
    error = (logits - golden["logits"]).abs().max() / golden["logits"].abs().max()
    assert error < 1e-4
    assert model.config["dims"] == [16, 32, 64, 128]
    assert metadata["protocol"] == "paper"


TINY = VMUNet(dims=DIMS, depths=[1] * 4, depths_decoder=[1] * 4)
STATE = TINY.state_dict()
COUNTED = {f"layers.0.{name}": torch.zeros(1, dtype=torch.float64) for name in ("total_ops",)}
LATEST = {  # as the published code writes latest.pth: losses are numpy's
    "epoch": 3,
    "min_loss": np.float64(0.25),
    "loss": np.mean([0.5, 0.25]),
    "model_state_dict": STATE,
    "optimizer_state_dict": {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{}]},
    "scheduler_state_dict": {"last_epoch": 3, "_last_lr": [np.float32(1e-3)]},
}


def named(*prefixes: str) -> dict[str, torch.Tensor]:
    """The state with these wrappers' names before each of its own."""
    return {"".join(prefixes) + name: tensor for name, tensor in STATE.items()}


@pytest.mark.parametrize(
    "content",
    [
        LATEST,
        {**STATE, **COUNTED, "total_params": torch.zeros(1)},
        {**named("module.", "vmunet."), "module.total_ops": torch.zeros(1)},
        named("_orig_mod.", "module."),
        {"state_dict": named("model.", "net."), "args": argparse.Namespace(lr=0.1)},
        {"net": STATE, "optimizer": {"lr": 0.1}, "best": np.array([1.0, 2.0])},
        {"ema": {"module": STATE, "decay": 0.99}, "model": {"w": torch.zeros(1)}},
        {"my_model": STATE, "epoch": 1},
    ],
    ids=["latest", "thop", "thop-wrapped", "compiled", "lightning", "net", "ema", "own key"],
)
def test_what_trainings_write_is_read(tmp_path: Path, content: dict) -> None:
    path = tmp_path / "latest.pth"
    torch.save(content, path)
    loaded, _ = load_checkpoint(path)
    assert loaded.state_dict().keys() == STATE.keys()
    assert all(torch.equal(t, STATE[name]) for name, t in loaded.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16, torch.double])
def test_values_of_any_precision_become_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    path = tmp_path / "half.pth"
    torch.save({f"vmunet.{name}": t.to(dtype) for name, t in STATE.items()}, path)
    loaded, _ = load_checkpoint(path)
    for name, tensor in loaded.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, STATE[name].to(dtype).float())


def test_what_does_not_fit_is_counted_and_named(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"

    def refused(match: str, tensors: dict, config: dict | None = None) -> None:
        content = json.dumps({"config": TINY.config | (config or {}), "metadata": {}})
        save_file(tensors, path, metadata={"vmunet": content})
        with pytest.raises(InputError, match=match):
            load_checkpoint(path)

    refused(
        r"\(another number of classes\).*of another shape 2 \(final_c.*9", STATE, {"num_classes": 9}
    )
    refused(
        r"\(another width\).*of another shape \d\d+ \(.*, \.\.\.\)",
        STATE,
        {"dims": [16, 32, 64, 128]},
    )
    fewer = {name: tensor for name, tensor in STATE.items() if "norm" not in name}
    refused(r"\(another model, .*missing \d+ \(\S+, \S+, \S+, \.\.\.\), unexpected 0,", fewer)
    five = VMUNet(num_classes=5, dims=DIMS, depths=[1] * 4, depths_decoder=[1] * 4)
    torch.save(five.state_dict(), tmp_path / "five.pth")
    with pytest.raises(InputError, match=r"another number of classes: its output has 5 channels"):
        load_members([tmp_path / "five.pth"])
    torch.save({"a": STATE, "b": STATE}, tmp_path / "two.pth")
    with pytest.raises(InputError, match=r"two\.pth: holds 2 \(a, b\) state dicts"):
        read_tensors(tmp_path / "two.pth")


def test_weights_have_the_mode_that_the_umask_says(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "w.safetensors", TINY, {})
    (tmp_path / "other").touch()
    assert (tmp_path / "w.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_ema_weights_are_preferred_and_what_was_taken_is_said(tmp_path: Path) -> None:
    path = tmp_path / "both.pth"
    plain, ema = {"a": torch.zeros(1)}, {"a": torch.ones(1)}
    for content, value, taken in (
        ({"model": plain, "model_ema": ema, "epoch": 3}, 1, "model_ema"),
        ({"model": plain, "model_ema": {}, "optimizer": {"lr": 0.1}}, 0, "model"),
        ({"model": plain, "model_ema": None}, 0, "model"),
        ({"state_dict": ema}, 1, "state_dict"),
        (ema, 1, ""),
    ):
        torch.save(content, path)
        tensors, header = read_tensors(path)
        assert (tensors["a"], header) == (value, {"state_dict": taken})


def test_a_release_with_its_training_configuration_loads(tmp_path: Path) -> None:
    """Such a file is written where yacs is installed and read where it is not."""
    code = """
import sys, types, torch
class CfgNode(dict):
    def __init__(self, *args):
        super().__init__(*args)
        self.__dict__["__immutable__"] = True
module = types.ModuleType("yacs.config")
CfgNode.__module__, CfgNode.__qualname__, module.CfgNode = "yacs.config", "CfgNode", CfgNode
sys.modules["yacs"], sys.modules["yacs.config"] = types.ModuleType("yacs"), module
config = CfgNode({"MODEL": CfgNode({"DEPTHS": [2, 2, 27, 2]})})
torch.save({"model": {"a": torch.ones(1)}, "config": config}, sys.argv[1])
"""
    path = tmp_path / "release.pth"
    subprocess.run([sys.executable, "-c", code, path], check=True)
    assert read_tensors(path)[0]["a"] == 1


class Evil:
    def __reduce__(self):
        return (print, ("code of a checkpoint ran",))


def test_a_foreign_header_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    tensors = VMUNet(dims=DIMS).state_dict()
    for header in ("{", "[1]", '{"x": 1}', '{"config": {"widths": 3}}'):
        save_file(tensors, path, metadata={"vmunet": header})
        with pytest.raises(InputError, match=r"foreign\.safetensors: its header"):
            load_checkpoint(path)


def test_what_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    evil = tmp_path / "evil.pth"
    evil.write_bytes(pickle.dumps({"model": Evil()}))
    with pytest.raises(InputError, match=r"evil\.pth: not loaded"):
        load_checkpoint(evil)
    torch.save({"model": {"w": torch.zeros(1)}, "extra": Evil()}, evil)
    with pytest.raises(InputError, match=r"evil\.pth: not loaded"):
        load_checkpoint(evil)
    assert "ran" not in capfd.readouterr().out

    with pytest.raises(InputError, match=r"absent\.safetensors: no such file"):
        load_checkpoint(tmp_path / "absent.safetensors")

    other = tmp_path / "resnet.safetensors"
    save_file({"conv1.weight": torch.zeros(4, 3, 7, 7)}, other)
    with pytest.raises(InputError, match=r"resnet\.safetensors: not a VM-UNet checkpoint"):
        load_checkpoint(other)

    whole = tmp_path / "weights.safetensors"
    save_checkpoint(whole, VMUNet(dims=DIMS), {})
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(whole.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"cut\.safetensors: not a whole safetensors file"):
        load_checkpoint(cut)

    tensors = load_file(whole)
    tensors["final_conv.weight"] = torch.zeros(1, 3, 1, 1)
    save_file(tensors, other)
    with pytest.raises(InputError, match="another architecture"):
        load_checkpoint(other)

    nothing = tmp_path / "list.pth"
    torch.save([torch.zeros(1)], nothing)
    with pytest.raises(InputError, match=r"list\.pth: holds no state dict"):
        load_checkpoint(nothing)
