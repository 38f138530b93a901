"""Train one trial of a search and report each epoch to its study (`vmunet search --help`).

This is not a stage of DVC, which records no output of it. `vmunet search` draws the trial's values
and runs `python -m stages.search_trial STUDY NUMBER`. Under both protocols the loss on the held-out
part of the training images selects the epoch, and no file of the test part can be opened.
"""

import argparse
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.exceptions import TrialPruned
from optuna.trial import Trial, TrialState

from pipeline.config.params import Cell, Params, load_params
from pipeline.config.runs import Run
from pipeline.fingerprint import fingerprint
from pipeline.provenance import git_revision, hash_json, versions
from pipeline.search.data import refuse_to_open, search_data
from pipeline.search.space import cell_with, overrides
from pipeline.search.study import SharedStudy, StudyFacts, study_facts
from pipeline.stage import run_stage
from pipeline.tracking.plain import PlainRun
from stages.common.only_here import stop_as_ctrl_c_does
from stages.common.training import Task, device_name, make_model
from stages.train import image_task
from stages.train_volumes import organ_task
from vmunet.models import file_of
from vmunet.protocols import PROTOCOLS, Protocol
from vmunet.settings import TrainSettings

if TYPE_CHECKING:
    from vmunet.training.loop import Progress

SCRIPT = Path("stages/search_trial.py")


def main(argv: list[str] | None = None) -> None:
    """Train trial NUMBER of STUDY."""
    parser = argparse.ArgumentParser(prog="python -m stages.search_trial", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("study")
    parser.add_argument("number", type=int)
    arguments = parser.parse_args(argv)
    stop_as_ctrl_c_does()
    params = load_params()
    facts = SharedStudy(arguments.study).facts
    refuse_to_open(search_data(params, facts.view, facts.protocol).test)
    # params.yaml or the arrays may have changed since the search began
    facts = study_facts(params, facts.view, facts.cell, facts.protocol, facts.epochs)
    study = SharedStudy(arguments.study, facts)
    run_trial(study, study.attach(arguments.number), params)


def run_trial(study: SharedStudy, trial: Trial, params: Params) -> None:
    """Train, report each epoch, and write the trial's result to the study."""
    import torch

    from vmunet.training.loop import DivergedError, train
    from vmunet.training.losses import training_loss
    from vmunet.training.processor import use_processor

    facts = study.facts
    changes = overrides(facts.dimensions, trial.params, facts.kind)
    cell = cell_with(params.cell(facts.cell), changes)
    task, protocol = task_of(facts, cell, params)
    settings = replace(cell.settings(task.settings), epochs=facts.epochs)
    use_processor(params.profile.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    machine = {"device": device_name(device), "threads": torch.get_num_threads()}
    code = {"code_hash": [fingerprint(path) for path in (SCRIPT, file_of(cell.model))]}
    first = trial.user_attrs.get("again", trial.number)
    known = [asdict(facts), cell.model_dump(exclude_none=True), first, code, machine, versions()]
    key = hash_json(known)[:32]
    state = study.folder / "states" / f"{key}.pt"

    torch.manual_seed(facts.seed)
    model, _ = make_model(cell, task)
    train_images, selection_images = task.datasets()
    assert selection_images is not None, "a trial needs held-out training images"
    reports = Reports(study, trial, key, cell, settings, protocol, machine | code)
    label, began = f"{study.name}-{trial.number}", time.monotonic()
    status = "FAILED"
    try:
        progress = train(
            model,
            train_images,
            selection_images,
            training_loss(task.classes, protocol.loss_input, cell.weights),
            settings,
            protocol,
            facts.seed,
            device,
            state,
            reports.start,
            reports.epoch,
            label,
            selection_loss=training_loss(task.classes, protocol.loss_input),
        )
        trial.set_user_attr("epoch", progress.best_epoch)
        trial.set_user_attr("seconds", round(progress.seconds, 1))
        study.study.tell(trial.number, progress.best_loss)
        status = "FINISHED"
    except (TrialPruned, DivergedError) as error:
        # a loss that is NaN or infinite counts as pruned: the sampler then avoids such settings
        reason = "" if isinstance(error, TrialPruned) else str(error)
        trial.set_user_attr("reason", reason)
        trial.set_user_attr("seconds", round(time.monotonic() - began, 1))
        study.study.tell(trial.number, state=TrialState.PRUNED)
        status = "KILLED" if not reason else "FAILED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        reports.finish(status)
    state.unlink(missing_ok=True)


def task_of(facts: StudyFacts, cell: Cell, params: Params) -> tuple[Task, Protocol]:
    """The trial's task and protocol: this cell on the view, with held-out training images."""
    protocol = replace(PROTOCOLS[facts.protocol], selection="held_out", volume_selection="held_out")
    run = Run(facts.view, facts.cell, facts.protocol, facts.seed)
    varied = params.model_copy(update={"cells": {**params.cells, facts.cell: cell}})
    make = image_task if facts.kind == "images" else organ_task
    return make(run, varied, protocol), protocol


class Reports:
    """Reports each epoch to MLflow and the study, and ends a trial that the pruner stops."""

    def __init__(
        self,
        study: SharedStudy,
        trial: Trial,
        key: str,
        cell: Cell,
        settings: TrainSettings,
        protocol: Protocol,
        provenance: dict[str, Any],
    ) -> None:
        self._study, self._trial, self._key = study, trial, key
        self._provenance = provenance
        self._facts = {
            "cell": cell.model_dump(exclude_none=True),
            "train": asdict(settings),
            "protocol": asdict(protocol),
            "trial": trial.params,
        }
        self._best = float("inf")
        self._tracker: PlainRun | None = None

    def start(self, progress: "Progress") -> None:
        """Open or continue the trial's MLflow run, whose parent is the study's run."""
        facts, name = self._study.facts, f"{self._study.name}-{self._trial.number}"
        tags = {
            "study": self._study.name,
            "trial": str(self._trial.number),
            "view": facts.view,
            "cell": facts.cell,
            "protocol": facts.protocol,
            "git": git_revision(),
            "data_hash": facts.data,
            **{key: str(value) for key, value in self._provenance.items()},
        }
        parent = self._study.study.user_attrs.get("mlflow_run_id")
        if parent:
            tags["mlflow.parentRunId"] = parent
        flat = {f"{part}.{k}": v for part, values in self._facts.items() for k, v in values.items()}
        self._tracker = PlainRun(
            facts.profile, name, flat, tags, key=self._key, history=progress.history
        )
        for row in progress.history:  # from an interrupted trial, which had another number
            self._report(row)

    def epoch(self, row: dict[str, float]) -> None:
        """Log an epoch and report it to the study.

        Raises:
            TrialPruned: the pruner stops the trial.
        """
        assert self._tracker is not None
        self._tracker.log_epoch(row)
        self._report(row)

    def finish(self, status: str) -> None:
        if self._tracker is not None:
            self._tracker.finish(status)

    def _report(self, row: dict[str, float]) -> None:
        """Report the lowest loss so far, which is the trial's score if it ends here."""
        epoch = int(row["epoch"])
        self._best = min(self._best, row["selection_loss"])
        self._trial.report(self._best, epoch)
        if epoch < self._study.facts.epochs and self._trial.should_prune():
            raise TrialPruned


if __name__ == "__main__":
    run_stage(main)
