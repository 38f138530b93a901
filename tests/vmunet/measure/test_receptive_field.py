"""Effective receptive fields: known fields, finite differences, the model before training."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from pipeline.config.params import load_params
from pipeline.config.runs import Run
from stages import receptive_field as stage
from stages.common.training import train_run
from stages.train import image_task
from tests.helpers.search import VIEW, make_project
from tests.pipeline.config.test_params import edit
from vmunet import VMUNet
from vmunet.errors import InputError
from vmunet.measure.receptive_field import (
    area_fractions,
    centre_of,
    features_of,
    receptive_fields,
)
from vmunet.model import Encoder
from vmunet.scan import backend
from vmunet.weights.checkpoints import save_checkpoint

DIMS = (8, 16, 32, 64)


def photographs(count: int, size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)


def tiny_model() -> VMUNet:
    torch.manual_seed(1)
    return VMUNet(dims=DIMS, depths=(1, 1, 1, 1), depths_decoder=(1, 1, 1, 1), drop_path_rate=0.5)


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("size", [15, 16])
def test_a_stack_of_convolutions_sees_exactly_its_square(layers: int, size: int) -> None:
    model = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1, bias=False) for _ in range(layers)))
    for layer in model:
        nn.init.constant_(layer.weight, 0.5)
    (field,) = receptive_fields(model, lambda images: [model(images).sum(1)], photographs(2, size))
    expected = np.zeros((size, size), bool)
    middle = size // 2
    expected[middle - layers : middle + layers + 1, middle - layers : middle + layers + 1] = True
    np.testing.assert_array_equal(field > 0, expected)
    assert area_fractions(field, centre_of(size, size), [1.0]) == [(2 * layers + 1) ** 2 / size**2]


def test_fields_are_averages_of_absolute_gradients() -> None:
    """A feature that is a known quadratic form of the pixels."""
    weight = torch.tensor([1.0, -2.0, 0.5])[:, None, None] * torch.linspace(-1, 1, 16).view(4, 4)
    model = nn.Conv2d(3, 1, 1)

    def features(images: torch.Tensor) -> list[torch.Tensor]:
        return [(weight * images[0] ** 2).sum().expand(1, 1, 1)]

    images = photographs(3, 4)
    (field,) = receptive_fields(model, features, images)
    gradients = 2 * np.abs(weight.numpy() * images.transpose(0, 3, 1, 2))
    np.testing.assert_allclose(field, gradients.sum(1).mean(0), rtol=1e-6)


@pytest.mark.parametrize("feature", [0, 1], ids=["bottleneck", "output"])
def test_a_field_is_what_finite_differences_say(feature: int) -> None:
    model, images = tiny_model().double(), photographs(1, 64)
    with backend("reference"):
        field = receptive_fields(model, features_of(model), images)[feature]

        def centre(pixels: torch.Tensor) -> float:
            values = features_of(model)(pixels)[feature]
            assert values.shape == ((1, 2, 2), (1, 64, 64))[feature]
            return float(values[0, values.shape[1] // 2, values.shape[2] // 2])

        pixels = torch.from_numpy(images.transpose(0, 3, 1, 2)).double()
        for row, column in ((40, 40), (0, 0), (33, 61), (20, 5)):
            changes = []
            for colour in range(3):
                step = torch.zeros_like(pixels)
                step[0, colour, row, column] = 1e-3
                changes.append((centre(pixels + step) - centre(pixels - step)) / 2e-3)
            assert field[row, column] == pytest.approx(np.abs(changes).sum(), rel=1e-3, abs=1e-12)


def test_the_bottleneck_is_the_encoders_output_after_a_relu() -> None:
    model = tiny_model().eval()
    images = torch.rand(1, 3, 64, 64) * 255
    with torch.no_grad():
        bottleneck, output = features_of(model)(images)
        torch.testing.assert_close(bottleneck, model.encode(images)[0].clamp(min=0).sum(-1))
        torch.testing.assert_close(output, model(images)[:, 0])
    assert not model.layers[-1]._forward_hooks


def test_drop_path_does_not_draw_and_weights_get_no_gradient() -> None:
    model = tiny_model().train()
    first, again = (receptive_fields(model, features_of(model), photographs(2, 32)) for _ in "ab")
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == np.float32
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())


def test_what_cannot_be_measured_is_said() -> None:
    model = tiny_model()
    with pytest.raises(InputError, match="no images"):
        receptive_fields(model, features_of(model), photographs(0, 32))
    with torch.no_grad():
        model.final_conv.weight.fill_(math.inf)
    with pytest.raises(InputError, match="not finite"):
        receptive_fields(model, features_of(model), photographs(1, 32))


def test_where_the_central_position_lies() -> None:
    assert centre_of(256, 256) == 128  # a pixel is its own middle
    assert centre_of(255, 255) == 127
    assert centre_of(256, 8) == 128 + 15.5  # pixels 128 to 159
    assert centre_of(64, 2) == 32 + 15.5
    assert centre_of(32, 1) == 15.5


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.integers(1, 12),
    half=st.integers(0, 22),
    share=st.floats(0.01, 1),
)
def test_the_smallest_square_by_trying_all(seed: int, size: int, half: int, share: float) -> None:
    centre = min(half / 2, size - 1)
    field = np.random.default_rng(seed).random((size, size)) ** 8
    (fraction,) = area_fractions(field, centre, [share])
    away = np.abs(np.arange(size) - centre)
    for reach in np.arange(0, size + 0.5, 0.5):
        inside = (away <= reach)[:, None] & (away <= reach)
        if field[inside].sum() >= share * field.sum() * (1 - 1e-9):
            assert fraction == pytest.approx(inside.sum() / size**2)
            return
    raise AssertionError("the whole image holds all")


def test_a_larger_share_needs_no_smaller_square_and_nothing_gives_nan() -> None:
    fractions = area_fractions(photographs(1, 32)[0, ..., 0], 16)
    assert fractions == sorted(fractions)
    assert 0 < fractions[0] < fractions[-1] <= 1
    assert np.isnan(area_fractions(np.zeros((4, 4)), 2)).all()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A grid of the cells scratch and base on 32 px, with initial weights, nothing trained."""
    make_project(tmp_path)
    edit(tmp_path / "params.yaml", lambda c: c["grid"].update(ablations=["scratch", "base"]))
    (tmp_path / "data/arrays" / VIEW / "paper/test/native_masks.zip").touch()
    torch.manual_seed(3)
    states = load_params(tmp_path).profile.train.states
    encoder = Encoder(3, (1, 1, 1, 1), DIMS, states, 0.0)
    (tmp_path / "data/weights").mkdir()
    save_file(encoder.state_dict(), tmp_path / "data/weights/vmamba-s.safetensors")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stage, "use_processor", lambda threads: None)
    monkeypatch.setattr("vmunet.training.processor.use_processor", lambda threads: None)
    return tmp_path


def save_run(run: Run, size: int = 32) -> VMUNet:
    run.folder.mkdir(parents=True)
    torch.manual_seed(9)
    model = VMUNet(dims=DIMS, depths=(1, 1, 1, 1), depths_decoder=(1, 1, 1, 1))
    save_checkpoint(run.folder / "weights.safetensors", model, {"size": size})
    return model


@pytest.mark.parametrize("cell", ["scratch", "base"])
def test_before_is_what_training_starts_from(cell: str, project: Path, monkeypatch) -> None:
    class StartedError(Exception):
        pass

    started: dict[str, torch.Tensor] = {}

    def no_training(model: VMUNet, *arguments: object, **options: object) -> None:
        started.update({name: t.clone() for name, t in model.state_dict().items()})
        raise StartedError

    monkeypatch.setattr("vmunet.training.loop.train", no_training)
    monkeypatch.setattr("stages.common.training.hash_inputs", lambda task, cell: {})
    run, params = Run(VIEW, cell, "paper", 5), load_params()
    with pytest.raises(StartedError):
        train_run(run, params, image_task(run, params))
    looked_at: list[VMUNet] = []

    def keep(model: VMUNet, *arguments: object) -> list[np.ndarray]:
        looked_at.append(model)
        return [np.ones((32, 32), np.float32)] * 2

    monkeypatch.setattr(stage, "receptive_fields", keep)
    save_run(run)
    stage.measure(run, params)
    before = looked_at[0].state_dict()
    assert started.keys() == before.keys()
    assert all(torch.equal(started[name], t) for name, t in before.items())


def test_the_stage_writes_fields_and_fractions(project: Path, capsys) -> None:
    after = save_run(Run(VIEW, "base", "paper", 1))
    stage.main([VIEW])
    with np.load(project / "metrics/tiny" / VIEW / "receptive_field.npz") as stored:
        content = dict(stored)
    assert capsys.readouterr().out.count("\n") == 1
    assert (content["images"], content["run"]) == (4, f"{VIEW}-base-paper-1")
    order = ["before_bottleneck", "after_bottleneck", "before_output", "after_output"]
    assert list(content)[:4] == order
    for i, name in enumerate(order):
        assert content[name].dtype == np.float32
        assert content[name].shape == (32, 32)
        expected = area_fractions(content[name], 15.5 if i < 2 else 16)
        assert [content[f"r{n}"][i] for n in (20, 30, 50, 99)] == expected
    images = np.load(project / "data/arrays" / VIEW / "paper/test/images.npy")
    bottleneck, output = receptive_fields(after, features_of(after), images)
    # another number of threads adds up in another order
    np.testing.assert_allclose(content["after_bottleneck"], bottleneck, rtol=1e-3)
    np.testing.assert_allclose(content["after_output"], output, rtol=1e-3)
    assert not np.allclose(content["before_output"], output, rtol=0.1)


def test_many_images_are_taken_evenly(project: Path, monkeypatch) -> None:
    monkeypatch.setattr(stage, "MOST_IMAGES", 2)
    seen = []
    monkeypatch.setattr(
        stage,
        "receptive_fields",
        lambda model, features, images: seen.append(images) or [np.ones((32, 32))] * 2,
    )
    run = Run(VIEW, "base", "paper", 1)
    save_run(run)
    assert stage.measure(run, load_params())["images"] == 2
    images = np.load(project / "data/arrays" / VIEW / "paper/test/images.npy")
    np.testing.assert_array_equal(seen[0], images[[0, 3]])


def test_a_run_that_is_missing_or_of_another_size_is_named(project: Path) -> None:
    command = f"dvc repro train@{VIEW}-base-paper-1"
    with pytest.raises(InputError, match=f"weights.safetensors: no such file; .*{command}$"):
        stage.main([VIEW])
    save_run(Run(VIEW, "base", "paper", 1), size=64)
    with pytest.raises(InputError, match="was trained at 64 px and its arrays hold 32 px"):
        stage.main([VIEW])
    assert not (project / "metrics").exists()


@pytest.mark.parametrize("left_out", ["ablation_views", "ablations"])
def test_without_a_declared_run_nothing_is_claimed(left_out: str, project: Path) -> None:
    edit(project / "params.yaml", lambda c: c["grid"].update({left_out: []}))
    stage.main([VIEW])
    with np.load(project / "metrics/tiny" / VIEW / "receptive_field.npz") as stored:
        assert {name: stored[name].item() for name in stored} == {"images": 0, "run": ""}


def test_the_paper_protocol_is_preferred(project: Path) -> None:
    def declared(**changes: list) -> str:
        edit(project / "params.yaml", lambda c: c["grid"].update(changes))
        run = stage.declared_run(load_params(), VIEW)
        return run.name if run else ""

    assert declared(protocols=["sound", "paper"], sound_cells=[]) == f"{VIEW}-base-paper-1"
    assert declared(protocols=["sound"]) == f"{VIEW}-base-sound-1"
    assert declared(ablations=["scratch"]) == f"{VIEW}-scratch-sound-1"
    assert declared(protocols=[]) == ""
