"""VMamba v0 weights: the tensors that they fill, by the authors' counts, and refused files."""

import json
from pathlib import Path

import pytest
import torch

from tests.helpers.paths import ROOT
from vmunet import InputError
from vmunet.model import VMUNet
from vmunet.weights.initial import fill_from_vmamba
from vmunet.weights.pretraining import VMAMBA_DEPTHS, VMambaClassifier, pretrain

GOLDEN = json.loads((ROOT / "tests/golden" / "architecture.json").read_text())
DIMS = (8, 16, 32, 64)
PATH = Path("vmamba.pth")


def classifier(name: str = "vmamba-s") -> VMambaClassifier:
    torch.manual_seed(0)
    return VMambaClassifier(5, VMAMBA_DEPTHS[name], DIMS)


def test_key_counts_are_the_published_ones() -> None:
    golden = GOLDEN["pretrained_v0"]
    tensors = classifier().state_dict()
    model = VMUNet(dims=DIMS)
    assert len(tensors) == golden["checkpoint_keys_vmamba_s"]
    assert len(model.state_dict()) == golden["model_keys"]
    filled = fill_from_vmamba(model, tensors, PATH)
    assert len(filled.encoder) == golden["encoder_keys_loaded"]
    assert len(filled.decoder) == golden["decoder_keys_loaded"]
    assert {"norm.weight", "norm.bias", "head.weight", "head.bias"} <= set(filled.unused)


@pytest.mark.parametrize("name", VMAMBA_DEPTHS)
def test_stages_land_where_the_published_code_puts_them(name: str) -> None:
    tensors = classifier(name).state_dict()
    torch.manual_seed(1)
    model = VMUNet(dims=DIMS)
    before = {key: t.clone() for key, t in model.state_dict().items()}
    fill_from_vmamba(model, tensors, PATH)
    after = model.state_dict()
    block = "blocks.0.self_attention.x_proj_weight"
    for stage in range(4):
        assert torch.equal(after[f"layers.{stage}.{block}"], tensors[f"layers.{stage}.{block}"])
        assert torch.equal(
            after[f"layers_up.{3 - stage}.{block}"], tensors[f"layers.{stage}.{block}"]
        )
    for key in ("layers_up.1.upsample.expand.weight", "final_up.expand.weight"):
        assert torch.equal(after[key], before[key])


def test_deeper_model_takes_deeper_blocks() -> None:
    tensors = classifier("vmamba-t").state_dict()
    model = VMUNet(dims=DIMS, depths=(2, 2, 9, 2), depths_decoder=(2, 9, 2, 2))
    filled = fill_from_vmamba(model, tensors, PATH)
    assert len(filled.encoder) == 4 + 15 * 13 + 9
    assert len(filled.decoder) == 15 * 13


def test_other_weights_are_refused() -> None:
    tensors = classifier().state_dict()
    with pytest.raises(InputError, match=r"vmamba\.pth: does not fit 208 of .*width"):
        fill_from_vmamba(VMUNet(dims=(16, 32, 64, 128)), tensors, PATH)
    del tensors["layers.2.blocks.1.self_attention.A_logs"]
    with pytest.raises(
        InputError, match=r"vmamba\.pth: not VMamba v0 weights: .* tensors 1 \(layers"
    ):
        fill_from_vmamba(VMUNet(dims=DIMS), tensors, PATH)
    with pytest.raises(InputError, match="not VMamba v0"):
        fill_from_vmamba(VMUNet(dims=DIMS), {"conv1.weight": torch.zeros(3)}, PATH)


def test_pretraining_learns_a_simple_attribute() -> None:
    def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(step)
        labels = torch.randint(0, 2, (8, 1), generator=generator).float()
        return 255 * labels[:, :, None, None].expand(8, 3, 32, 32), labels

    model = pretrain((1, 1, 1, 1), DIMS, 4, batch, steps=40, seed=0, label="t")
    assert model.layers[0].blocks[0].self_attention.d_state == 4
    images, labels = batch(1000)
    with torch.no_grad():
        assert ((model(images) > 0).float() == labels).all()
