"""The training loop: schedules, groups, selection, sanity checks, and resuming to the bit."""

import math
import resource
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Subset

import vmunet.training.loop
from tests.helpers.discs import CPU, LOSS, SETTINGS, Discs, tiny_model
from vmunet import InputError
from vmunet.model import VMUNet
from vmunet.protocols import PAPER, SOUND, Protocol
from vmunet.scan import backend
from vmunet.settings import TrainSettings
from vmunet.training.loop import DivergedError, Progress, Row, train
from vmunet.training.losses import training_loss
from vmunet.training.optimizer import learning_rate, parameter_groups
from vmunet.training.step import backward


def run(
    state: Path | None = None,
    kill_after: int | None = None,
    protocol: Protocol = PAPER,
    settings: TrainSettings = SETTINGS,
) -> tuple[Progress, VMUNet]:
    model = tiny_model()

    def on_epoch(row: Row) -> None:
        if row["epoch"] == kill_after:
            raise KeyboardInterrupt

    progress = train(
        model,
        Discs(),
        Discs(4),
        LOSS,
        settings,
        protocol,
        7,
        CPU,
        state,
        on_epoch=on_epoch,
        label="t",
    )
    return progress, model


@pytest.mark.parametrize("protocol", [PAPER, SOUND], ids=lambda p: p.name)
def test_resumed_run_ends_with_the_same_bits(tmp_path: Path, protocol: Protocol) -> None:
    whole, model = run(protocol=protocol)
    state = tmp_path / "states" / "state.pt"
    for kill_after in (2, 4):  # killed twice, in the middle of an epoch's bookkeeping
        with pytest.raises(KeyboardInterrupt):
            run(state, kill_after, protocol)
    resumed_from = []
    resumed_model = tiny_model(seed=99)  # resuming must not depend on the initial weights
    resumed = train(
        resumed_model,
        Discs(),
        Discs(4),
        LOSS,
        SETTINGS,
        protocol,
        7,
        CPU,
        state,
        on_start=lambda progress: resumed_from.append(progress.epoch),
    )
    assert resumed_from[0] in (1, 2, 3)
    assert resumed.history == whole.history
    assert resumed.best_epoch == whole.best_epoch
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, resumed_model.state_dict()[name]), name
    for name, tensor in whole.best_weights.items():
        assert torch.equal(tensor, resumed.best_weights[name]), name


def test_a_resume_point_that_cannot_be_written_is_tried_again_each_epoch(
    tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    """The disk has no room in the first two epochs."""
    whole, _ = run()
    state, model = tmp_path / "state.pt", tiny_model()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def on_epoch(row: Row) -> None:
        room = 1000 if row["epoch"] < 3 else soft
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))

    try:
        arguments = (LOSS, SETTINGS, PAPER, 7, CPU, state)
        progress = train(model, Discs(), Discs(4), *arguments, on_epoch=on_epoch, label="t")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert progress.history == whole.history
    (warning,) = [line for line in capfd.readouterr().err.split("\n") if "warning" in line]
    assert warning.startswith(f"warning: t: no resume point ({state}: File too large)")
    assert list(tmp_path.iterdir()) == [state]
    kept = torch.load(state, weights_only=True)["progress"]
    assert kept["epoch"] >= 3


def test_an_early_end_without_room_for_its_state_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "state.pt.tmp").mkdir()  # it cannot be written
    arguments = (LOSS, SETTINGS, PAPER, 7, CPU, tmp_path / "state.pt")
    with pytest.raises(OSError, match=r"state\.pt"):
        train(tiny_model(), Discs(), Discs(4), *arguments, seconds=0)


def test_training_learns_and_keeps_the_best_epoch() -> None:
    settings = replace(
        SETTINGS, epochs=24, t_max=24, batch_size=2, learning_rate=5e-3, dims=(16, 32, 64, 128)
    )
    torch.manual_seed(0)
    model = VMUNet(dims=settings.dims, depths=(1, 1, 1, 1), depths_decoder=(1, 1, 1, 1))
    progress = train(model, Discs(), Discs(4), LOSS, settings, PAPER, 7, CPU)
    losses = [row["selection_loss"] for row in progress.history]
    assert min(losses) < 0.85 * losses[0]
    assert progress.best_loss == min(losses)
    assert progress.best_epoch == losses.index(min(losses)) + 1
    assert [row["epoch"] for row in progress.history] == list(range(1, 25))


def test_without_selection_images_each_batch_counts_the_same() -> None:
    """As published: the last batch of one image counts as much as a batch of two."""
    losses: list[float] = []

    def recorded(logits: Tensor, target: Tensor) -> Tensor:
        value = LOSS(logits, target)
        losses.append(value.item())
        return value

    settings = replace(SETTINGS, epochs=3, batch_size=2)
    progress = train(tiny_model(), Discs(5), None, recorded, settings, PAPER, 7, CPU)
    epochs = [losses[i : i + 3] for i in range(0, 9, 3)]
    by_batch = [math.fsum(epoch) / 3 for epoch in epochs]
    by_image = [(2 * a + 2 * b + c) / 5 for a, b, c in epochs]
    assert [row["selection_loss"] for row in progress.history] == pytest.approx(by_batch, rel=1e-12)
    assert [row["train_loss"] for row in progress.history] == pytest.approx(by_image, rel=1e-12)
    assert progress.best_epoch == 1 + by_batch.index(min(by_batch))


def test_subset_of_training_images_follows_the_epochs() -> None:
    images = Discs()
    train(tiny_model(), Subset(images, [0, 1, 2, 3]), Discs(2), LOSS, SETTINGS, SOUND, 7, CPU)
    assert images.epoch == SETTINGS.epochs - 1


@pytest.mark.parametrize(("epochs", "t_max"), [(300, 50), (300, 100), (12, 2)])
def test_paper_schedule_is_cosine_annealing(epochs: int, t_max: int) -> None:
    settings = TrainSettings(epochs=epochs, t_max=t_max)
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=settings.learning_rate)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, T_max=t_max, eta_min=settings.eta_min
    )
    for epoch in range(epochs):
        expected = optimizer.param_groups[0]["lr"]
        assert learning_rate(epoch, settings, PAPER) == pytest.approx(expected, rel=1e-6)
        optimizer.step()
        scheduler.step()


def test_paper_schedule_ends_high_and_sound_schedule_ends_low() -> None:
    settings = TrainSettings()
    assert learning_rate(299, settings, PAPER) == pytest.approx(9.99e-4, abs=1e-6)
    assert learning_rate(0, settings, SOUND) == 1e-3
    assert learning_rate(299, settings, SOUND) == pytest.approx(1e-5)


def test_weight_decay_groups() -> None:
    model = tiny_model()
    (everything,) = parameter_groups(model, 0.01, PAPER)
    assert len(everything["params"]) == len(list(model.parameters()))
    decay, free = parameter_groups(model, 0.01, SOUND)
    assert decay["weight_decay"] == 0.01
    assert free["weight_decay"] == 0.0
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert len(decay["params"]) + len(free["params"]) == len(names)
    undecayed = {names[id(p)].rsplit(".", 1)[-1] for p in free["params"]}
    assert undecayed == {"weight", "bias", "A_logs", "Ds", "dt_projs_bias"}
    for parameter in free["params"]:
        name = names[id(parameter)]
        assert "norm" in name or "ln_1" in name or not name.endswith("weight"), name


class Broken(nn.Module):
    """Gives NaN after some steps, or ignores one of its parameters."""

    def __init__(self, nan_after: int | None, unused: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 1)
        self.extra = nn.Parameter(torch.zeros(1)) if unused else None
        self.nan_after, self.calls = nan_after, 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        logits = self.conv(images / 255)
        return logits * float("nan") if self.calls == self.nan_after else logits


def test_nan_loss_is_one_clear_error() -> None:
    with pytest.raises(InputError, match=r"^cell: the loss became nan in epoch 1, step 2; lower"):
        train(Broken(2, False), Discs(), Discs(2), LOSS, SETTINGS, PAPER, 0, CPU, label="cell")


@pytest.fixture
def late_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses are read at an epoch's end, as on a GPU."""
    monkeypatch.setattr(vmunet.training.loop, "reads_each_loss", lambda device: False)


def test_a_loss_that_is_read_late_ends_the_run_with_the_state_of_the_last_good_epoch(
    tmp_path: Path, late_reads: None
) -> None:
    state, rows, model = tmp_path / "state.pt", [], tiny_model()
    with pytest.raises(DivergedError, match=r"^c: the loss became nan in epoch 3, step \d; lower"):
        train(
            model,
            Discs(broken=2),
            Discs(4),
            LOSS,
            SETTINGS,
            PAPER,
            7,
            CPU,
            state,
            on_epoch=rows.append,
            label="c",
        )
    kept = torch.load(state, weights_only=True)
    done = kept["progress"]["epoch"]
    assert 1 <= done <= len(rows) == 2  # not each epoch is saved
    good, good_model = run(settings=replace(SETTINGS, epochs=done))
    assert kept["progress"]["history"] == good.history == rows[:done]
    for name, tensor in good_model.state_dict().items():
        assert torch.equal(kept["model"][name], tensor), name
    best = kept["progress"]["best_weights"]
    for name, tensor in good.best_weights.items():
        assert torch.equal(best[name], tensor), name


def test_late_reads_change_no_bit(late_reads: None, monkeypatch: pytest.MonkeyPatch) -> None:
    late, late_model = run()
    monkeypatch.undo()
    early, model = run()
    assert late.history == early.history
    for one, other in zip(late_model.parameters(), model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_late_reads_ask_the_device_once_a_pass(
    late_reads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of these calls would make the host wait for a GPU."""
    asked: list[str] = []
    for name in ("item", "tolist", "__bool__", "__float__", "__int__", "numpy"):
        method = getattr(Tensor, name)

        def spied(tensor: Tensor, method=method, name=name) -> object:
            if tensor.is_floating_point() or tensor.dtype == torch.bool:  # not an order of images
                asked.append(name)
            return method(tensor)

        monkeypatch.setattr(Tensor, name, spied)
    asked_by_epoch: list[list[str]] = []

    def on_epoch(row: Row) -> None:
        asked_by_epoch.append(asked.copy())
        asked.clear()

    stored = [Discs(4)[i] for i in range(4)]
    batches = [stored[i % 4] for i in range(10)]

    class Stored(Discs):
        def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
            return batches[index]

    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.SiLU(), nn.Conv2d(4, 1, 1))
    train(net, Stored(), Stored(4), LOSS, SETTINGS, PAPER, 7, CPU, on_epoch=on_epoch)
    assert asked_by_epoch[1:] == [["tolist", "tolist"]] * 3  # the pass, the selection


def test_a_run_in_parts_of_limited_time_ends_with_the_same_bits(tmp_path: Path) -> None:
    whole, model = run()
    state, epochs = tmp_path / "state.pt", []
    for seed, seconds in enumerate((1e-9, 1e-9, math.inf)):
        again = tiny_model(seed)
        images = Discs(), Discs(4)
        part = train(again, *images, LOSS, SETTINGS, PAPER, 7, CPU, state, seconds=seconds)
        epochs.append(part.epoch)
    assert epochs == [1, 2, 4]
    assert part.history == whole.history
    assert part.best_epoch == whole.best_epoch
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_a_run_knows_where_its_time_went(tmp_path: Path) -> None:
    progress, _ = run(tmp_path / "state.pt")
    assert set(progress.parts) == {"data", "step", "selection", "saving"}
    assert min(progress.parts.values()) > 0
    epochs = sum(seconds for part, seconds in progress.parts.items() if part != "saving")
    assert epochs == pytest.approx(progress.seconds, rel=0.2)
    assert progress.step == "eager"


def test_parameter_without_gradient_is_an_error() -> None:
    with pytest.raises(InputError, match="first gradient of extra"):
        train(Broken(None, True), Discs(), Discs(2), LOSS, SETTINGS, PAPER, 0, CPU, label="cell")


def test_bf16_autocast_trains() -> None:
    settings = replace(SETTINGS, precision="bf16", epochs=2)
    progress, _ = run(settings=settings)
    exact, _ = run(settings=replace(SETTINGS, epochs=2))
    assert progress.history[0]["train_loss"] == pytest.approx(
        exact.history[0]["train_loss"], rel=0.05
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"states": 0},
        {"learning_rate": 1e-6},
        {"weight_decay": -1.0},
        {"dims": (8, 16, 32, 65)},
    ],
)
def test_settings_out_of_range(wrong: dict) -> None:
    with pytest.raises(ValueError, match="must"):
        TrainSettings(**wrong)


def gradients(model: nn.Module, classes: int, micro_batch: int | None, loss_input: str = "logits"):
    """Loss and gradients of a batch of 5 in float64."""
    model.zero_grad()
    torch.manual_seed(3)
    images = 255 * torch.rand(5, 3, 32, 32, dtype=torch.float64)
    targets = torch.rand(5, 1, 32, 32, dtype=torch.float64).round()
    targets = targets if classes == 1 else targets[:, 0].long()
    loss = training_loss(classes, loss_input)
    with backend("reference"):  # the one that takes float64
        value = backward(model, images, targets, loss, SETTINGS, micro_batch)
    return value.item(), [parameter.grad.clone() for parameter in model.parameters()]


def double_model(classes: int = 1) -> VMUNet:
    torch.manual_seed(0)
    depths = {"depths": (1, 1, 1, 1), "depths_decoder": (1, 1, 1, 1)}
    model = VMUNet(num_classes=classes, dims=SETTINGS.dims, drop_path_rate=0.0, **depths)
    return model.double()


@pytest.mark.parametrize("loss_input", ["probabilities", "logits"])
@pytest.mark.parametrize("micro_batch", [1, 2, 4, 5, 9])
def test_micro_batches_have_the_gradient_of_the_batch(loss_input: str, micro_batch: int) -> None:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(1, 8), nn.SiLU(), nn.Conv2d(8, 1, 3, 1, 1)
    # VM-UNet keeps its recurrence's A in float32 whatever it is given
    for model, tolerance in ((nn.Sequential(*layers).double(), 1e-12), (double_model(), 1e-10)):
        value, whole = gradients(model, 1, None, loss_input)
        again, parts = gradients(model, 1, micro_batch, loss_input)
        assert again == pytest.approx(value, abs=1e-13)
        for one, other in zip(whole, parts, strict=True):
            assert (one - other).abs().max() <= tolerance


def test_micro_batches_pool_dice_of_several_classes_over_themselves() -> None:
    model = double_model(classes=3)
    value, _ = gradients(model, 3, None)
    again, _ = gradients(model, 3, 2)
    assert 1e-9 < abs(value - again) < 0.1


def test_training_in_micro_batches_steps_once_a_batch() -> None:
    def trained(micro_batch: int | None) -> tuple[Progress, VMUNet]:
        torch.manual_seed(0)
        model = VMUNet(
            dims=SETTINGS.dims,
            depths=(1, 1, 1, 1),
            depths_decoder=(1, 1, 1, 1),
            drop_path_rate=0.0,
        )
        images = (Discs(), Discs(4))
        settings = replace(SETTINGS, epochs=2)
        progress = train(model, *images, LOSS, settings, PAPER, 7, CPU, micro_batch=micro_batch)
        return progress, model

    whole, _ = trained(None)
    parts, _ = trained(3)
    for one, other in zip(whole.history, parts.history, strict=True):
        assert other["train_loss"] == pytest.approx(one["train_loss"], rel=1e-3)
