"""The line that a training prints after each epoch when no progress bar can be drawn.

A sweep's trainings print into log files; the sweep reads their progress from the end of the log.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

# A line that is still being written has no end yet, and its last number may lack digits.
LINE = re.compile(r"^epoch (\d+) of (\d+): training loss \S+, selection loss (\S+)\n", re.MULTILINE)


@dataclass(frozen=True)
class Epochs:
    """The progress of a training.

    Attributes:
        done: whole epochs, those before a resume included.
        total: epochs of the whole training.
        loss: the selection loss of the last one.
        printed: the lines that were read, one for each epoch since the start or the resume.
    """

    done: int
    total: int
    loss: float
    printed: int


def epoch_line(row: Mapping[str, float], total: int) -> str:
    """The line for a row of the history, without its end; `total` is the number of epochs."""
    return (
        f"epoch {row['epoch']:.0f} of {total}: training loss {row['train_loss']:.4f}, "
        f"selection loss {row['selection_loss']:.4f}"
    )


def read_epochs(log: str) -> Epochs | None:
    """The progress that the end of a training's log shows; None before the first epoch's end."""
    lines = LINE.findall(log)
    if not lines:
        return None
    done, total, loss = lines[-1]
    try:
        return Epochs(int(done), int(total), float(loss), len(lines))
    except ValueError:  # a line of another program
        return None
