"""The faster matrix product keeps float32's precision, or is not used."""

from collections.abc import Iterator

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.paths import ROOT
from vmunet.errors import InputError
from vmunet.model import VMUNet
from vmunet.training import processor

GOLDEN = ROOT / "tests/golden"


@pytest.fixture(autouse=True)
def _settings() -> Iterator[None]:
    threads, matmul = torch.get_num_threads(), torch.backends.mkldnn.matmul
    before = matmul.fp32_precision
    yield
    torch.set_num_threads(threads)
    matmul.fp32_precision = before


def test_golden_gradients_hold_with_it() -> None:
    processor.use_processor(threads=1)
    assert torch.get_num_threads() == 1
    model = VMUNet(num_classes=9, dims=(16, 32, 64, 128), drop_path_rate=0.0)
    model.load_state_dict(load_file(GOLDEN / "small_weights.safetensors"))
    golden = load_file(GOLDEN / "small_io.safetensors")
    logits = model(golden["input"])
    (logits * golden["loss_weight"]).mean().backward()
    assert (logits - golden["logits"]).abs().max() < 1e-4 * golden["logits"].abs().max()
    for name, parameter in model.named_parameters():
        truth = golden.get(f"grad.{name}")
        if truth is not None:
            assert (parameter.grad - truth).abs().max() < 1e-4 * truth.abs().max(), name


def test_it_is_given_up_where_products_would_be_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    matmul = torch.backends.mkldnn.matmul
    before = matmul.fp32_precision
    monkeypatch.setattr(processor, "_error_of_products", lambda: 4e-3)
    processor.use_processor()
    assert matmul.fp32_precision == before


def test_rounded_products_are_noticed() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert processor._error_of_products() > processor.TOLERANCE
    assert processor._error_of_products() < processor.TOLERANCE


@pytest.mark.parametrize(("threads", "expected"), [(0, 1), (1, 1), (3, 1)])
def test_a_share_of_the_cores_is_a_ceiling(
    monkeypatch: pytest.MonkeyPatch, threads: int, expected: int
) -> None:
    monkeypatch.setenv("VMUNET_THREADS", "1")
    processor.use_processor(threads)
    assert torch.get_num_threads() == expected


def test_an_empty_ceiling_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VMUNET_THREADS", " ")
    processor.use_processor(2)
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("text", ["two", "-1", "1.5", "²"])
def test_a_ceiling_that_is_no_number_is_one_sentence(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VMUNET_THREADS", text)
    with pytest.raises(InputError, match=f"^VMUNET_THREADS={text}: expected a whole number"):
        processor.use_processor()
