"""A study that several processes share: its subject, its trials and the processes that run them.

`.search/<study>.log` is Optuna's journal. `.search/<study>/` holds logs, states of interrupted
trials, and a file for each process that works on the study. The file is locked while the process or
one of its trials lives. Optuna itself notices a dead process only if it has a database. Here, a
running trial whose process's file is not locked was killed, and is queued again with the same
values.
"""

import fcntl
import json
import os
import uuid
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import HyperbandPruner
from optuna.samplers import BaseSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from pipeline.config.initial import initial_files
from pipeline.config.params import Params
from pipeline.config.strict import ProtocolName
from pipeline.provenance import hash_files
from pipeline.search.data import search_data
from pipeline.search.journal import open_journal
from pipeline.search.space import Dimension, Kind, own_values, space
from vmunet.errors import InputError
from vmunet.settings import TrainSettings

FOLDER = Path(".search")
VERSION = 1  # changes if a trial's values or loss get another meaning
REDUCTION = 3  # Hyperband: a third of the trials continues at each step

optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


@dataclass(frozen=True)
class StudyFacts:
    """The facts that all trials of a study share; trials with other facts are not comparable.

    Attributes:
        version: `VERSION` when the study was made.
        profile, view, cell, protocol: names.
        epochs: the epochs of a complete trial.
        seed: the seed of every trial's training and of the search's draws.
        settings: the settings of the cell and of the profile, before a trial varies them.
        data: SHA-256 of the training arrays, and of the initial weights.
        kind: images or volumes.
        space: the dimensions of the search space.
    """

    version: int
    profile: str
    view: str
    cell: str
    protocol: ProtocolName
    epochs: int
    seed: int
    settings: dict[str, Any]
    data: str
    kind: Kind
    space: list[dict[str, Any]]

    @property
    def dimensions(self) -> list[Dimension]:
        return [Dimension(**entry) for entry in self.space]


def study_facts(
    params: Params, view: str, cell: str, protocol: ProtocolName, epochs: int | None
) -> StudyFacts:
    """The facts of a study of this view and cell, from the present params and data.

    Raises:
        InputError: a name is unknown, or data or weights are missing.
    """
    searched, data = params.cell(cell), search_data(params, view, protocol)
    budget = budget_of(params, data.kind)
    weights = initial_files(searched).values()
    parts = [data.hash()] + ([hash_files(weights)] if weights else [])
    settings = {
        "cell": searched.model_dump(exclude_none=True),
        "train": asdict(searched.settings(budget)),
    }
    return StudyFacts(
        version=VERSION,
        profile=params.profile_name,
        view=view,
        cell=cell,
        protocol=protocol,
        epochs=epochs or budget.epochs,
        seed=params.grid.seeds[0],
        settings=json.loads(json.dumps(settings)),  # lists instead of tuples, as in the journal
        data=" ".join(parts),
        kind=data.kind,
        space=[asdict(dimension) for dimension in space(data.kind, protocol, searched, budget)],
    )


def budget_of(params: Params, kind: Kind) -> TrainSettings:
    return params.profile.train if kind == "images" else params.profile.train_volumes


class SeededTPE(BaseSampler):
    """TPE whose draws depend only on the seed, the trial's number and the trials before it.

    Parallel processes draw different values, and a resumed study draws the same values as one that
    was not interrupted.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._number, self._tpe = -1, TPESampler()

    def _of(self, trial: FrozenTrial) -> TPESampler:
        if trial.number != self._number:
            seed = (self._seed * 1_000_003 + trial.number) % 2**32
            self._number, self._tpe = trial.number, TPESampler(seed=seed)
        return self._tpe

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self._of(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._of(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        return self._of(trial).sample_independent(study, trial, param_name, param_distribution)


class SharedStudy:
    """A study in its journal.

    Args:
        name: the study's name.
        facts: the facts that the study must have; None accepts those in the journal.

    Raises:
        InputError: the name cannot be a file's name, or the journal is damaged or has other facts.
    """

    def __init__(self, name: str, facts: StudyFacts | None = None, root: Path = Path(".")) -> None:
        if not name or not all(c.isalnum() or c in "-_." for c in name) or name[0] == ".":
            raise InputError(f"--study {name}: expected letters, digits, '-', '_' and '.'")
        self.name, self.journal, self.folder = (
            name,
            root / FOLDER / f"{name}.log",
            root / FOLDER / name,
        )
        if facts is None and not self.journal.is_file():
            raise InputError(f"{self.journal}: there is no such study")
        self.storage = open_journal(self.journal)
        self.worker = uuid.uuid4().hex
        for part in ("workers", "logs", "states"):
            (self.folder / part).mkdir(parents=True, exist_ok=True)
        with self.locked():
            self.study = optuna.create_study(
                storage=self.storage, study_name=name, direction="minimize", load_if_exists=True
            )
            self.facts = self._settle(facts)
        self.study.sampler = SeededTPE(self.facts.seed)
        self.study.pruner = HyperbandPruner(1, self.facts.epochs, REDUCTION)

    def _settle(self, facts: StudyFacts | None) -> StudyFacts:
        """Write the facts to a new study, or compare them with those of an existing one."""
        known = self.study.user_attrs.get("facts")
        if known is None:
            if facts is None or self.study.get_trials(deepcopy=False):
                raise InputError(
                    f"{self.journal}: a study that this command did not make; give --study "
                    "another name"
                )
            self.study.set_user_attr("facts", asdict(facts))
            return facts
        if known.get("version") == VERSION and facts is None:
            return StudyFacts(**known)
        wanted = asdict(facts) if facts else {"version": VERSION}
        for key, value in wanted.items():
            if known.get(key) != value:
                raise InputError(differs(self.name, key, known.get(key), value))
        return StudyFacts(**known)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the study's lock: one process at a time counts, draws and returns trials."""
        with open(self.folder / "lock", "a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @cached_property
    def life(self) -> int:
        """The descriptor of this process's locked file; its trials' commands inherit it."""
        path = self.folder / "workers" / self.worker
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return descriptor

    def leave(self) -> None:
        """End this process's work on the study."""
        os.close(self.life)
        (self.folder / "workers" / self.worker).unlink(missing_ok=True)

    def enqueue_own(self, params: Params) -> bool:
        """Let a new study start with the cell's own settings; False if the space lacks them."""
        facts = self.facts
        budget = budget_of(params, facts.kind)
        values = own_values(facts.dimensions, params.cell(facts.cell), budget, facts.kind)
        with self.locked():
            if values and not self.study.get_trials(deepcopy=False):
                self.study.enqueue_trial(values, user_attrs={"own": True})
        return bool(values)

    def claim(self, total: int) -> int | None:
        """Draw a new trial and return its number; None if `total` trials are done or running."""
        with self.locked():
            self.revive()
            counted = [t for t in self.trials() if t.state.is_finished() or running(t)]
            if len([t for t in counted if not t.user_attrs.get("interrupted")]) >= total:
                return None
            trial = self.study.ask()
            trial.set_user_attr("worker", self.worker)
            for dimension in self.facts.dimensions:
                trial.suggest_float(
                    dimension.name,
                    dimension.low,
                    dimension.high,
                    step=dimension.step,
                    log=dimension.step is None,
                )
            return trial.number

    def revive(self) -> None:
        """Queue the trials of killed processes again; the caller must hold the lock."""
        for trial in self.trials():
            if running(trial) and not self._alive(trial.user_attrs.get("worker", "")):
                self._give_back(trial)

    def give_back(self, number: int) -> None:
        """Queue a stopped trial again."""
        with self.locked():
            self._give_back(self.trial(number))

    def _give_back(self, trial: FrozenTrial) -> None:
        self.storage.set_trial_user_attr(trial._trial_id, "interrupted", True)
        self.study.tell(trial.number, state=TrialState.FAIL)
        if len(trial.params) == len(self.facts.space):  # else it was killed before all were drawn
            kept = {key: v for key, v in trial.user_attrs.items() if key == "own"}
            first = trial.user_attrs.get("again", trial.number)
            self.study.enqueue_trial(trial.params, user_attrs=kept | {"again": first})

    def _alive(self, worker: str) -> bool:
        path = self.folder / "workers" / worker
        if worker == self.worker:
            return True
        try:
            with open(path, "r+") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        path.unlink(missing_ok=True)
        return False

    def fail(self, number: int, reason: str) -> None:
        """Record that a trial failed."""
        self.storage.set_trial_user_attr(self.trial(number)._trial_id, "reason", reason)
        self.study.tell(number, state=TrialState.FAIL)

    def attach(self, number: int) -> Trial:
        """A running trial, for a process that reports to it but did not draw it."""
        return Trial(self.study, self.trial(number)._trial_id)

    def trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def trial(self, number: int) -> FrozenTrial:
        """The trial as it is now.

        Raises:
            InputError: no trial has this number.
        """
        trials = self.trials()
        if not 0 <= number < len(trials):
            raise InputError(f"study {self.name} has no trial {number}")
        return trials[number]

    def best(self) -> FrozenTrial | None:
        """The trial with the lowest loss of those that ended well; None if none did."""
        complete = [t for t in self.trials() if t.state is TrialState.COMPLETE]
        return min(complete, key=lambda t: t.value or 0.0, default=None)


def running(trial: FrozenTrial) -> bool:
    return trial.state is TrialState.RUNNING


DIFFERENT: Mapping[str, str] = {
    "space": "over another search space",
    "data": "on other training data or initial weights",
    "settings": "with other settings of the cell or the profile",
    "version": "of another version",
}


def differs(name: str, key: str, known: Any, wanted: Any) -> str:
    """The message that says why a study cannot continue."""
    how = DIFFERENT.get(key, f"for {key} {known}, not {wanted}")
    return f"study {name} was made {how}; its trials cannot be compared: give --study another name"
