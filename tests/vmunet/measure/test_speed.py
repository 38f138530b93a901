"""Speed and memory: what is counted, in which order, and workloads that do not fit."""

import json
import os
import signal
from dataclasses import replace
from multiprocessing.connection import Connection
from types import SimpleNamespace

import pytest
import torch

from pipeline.config.params import load_params
from stages import speed as stage
from tests.helpers.clone import demo_root
from vmunet import VMUNet
from vmunet.complexity import complexity
from vmunet.measure import speed
from vmunet.measure.speed import REPEATS, ROUNDS, WARM_UP, Measured, Workload, measure, resident
from vmunet.settings import TrainSettings

CPU = torch.device("cpu")
TINY = Workload("vmunet", speed.TINY, 32, 2, True, TrainSettings(batch_size=2))


class Steps:
    """Replaces models by steps that take the seconds of an artificial clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.order: list[int] = []
        clock = SimpleNamespace(perf_counter=lambda: self.now, monotonic=lambda: self.now)
        monkeypatch.setattr(speed, "time", clock)
        # nothing is held here, and looking through all that the tests import takes a second
        monkeypatch.setattr(speed.gc, "collect", int)
        monkeypatch.setattr(speed, "make_step", self.make)
        monkeypatch.setattr(speed, "peak_on_cpu", lambda work, threads: 1000 * work.batch_size)

    def make(self, work: Workload, device: torch.device):
        """The first step of a model takes 100 s, the others a twentieth of a second per image."""
        self.order.append(work.batch_size)
        if work.size > 1000:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        if work.size == 96:
            raise RuntimeError("shape mismatch")
        steps = iter([100.0] * WARM_UP + [0.05 * work.batch_size] * REPEATS)

        def step() -> None:
            self.now += next(steps)

        return step


def batches(*sizes: int) -> dict[str, Workload]:
    return {str(n): replace(TINY, batch_size=n) for n in sizes}


def test_rounds_go_through_all_models_and_warming_up_does_not_count(monkeypatch) -> None:
    steps = Steps(monkeypatch)
    measured = measure(batches(2, 4), CPU, seconds=1e9)
    assert steps.order == [2, 4] * ROUNDS
    assert measured == {
        "2": Measured(pytest.approx(20.0), 2000, ROUNDS * REPEATS),
        "4": Measured(pytest.approx(20.0), 4000, ROUNDS * REPEATS),
    }


def test_no_round_begins_after_the_time_is_spent(monkeypatch) -> None:
    steps = Steps(monkeypatch)
    measured = measure(batches(2), CPU, seconds=50)
    assert steps.order == [2]
    assert measured["2"].repetitions == REPEATS


def test_a_slow_model_is_timed_once(monkeypatch) -> None:
    steps = Steps(monkeypatch)
    slow = int(20 * speed.LONG) + 1
    measured = measure(batches(2, slow), CPU, seconds=1e9)
    assert steps.order == [2, slow] + [2] * (ROUNDS - 1)
    assert [measured[name].repetitions for name in ("2", str(slow))] == [ROUNDS * REPEATS, 1]


def test_what_does_not_fit_is_none_and_the_others_go_on(monkeypatch) -> None:
    steps = Steps(monkeypatch)
    measured = measure({"huge": replace(TINY, size=1024), **batches(4)}, CPU)
    assert measured["huge"] == Measured(None, None, 0)
    assert measured["4"].images_per_second == pytest.approx(20.0)
    assert steps.order.count(TINY.batch_size) == 1  # it is not tried again


def test_a_process_that_did_not_fit_is_not_timed(monkeypatch) -> None:
    steps = Steps(monkeypatch)
    monkeypatch.setattr(speed, "peak_on_cpu", lambda work, threads: None)
    assert measure(batches(4), CPU) == {"4": Measured(None, None, 0)}
    assert steps.order == []


def test_other_errors_are_not_hidden(monkeypatch) -> None:
    Steps(monkeypatch)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        measure({"wrong": replace(TINY, size=96)}, CPU)


def test_on_a_gpu_the_allocators_peak_beyond_what_was_there(monkeypatch) -> None:
    Steps(monkeypatch)
    peaks, said = iter([900, 700] * ROUNDS), []
    for name, function in {
        "reset_peak_memory_stats": lambda device: said.append("reset"),
        "memory_allocated": lambda device: 100,
        "max_memory_allocated": lambda device: next(peaks),
        "empty_cache": lambda: said.append("empty"),
        "synchronize": lambda device: said.append("synchronize"),
    }.items():
        monkeypatch.setattr(torch.cuda, name, function)
    measured = measure({"a": TINY, "b": TINY}, torch.device("cuda"), seconds=1e9)
    assert (measured["a"].peak_bytes, measured["b"].peak_bytes) == (800, 600)
    one = ["reset", *["synchronize"] * 2 * (WARM_UP + REPEATS), "empty"]
    assert said == one * 2 * ROUNDS


@pytest.mark.gpu
def test_measures_a_gpu() -> None:
    works = {"t": replace(TINY, batch_size=8), "i": replace(TINY, batch_size=8, training=False)}
    measured = measure(works, torch.device("cuda"))
    assert measured["t"].peak_bytes > measured["i"].peak_bytes > 0
    assert measured["i"].images_per_second > measured["t"].images_per_second > 0


def test_a_training_step_trains_and_inference_does_not(monkeypatch) -> None:
    models = []

    class Spied(VMUNet):
        def __init__(self, **arguments) -> None:
            super().__init__(**arguments)
            self.seen: list[tuple] = []
            models.append(self)

        def forward(self, images):
            logits = super().forward(images)
            self.seen.append((self.training, tuple(images.shape), logits.requires_grad))
            return logits

    monkeypatch.setattr(speed, "MODELS", {"vmunet": Spied})
    for training in (True, False):
        step = speed.make_step(replace(TINY, training=training), CPU)
        before = [p.detach().clone() for p in models[-1].parameters()]
        step()
        assert models[-1].seen == [(training, (2, 3, 32, 32), training)]
        moved = [
            not torch.equal(a, b) for a, b in zip(before, models[-1].parameters(), strict=True)
        ]
        assert all(moved) if training else not any(moved)
    assert models[0].config["dims"] == [8, 16, 32, 64]


def test_memory_grows_with_the_batch_and_with_training() -> None:
    dims = (32, 64, 128, 256)
    wide = replace(TINY, size=64, arguments={**speed.TINY, "dims": dims})
    few, many = (speed.peak_on_cpu(replace(wide, batch_size=n), 1) for n in (2, 16))
    inference = speed.peak_on_cpu(replace(wide, batch_size=16, training=False), 1)
    parameters = complexity(speed.TINY["depths"], speed.TINY["depths_decoder"], dims).parameters
    # weights, gradients and AdamW's two moments, less what the process reuses of its own memory,
    # which is up to some 10 MB
    assert few > 0.5 * 4 * parameters * 4
    assert many > 2 * few
    assert many > 2 * inference > 0


def end(work: Workload, threads: int, sender: Connection) -> None:
    os.kill(os.getpid(), signal.SIGKILL)  # as the system ends a process that takes too much


def fail(work: Workload, threads: int, sender: Connection) -> None:
    os._exit(3)


def test_a_process_that_takes_too_much_is_none_and_one_that_fails_is_an_error(monkeypatch) -> None:
    monkeypatch.setattr(speed, "_send_claimed", end)
    assert speed.peak_on_cpu(TINY, 1) is None
    monkeypatch.setattr(speed, "_send_claimed", fail)
    with pytest.raises(RuntimeError, match="ended with status 3"):
        speed.peak_on_cpu(TINY, 1)


def test_out_of_memory_is_sent_as_none(monkeypatch) -> None:
    sent: list[int | None] = []
    sender = SimpleNamespace(send=sent.append)

    def claimed(error: Exception):
        def raising(work: Workload, threads: int) -> int:
            raise error

        return raising

    monkeypatch.setattr(speed, "_claimed", claimed(MemoryError()))
    speed._send_claimed(TINY, 1, sender)
    assert sent == [None]
    monkeypatch.setattr(speed, "_claimed", claimed(RuntimeError("shape mismatch")))
    with pytest.raises(RuntimeError, match="shape mismatch"):
        speed._send_claimed(TINY, 1, sender)


def test_resident_memory_follows_what_is_claimed() -> None:
    before = resident("VmRSS")
    held = torch.ones(16_000_000)
    assert 50e6 < resident("VmRSS") - before < 90e6
    assert resident("VmHWM") >= resident("VmRSS") - 1e6
    assert len(held) == 16_000_000


def measured(works, device) -> dict[str, Measured]:
    blocks = {name: sum(work.arguments.get("depths", ())) for name, work in works.items()}
    fits = {name: not work.training or blocks[name] < 15 for name, work in works.items()}
    return {
        name: Measured(2.5, work.batch_size, 12) if fits[name] else Measured(None, None, 0)
        for name, work in works.items()
    }


def test_the_stage_measures_each_distinct_architecture(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(stage, "measure", measured)
    monkeypatch.setattr(stage, "use_processor", lambda threads: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    params = load_params(demo_root())
    stage.speed(params, "isic17-64", tmp_path / "speed.json")
    written = json.loads((tmp_path / "speed.json").read_text())
    assert list(written["architectures"]) == [
        "2,2,2,2-2,2,2,1",
        "2,2,2,2-2,2,2,2",
        "2,2,3,2-2,3,2,2",
        "2,2,4,2-2,4,2,2",
        "2,2,9,2-2,9,2,2",
        *dict.fromkeys((*params.grid.rivals, *params.grid.volume_rivals)),
    ]
    assert written["architectures"]["2,2,2,2-2,2,2,1"] == {
        "inference_images_per_second": 2.5,
        "inference_peak_bytes": 16,
        "inference_repetitions": 12,
        "training_images_per_second": 2.5,
        "training_peak_bytes": 4,
        "training_repetitions": 12,
    }
    deepest = written["architectures"]["2,2,9,2-2,9,2,2"]
    assert deepest["training_images_per_second"] is deepest["training_peak_bytes"] is None
    assert (written["size"], written["dims"]) == (64, [24, 48, 96, 192])
    assert written["width"] == params.profile.train.width
    assert written["batch_size"] == {"inference": 16, "training": 4}
    assert written["versions"]["torch"] == torch.__version__
    assert written["threads"] == torch.get_num_threads()
    assert written["device"] == "CPU"
    assert written["processor"]
    assert capsys.readouterr().out.count("\n") == 1


def test_volumes_are_cubes_with_the_voxels_of_a_batch() -> None:
    params = load_params(demo_root())
    shapes = {
        (name, size): (work.size, work.batch_size)
        for size in (224, 50)
        for name, _, work in stage.workloads(params, size, dict.fromkeys(stage.MODES, 20))
    }
    assert (shapes["vnet", 224], shapes["vnet", 50]) == ((64, 4), (48, 1))
    assert (shapes["unet", 224], shapes["unet", 50]) == ((224, 20), (50, 20))


def test_without_cells_there_is_nothing_to_measure(tmp_path) -> None:
    params = load_params(demo_root())
    grid = params.grid.model_copy(update={"ablations": [], "rivals": [], "volume_rivals": []})
    without = params.model_copy(update={"grid": grid})
    stage.speed(without, "isic17-64", tmp_path / "speed.json")
    assert json.loads((tmp_path / "speed.json").read_text())["architectures"] == {}
