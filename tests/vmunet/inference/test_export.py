"""ONNX: the exported model gives the model's logits in another runtime."""

import numpy as np
import onnxruntime
import pytest
import torch

from pipeline.cli import main
from vmunet import InputError, VMUNet
from vmunet.inference.export import export_onnx
from vmunet.weights.checkpoints import save_checkpoint


def tiny() -> VMUNet:
    torch.manual_seed(0)
    return VMUNet(dims=(8, 16, 32, 64), depths=(1, 1, 1, 1), depths_decoder=(1, 1, 1, 1))


def compare(target, model):
    images = 255 * torch.rand(1, 3, 32, 32)
    session = onnxruntime.InferenceSession(str(target), providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"images": images.numpy()})
    with torch.no_grad():
        truth = model(images).numpy()
    np.testing.assert_allclose(logits, truth, atol=1e-4 * np.abs(truth).max())


def test_another_runtime_gives_the_same_logits(tmp_path):
    """One block on each side: the exporter takes most of a minute for a block in every stage."""
    model = tiny().eval()
    for stage in (*model.layers[1:], *model.layers_up[:-1]):
        stage.blocks = torch.nn.ModuleList()
    export_onnx(model, tmp_path / "model.onnx", 32)
    compare(tmp_path / "model.onnx", model)


@pytest.mark.slow
def test_a_checkpoint_becomes_a_file_of_another_runtime(tmp_path):
    weights, target = tmp_path / "weights.safetensors", tmp_path / "out" / "model.onnx"
    model = tiny().eval()
    metadata = {"normalisation": "minmax", "size": 64, "protocol": "paper"}
    save_checkpoint(weights, model, metadata)
    assert main(["export", str(weights), "--out", str(target), "--size", "32"]) == 0
    assert [path.name for path in target.parent.iterdir()] == ["model.onnx"]
    compare(target, model)


def test_a_size_that_the_model_cannot_take_is_refused(tmp_path):
    with pytest.raises(InputError, match="size 48 must be a multiple of 32"):
        export_onnx(tiny(), tmp_path / "model.onnx", 48)
    assert not list(tmp_path.iterdir())


def test_a_missing_exporter_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("vmunet.inference.export.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs onnx and onnxscript: pip install 'vmunet\[exp"):
        export_onnx(tiny(), tmp_path / "model.onnx", 32)
