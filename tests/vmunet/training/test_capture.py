"""Captured steps: the bits of eager ones, the choice of a kind, and what happens if one fails.

On a processor `replayed` stands for a CUDA graph. The tests marked gpu make real ones.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import vmunet.training.loop
from tests.helpers.discs import CPU, LOSS, SETTINGS, Discs, tiny_model
from vmunet import InputError
from vmunet.architecture import SeveralHeads
from vmunet.protocols import PAPER, SOUND
from vmunet.training import capture
from vmunet.training.capture import STEP, Choice, choose_step, no_waiting, unchanged, wanted_step
from vmunet.training.loaders import sample_batch
from vmunet.training.loop import DivergedError, Progress, train
from vmunet.training.optimizer import make_optimizer, set_learning_rate
from vmunet.training.state import load_state, save_state
from vmunet.training.step import EagerStep

GPU = torch.device("cuda")
ON_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


class TwoHeads(SeveralHeads):
    """Two convolutions, one of which predicts."""

    title = "Two heads"

    def __init__(self) -> None:
        super().__init__()
        self.in_channels = 3
        self.heads, self.prediction = {"main": 1.0, "side": 0.4}, "main"
        self.main, self.side = nn.Conv2d(3, 1, 3, padding=1), nn.Conv2d(3, 1, 1)
        self.norm = nn.BatchNorm2d(3)

    def outputs(self, images: Tensor) -> dict[str, Tensor]:
        normal = self.norm(images)
        return {"main": self.main(normal), "side": self.side(normal)}


def two_heads() -> TwoHeads:
    torch.manual_seed(0)
    return TwoHeads()


def replayed(function: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    """Warm up; a replay calls the function again and writes into the same tensor."""
    for _ in range(4):
        value = function()

    def replay() -> None:
        value.copy_(function())

    return replay, value


def run(model: nn.Module, device: torch.device = CPU, **more) -> tuple[Progress, nn.Module]:
    images = more.pop("images", None) or Discs()
    settings = more.pop("settings", SETTINGS)
    progress = train(model, images, Discs(4), LOSS, settings, PAPER, 7, device, **more)
    return progress, model


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs capture their steps, with `replayed`, and read losses late."""
    monkeypatch.setenv(STEP, "graph")
    monkeypatch.setattr(vmunet.training.loop, "choose_step", partial(choose_step, record=replayed))
    monkeypatch.setattr(vmunet.training.loop, "reads_each_loss", lambda device: False)


@pytest.mark.parametrize("make", [tiny_model, two_heads])
@pytest.mark.parametrize("micro_batch", [None, 3])
def test_captured_steps_give_the_bits_of_eager_ones(
    make: Callable[[], nn.Module], micro_batch: int | None, graphs: None, monkeypatch
) -> None:
    captured, model = run(make(), micro_batch=micro_batch)
    monkeypatch.undo()
    eager, other = run(make(), micro_batch=micro_batch)
    assert (captured.step, eager.step) == ("graph", "eager")
    assert captured.history == eager.history
    for name, tensor in other.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name


def test_a_killed_captured_run_ends_with_the_same_bits(
    tmp_path: Path, graphs: None, monkeypatch
) -> None:
    whole, model = run(tiny_model())
    state = tmp_path / "state.pt"
    run(tiny_model(), state=state, seconds=1e-9)
    resumed, other = run(tiny_model(seed=9), state=state)
    assert resumed.history == whole.history
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


def test_a_nan_in_a_captured_step_is_named_with_its_epoch(graphs: None) -> None:
    with pytest.raises(DivergedError, match="the loss became nan in epoch 2, step"):
        run(tiny_model(), images=Discs(broken=1))


def eager_step(model: nn.Module | None = None) -> EagerStep:
    model = model or tiny_model()
    return EagerStep(model, make_optimizer(model, SETTINGS, PAPER, CPU), LOSS, SETTINGS, CPU)


def choose(wanted: str, record=replayed, steps_ahead: int = 100, step=None) -> Choice:
    batch = sample_batch(Discs(), 4, CPU)
    return choose_step(step or eager_step(), batch, 2, wanted, steps_ahead, "cell", record)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("operation not permitted when stream is capturing\nmore"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    ],
)
@pytest.mark.parametrize("wanted", ["graph", "auto"])
def test_a_step_that_cannot_be_captured_stays_eager(
    error: Exception, wanted: str, capsys: pytest.CaptureFixture
) -> None:
    def fails(function: Callable[[], Tensor]):
        function()
        raise error

    step = eager_step()
    before = {name: tensor.clone() for name, tensor in step.model.state_dict().items()}
    choice = choose(wanted, fails, step=step)
    assert (choice.step, choice.kind) == (step, "eager")
    first, second = capsys.readouterr().err.splitlines()
    reason = str(error).partition("\n")[0]
    assert first == f"cell: steps cannot be a CUDA graph ({type(error).__name__}: {reason})"
    assert second.startswith("cell: the kind of steps is eager")
    for name, tensor in step.model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_a_smaller_last_batch_must_fit_beside_the_graph(capsys: pytest.CaptureFixture) -> None:
    class Full(TwoHeads):
        def forward(self, images: Tensor):
            if len(images) == 2:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return super().forward(images)

    assert choose("graph", step=eager_step(Full())).kind == "eager"
    assert "OutOfMemoryError: CUDA out of memory." in capsys.readouterr().err


def test_wrong_input_is_no_reason_to_go_on() -> None:
    class Refuses(TwoHeads):
        def forward(self, images: Tensor):
            raise InputError("the images are too small")

    with pytest.raises(InputError, match="too small"):
        choose("graph", step=eager_step(Refuses()))


@pytest.mark.parametrize("wanted", ["graph", "compiled"])
def test_a_processor_captures_nothing_and_says_so(
    wanted: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, _ = run(two_heads())
    monkeypatch.setenv(STEP, wanted)
    progress, _ = run(two_heads(), label="cell")
    line = f"cell: VMUNET_STEP={wanted} needs a CUDA device: steps are eager\n"
    assert capsys.readouterr().err.count(line) == 1
    assert progress.history == expected.history


def test_a_kind_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STEP, "fast")
    expected = "^VMUNET_STEP=fast: expected one of auto, eager, graph, compiled; auto measures them"
    with pytest.raises(InputError, match=expected):
        run(two_heads())
    monkeypatch.setenv(STEP, "")
    assert wanted_step() == "auto"


@pytest.mark.parametrize(
    ("times", "steps_ahead", "expected"),
    [
        ({"eager": 3.0, "graph": 2.0}, 10, "graph"),
        ({"eager": 1.0, "graph": 2.0}, 10, "eager"),
        ({"eager": 3.0, "graph": 2.0, "compiled": 1.0}, 1000, "compiled"),
        ({"eager": 3.0, "graph": 1.0, "compiled": 2.0}, 1000, "graph"),
        ({"eager": 1.0, "graph": 3.0, "compiled": 2.0}, 1000, "eager"),
    ],
)
def test_auto_takes_the_fastest_and_compiles_for_long_runs_only(
    times: dict, steps_ahead: int, expected: str, monkeypatch, capsys: pytest.CaptureFixture
) -> None:
    measured = iter(times.values())
    monkeypatch.setattr(capture, "_seconds", lambda step, batch: next(measured))
    compiled = []

    def fake(step: EagerStep) -> EagerStep:
        compiled.append(step)
        return replace(step)

    monkeypatch.setattr(EagerStep, "compiled", fake)
    choice = choose("auto", steps_ahead=steps_ahead)
    assert (choice.kind, choice.seconds) == (expected, times)
    assert isinstance(choice.step, EagerStep) == (expected == "eager")
    assert bool(compiled) == ("compiled" in times)
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    for kind, seconds in times.items():
        assert f"{capture.TITLES[kind]}: {1e3 * seconds:.1f} ms" in line


def test_a_resumed_run_keeps_its_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = []

    def spied(eager: EagerStep, batch, rest, kind: str, *more) -> Choice:
        wanted.append(kind)
        return Choice(eager, "graph", {"graph": 1.0})

    monkeypatch.setattr(vmunet.training.loop, "choose_step", spied)
    state = tmp_path / "state.pt"
    for kind in ("eager", "graph"):  # not auto, so that a processor asks too
        monkeypatch.setenv(STEP, kind)
        run(two_heads(), state=state, seconds=1e-9)
    kept = torch.load(state, weights_only=True)["progress"]
    assert (kept["step"], kept["step_seconds"]) == ("graph", {"graph": 1.0})
    assert wanted == ["eager", "graph"]


@pytest.mark.parametrize("protocol", [PAPER, SOUND], ids=lambda p: p.name)
def test_a_state_goes_from_captured_to_eager_steps_and_back(tmp_path: Path, protocol) -> None:
    """A tensor as the learning rate and `capturable` belong to the device, not to the state."""

    def capturable(model: nn.Module) -> torch.optim.AdamW:
        groups = make_optimizer(model, SETTINGS, protocol, CPU).param_groups
        groups = [{k: group[k] for k in ("params", "weight_decay")} for group in groups]
        return torch.optim.AdamW(groups, lr=torch.tensor(0.1), fused=True, capturable=True)

    def plain(model: nn.Module) -> torch.optim.AdamW:
        return make_optimizer(model, SETTINGS, protocol, CPU)

    path = tmp_path / "state.pt"
    for written, read in ((capturable, plain), (plain, capturable)):
        model, other = tiny_model(), tiny_model(1)
        source, target = written(model), read(other)
        step = EagerStep(model, plain(model), LOSS, SETTINGS, CPU)
        step(*sample_batch(Discs(), 4, CPU))
        source.load_state_dict(
            step.optimizer.state_dict() | {"param_groups": source.state_dict()["param_groups"]}
        )
        save_state(path, model, source, Progress(epoch=1))
        rates = [group["lr"] for group in target.param_groups]
        assert load_state(path, other, target, CPU).epoch == 1
        for group, rate in zip(target.param_groups, rates, strict=True):
            assert group["lr"] is rate
            assert group["capturable"] == (read is capturable)
        set_learning_rate(target, 0.25)
        assert all(float(group["lr"]) == 0.25 for group in target.param_groups)
        for one, two in zip(model.parameters(), other.parameters(), strict=True):
            for name, value in source.state[one].items():
                assert torch.equal(value, target.state[two][name])


def test_trying_steps_leaves_model_and_optimizer_in_place() -> None:
    step = eager_step(two_heads())
    batch = sample_batch(Discs(), 4, CPU)
    first = {name: tensor.clone() for name, tensor in step.model.state_dict().items()}
    with unchanged(step.model, step.optimizer):
        step(*batch)
    for name, tensor in step.model.state_dict().items():
        assert torch.equal(tensor, first[name]), name
    for state in step.optimizer.state.values():
        assert all(not value.any() for value in state.values())
    fresh = eager_step(two_heads())
    assert [step(*batch).item() for _ in range(3)] == [fresh(*batch).item() for _ in range(3)]
    places = [
        value.data_ptr() for state in step.optimizer.state.values() for value in state.values()
    ]
    with unchanged(step.model, step.optimizer):
        step(*batch)
    assert step(*batch).item() == fresh(*batch).item()
    assert places == [
        v.data_ptr() for state in step.optimizer.state.values() for v in state.values()
    ]


# ---- On a GPU ------------------------------------------------------------------------------------


def run_on_gpu(kind: str, monkeypatch: pytest.MonkeyPatch, **more) -> Progress:
    monkeypatch.setenv(STEP, kind)
    return run(tiny_model(), GPU, label=kind, **more)[0]


def losses(progress: Progress) -> list[float]:
    return [row[name] for row in progress.history for name in ("train_loss", "selection_loss")]


@pytest.mark.gpu
@ON_GPU
@pytest.mark.parametrize("kind", ["graph", "compiled"])
@pytest.mark.parametrize("micro_batch", [None, 3])
def test_a_graph_has_the_losses_of_eager_steps(kind: str, micro_batch, monkeypatch) -> None:
    """With drop path, and a smaller last batch, whose steps are eager."""
    eager = run_on_gpu("eager", monkeypatch, micro_batch=micro_batch)
    captured = run_on_gpu(kind, monkeypatch, micro_batch=micro_batch)
    assert captured.step == kind
    assert losses(captured) == pytest.approx(losses(eager), rel=1e-3)


@pytest.mark.gpu
@ON_GPU
def test_a_resumed_captured_run_has_the_same_history(tmp_path: Path, monkeypatch) -> None:
    whole = run_on_gpu("graph", monkeypatch)
    for kind in ("graph", "eager"):
        state = tmp_path / f"{kind}.pt"
        run_on_gpu("graph", monkeypatch, state=state, seconds=1e-9)
        resumed = run_on_gpu(kind, monkeypatch, state=state)
        assert resumed.step == kind
        assert losses(resumed) == pytest.approx(losses(whole), rel=1e-3)


@pytest.mark.gpu
@ON_GPU
def test_a_nan_in_a_graph_ends_the_run(monkeypatch, tmp_path: Path) -> None:
    state = tmp_path / "state.pt"
    with pytest.raises(DivergedError, match="graph: the loss became nan in epoch 2, step"):
        run_on_gpu("graph", monkeypatch, images=Discs(broken=1), state=state)
    assert torch.load(state, weights_only=True)["progress"]["epoch"] == 1


@pytest.mark.gpu
@ON_GPU
@pytest.mark.parametrize("kind", ["eager", "graph"])
def test_no_step_waits_for_the_gpu(kind: str, monkeypatch) -> None:
    made = []

    def watched(*arguments) -> Choice:
        choice = choose_step(*arguments)
        step = choice.step

        def waits_for_nothing(images: Tensor, targets: Tensor) -> Tensor:
            made.append(len(images))
            with no_waiting():
                return step(images, targets)

        return replace(choice, step=waits_for_nothing)

    monkeypatch.setattr(vmunet.training.loop, "choose_step", watched)
    run_on_gpu(kind, monkeypatch)
    assert sorted(made) == sorted([4, 4, 2] * SETTINGS.epochs)


@pytest.mark.gpu
@ON_GPU
def test_a_model_that_waits_for_the_gpu_is_not_captured(monkeypatch, capsys) -> None:
    class Waits(TwoHeads):
        def forward(self, images: Tensor):
            return super().forward(images * (1.0 if images.mean().item() > 0 else 2.0))

    monkeypatch.setenv(STEP, "graph")
    progress, _ = run(Waits(), GPU, label="cell")
    assert progress.step == "eager"
    assert capsys.readouterr().err.count("cell: steps cannot be a CUDA graph") == 1
