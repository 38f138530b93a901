"""Several processes that train one model: the losses of a single process, and how they end.

The processes run on processors, connected by gloo.
"""

import json
import signal
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.discs import CPU
from vmunet.errors import InputError
from vmunet.model import DropPath
from vmunet.models import build
from vmunet.training.distributed import ALONE, Group, Part, check, group_of, set_part, shared
from vmunet.training.launch import launch
from vmunet.training.loaders import EpochOrder, Parts

HELPER = "tests.helpers.train_together"


def together(
    out: Path, processes: int, samples: int = 9, micro_batch: int = 0, killed: int = 0
) -> int:
    """Train for 3 epochs in `out`; returns the status of `launch`."""
    out.mkdir(exist_ok=True)
    return launch(HELPER, [str(out), "3", str(samples), str(micro_batch), str(killed)], processes)


def result(out: Path, rank: int = 0) -> dict:
    return json.loads((out / f"{rank}.json").read_text())


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What a single process gives."""
    out = tmp_path_factory.mktemp("one")
    assert together(out, 1) == 0
    assert len(result(out)["history"]) == 3
    return result(out)


def is_that_of(one: dict, other: dict) -> bool:
    """Whether the losses and weights are equal up to rounding."""
    rows = zip(one["history"], other["history"], strict=True)
    losses = all(row == pytest.approx(expected, rel=1e-9) for expected, row in rows)
    return losses and other["weights"] == pytest.approx(one["weights"], rel=1e-6, abs=1e-6)


def test_the_losses_are_those_of_one_process(one: dict, tmp_path: Path) -> None:
    """Batches of 4, 4 and 1 images: the parts of 3 differ in size, and some are empty."""
    assert together(tmp_path, 3) == 0
    first, second, third = (result(tmp_path, rank) for rank in range(3))
    assert is_that_of(one, first)
    assert first == second == third  # to the last bit


@pytest.mark.slow
def test_micro_batches_add_up_in_each_process(tmp_path: Path) -> None:
    """Drop path draws anew for each micro batch: other losses than without, and in all the same."""
    assert together(tmp_path, 2, samples=8, micro_batch=1) == 0
    first, second = result(tmp_path, 0), result(tmp_path, 1)
    assert first == second
    losses = [row["train_loss"] for row in first["history"]]
    assert losses[-1] < losses[0]


def test_a_killed_process_ends_all_and_the_run_goes_on_as_if_undisturbed(
    one: dict, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    assert together(tmp_path, 2, killed=2) == 128 + signal.SIGKILL
    assert not list(tmp_path.glob("*.json"))
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.startswith("process 1 of 2 was ended by signal 9, so the others were stopped; ")
    assert not is_alive(int((tmp_path / "0.pid").read_text()))
    assert (tmp_path / "state.pt").exists()
    assert together(tmp_path, 2) == 0
    assert is_that_of(one, result(tmp_path))


def test_the_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    code = (
        "from vmunet.training.launch import launch\n"
        f"launch({HELPER!r}, [{str(tmp_path)!r}, '100000', '4', '0', '0'], 2)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code])
    try:
        wait_until(lambda: (tmp_path / "state.pt").exists())
        pids = [int((tmp_path / f"{rank}.pid").read_text()) for rank in (0, 1)]
        assert all(map(is_alive, pids))
    finally:
        parent.kill()
        parent.wait()
    wait_until(lambda: not any(map(is_alive, pids)))


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended may still wait to be reaped."""
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_status_and_the_error_are_those_of_the_one_that_fails(capfd) -> None:
    assert launch("json.tool", ["--nonsense"], 2) == 2
    assert "unrecognized arguments: --nonsense" in capfd.readouterr().err


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 5))
def test_the_parts_are_the_batch(count: int, batch_size: int, size: int) -> None:
    order = EpochOrder(count, seed=3)
    whole = list(Parts(order, batch_size, ALONE))
    assert [*chain(*whole)] == list(order)
    shares = [list(Parts(order, batch_size, Group(rank, size))) for rank in range(size)]
    for number, batch in enumerate(whole):
        parts = [Group(rank, size).part(len(batch)) for rank in range(size)]
        taken = [s[number] if p.last > p.first else [] for s, p in zip(shares, parts, strict=True)]
        assert [*chain(*taken)] == batch
        assert all(shares[rank][number] for rank in range(size))  # none is without a sample
        assert max(map(len, taken)) - min(map(len, taken)) <= 1


def test_drop_path_draws_for_the_whole_batch() -> None:
    path, x = DropPath(0.5).train(), torch.ones(5, 2, 3)

    def drawn(samples: torch.Tensor, part) -> torch.Tensor:
        torch.manual_seed(2)
        set_part(path, part)
        return path(samples)

    whole = drawn(x, None)
    assert 0 < int((whole[:, 0, 0] == 0).sum()) < 5
    for size in (2, 3):
        parts = [Group(rank, size).part(5) for rank in range(size)]
        assert torch.equal(torch.cat([drawn(x[p.first : p.last], p) for p in parts]), whole)
    assert Group(0, 6).part(5) == (0, 0, 5)
    assert drawn(x[:1], Group(0, 6).part(5)).shape == drawn(x[:1], Part(5, 5, 5)).shape == (1, 2, 3)


@pytest.mark.parametrize(
    ("gpus", "batch_size", "available", "message"),
    [
        (4, 8, 2, r"^train: gpus: 4, and this process sees 2; take at most so many"),
        (2, 8, 0, r"^train: gpus: 2, and this process sees 0; "),
        (2, 7, 2, r"^train: batch_size: 7 does not divide into 2 equal parts for gpus: 2; change"),
    ],
)
def test_what_cannot_be_shared_out(gpus, batch_size, available, message) -> None:
    check(2, 8, 2)
    with pytest.raises(InputError, match=message):
        check(gpus, batch_size, available)


def test_batch_norm_needs_gpus() -> None:
    model = build("unet", width=1 / 16)
    assert shared(model, ALONE, CPU) is model
    with pytest.raises(InputError, match="batch norm is trained by several processes on GPUs only"):
        shared(model, Group(0, 2), CPU)


def test_the_place_is_in_the_environment() -> None:
    assert group_of({}) is None
    assert group_of({"RANK": "1", "WORLD_SIZE": "4"}) == Group(1, 4)
