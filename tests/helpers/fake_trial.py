"""A trial that trains nothing: it computes its loss from its values. Files control it.

The file `slow` in the project lets it wait before its third epoch; `die-N` kills trial N, and `die`
each trial.
"""

import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from optuna.trial import Trial, TrialState

from pipeline.search.study import SharedStudy


class Tracker:
    """An MLflow run that keeps the logged values."""

    made: ClassVar[list["Tracker"]] = []

    def __init__(
        self,
        experiment: str,
        name: str,
        params: Mapping[str, Any],
        tags: Mapping[str, str],
        run_id: str = "",
        key: str = "",
        history: Sequence[Mapping[str, float]] = (),
    ) -> None:
        self.run_id = run_id or f"run of {name}"
        self.tags, self.key, self.history = tags, key, [row["epoch"] for row in history]
        self.logged: list[int] = []
        self.status = ""
        Tracker.made.append(self)

    def opened(self, seconds: float) -> str:
        return self.run_id

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self.logged.append(step)

    def log_epoch(self, row: Mapping[str, float]) -> None:
        self.logged.append(int(row["epoch"]))

    def finish(self, status: str = "FINISHED") -> None:
        self.status = status


def loss_of(values: dict[str, float], epoch: int) -> float:
    """A loss that is lowest at a learning rate of 0.003 without drop path; it falls with time."""
    return abs(values["learning_rate"] - 0.003) * 100 + values["drop_path_rate"] + 1 / epoch


def train(study: SharedStudy, trial: Trial) -> None:
    for epoch in range(1, study.facts.epochs + 1):
        while epoch == 3 and Path("slow").exists():
            time.sleep(0.05)
        trial.report(loss_of(trial.params, epoch), epoch)
        if epoch < study.facts.epochs and trial.should_prune():
            study.study.tell(trial.number, state=TrialState.PRUNED)
            return
    trial.set_user_attr("epoch", study.facts.epochs)
    study.study.tell(trial.number, loss_of(trial.params, study.facts.epochs))


if __name__ == "__main__":
    name, number = sys.argv[1], int(sys.argv[2])
    print(f"trial {number} of {name}", flush=True)
    if Path("die").exists() or Path(f"die-{number}").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    shared = SharedStudy(name)
    train(shared, shared.attach(number))
