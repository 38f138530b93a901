"""The line for each epoch: as a training prints it, and as a sweep reads it."""

import sys

import pytest

from pipeline.tracking import live
from pipeline.tracking.epochs import Epochs, epoch_line, read_epochs
from tests.helpers.tracking import row, tracker


def log(*epochs: int) -> str:
    return "".join(f"{epoch_line(row(epoch), 8)}\n" for epoch in epochs)


def test_the_last_epoch_is_read_between_other_lines() -> None:
    text = f"warning: slow\n{log(4, 5)}x: MLflow cannot be reached\n{log(6)}"
    assert read_epochs(text) == Epochs(done=6, total=8, loss=1.0, printed=3)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "epoch 1 of",
        log(1)[:-1],  # not written to its end: digits may be missing
        f"the {log(1)}",
        "epoch 1 of 8: training loss 1, selection loss none\n",
    ],
)
def test_other_text_is_no_epoch(text: str) -> None:
    assert read_epochs(text) is None


def test_a_training_prints_its_new_epochs_unless_there_is_a_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(live.LiveRun, "_work", lambda self: None)  # sends nothing
    run = tracker(history=2)
    run.log_epoch(row(3))
    assert capsys.readouterr().out == log(3)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    run.log_epoch(row(4))
    assert capsys.readouterr().out == ""
