"""A batch that does not fit into memory: the stage's status, its one line, and micro batches."""

import pytest
import torch

from pipeline.config.runs import Run
from pipeline.stage import OUT_OF_MEMORY, OutOfMemoryError, run_stage
from stages.common.training import micro_batch_of, no_memory
from vmunet.errors import InputError
from vmunet.settings import TrainSettings
from vmunet.training.step import is_out_of_memory

RUN = Run("isic17-32", "base", "paper", 1)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (MemoryError(), True),
        (RuntimeError("Triton Error [CUDA]: out of memory"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("shape mismatch"), False),
        (InputError("out of memory"), False),
        (KeyboardInterrupt(), False),
    ],
)
def test_errors_that_count_as_out_of_memory(error: BaseException, expected: bool) -> None:
    assert is_out_of_memory(error) == expected


def test_the_processors_allocator_has_this_message() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert is_out_of_memory(caught.value)


def test_a_stage_out_of_memory_ends_with_its_status(capsys: pytest.CaptureFixture) -> None:
    def main() -> None:
        raise OutOfMemoryError(no_memory(RUN, 32))

    with pytest.raises(SystemExit) as caught:
        run_stage(main)
    assert caught.value.code == OUT_OF_MEMORY == 75
    error = capsys.readouterr().err
    assert error.startswith("error: isic17-32-base-paper-1: out of memory with 32 samples at once")
    assert "VMUNET_MICRO_BATCH=16" in error
    assert error.count("\n") == 1
    assert "smaller model" in no_memory(RUN, 1)


@pytest.mark.parametrize("text", ["0", "4", "5", "-1", "2.0", "two"])
def test_a_wrong_micro_batch_is_one_sentence(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VMUNET_MICRO_BATCH", text)
    with pytest.raises(InputError, match=f"^VMUNET_MICRO_BATCH={text}: expected .* 1 to 3"):
        micro_batch_of(TrainSettings(batch_size=4))


def test_a_micro_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VMUNET_MICRO_BATCH", "3")
    assert micro_batch_of(TrainSettings(batch_size=4)) == 3
    monkeypatch.setenv("VMUNET_MICRO_BATCH", "")
    assert micro_batch_of(TrainSettings(batch_size=4)) is None
