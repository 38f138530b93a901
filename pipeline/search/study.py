"""A study that several processes share: what it searches, who runs which trial, what is left.

`.search/<study>.log` is Optuna's journal; `.search/<study>/` holds logs, states of trials that
were interrupted, and a file for each process that works on the study, locked while it or one of
its trials lives. Optuna itself notices a dead process only with a database: here a running trial
whose process's file is not locked was killed, and is queued again with the same values.
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

from pipeline.config.params import Params
from pipeline.config.strict import ProtocolName
from pipeline.provenance import hash_files
from pipeline.search.data import search_data
from pipeline.search.journal import open_journal
from pipeline.search.space import Dimension, Kind, own_values, space
from vmunet.errors import InputError
from vmunet.settings import TrainSettings

FOLDER = Path(".search")
VERSION = 1  # of what the trials of a study mean
REDUCTION = 3  # Hyperband: a third goes on at each step

optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


@dataclass(frozen=True)
class Facts:
    """What all trials of a study have in common; trials of other facts are not comparable.

    Attributes:
        version: of the meaning of a trial.
        profile, view, cell, protocol: names.
        epochs: of a whole trial.
        seed: of every trial's training, and of the search's draws.
        settings: the cell's and the profile's, before anything is varied.
        data: SHA-256 of the arrays that train, and of the initial weights.
        space: the dimensions.
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


def facts_of(
    params: Params, view: str, cell: str, protocol: ProtocolName, epochs: int | None
) -> Facts:
    """What a study of this view and cell searches now.

    Raises:
        InputError: a name is unknown, or data or weights are missing.
    """
    own, data = params.cell(cell), search_data(params, view, protocol)
    budget = budget_of(params, data.kind)
    weights = Path("data/weights") / f"{own.init}.safetensors"
    if own.init != "none" and not weights.is_file():
        raise InputError(f"{weights}: not found; run `dvc repro weights` first")
    parts = [data.hash()] + ([hash_files([weights])] if own.init != "none" else [])
    settings = {"cell": own.model_dump(exclude_none=True), "train": asdict(own.settings(budget))}
    return Facts(
        version=VERSION,
        profile=params.profile_name,
        view=view,
        cell=cell,
        protocol=protocol,
        epochs=epochs or budget.epochs,
        seed=params.grid.seeds[0],
        settings=json.loads(json.dumps(settings)),  # as they come back: lists, no tuples
        data=" ".join(parts),
        kind=data.kind,
        space=[asdict(dimension) for dimension in space(data.kind, protocol, budget)],
    )


def budget_of(params: Params, kind: Kind) -> TrainSettings:
    return params.profile.train if kind == "images" else params.profile.train_volumes


class SeededTPE(BaseSampler):
    """TPE whose draws for a trial follow from the seed, its number and the trials before it.

    Parallel processes draw differently, and a study that is resumed goes on as if it had not been
    interrupted.
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
        name: of the study.
        facts: what it is to search; None takes what is in the journal.

    Raises:
        InputError: the name is no file's, the journal is damaged, or holds a study of other facts.
    """

    def __init__(self, name: str, facts: Facts | None = None, root: Path = Path(".")) -> None:
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

    def _settle(self, facts: Facts | None) -> Facts:
        """Write the facts into a new study, or compare them with an old one's."""
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
            return Facts(**known)
        wanted = asdict(facts) if facts else {"version": VERSION}
        for key, value in wanted.items():
            if known.get(key) != value:
                raise InputError(differs(self.name, key, known.get(key), value))
        return Facts(**known)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One process at a time counts, asks and gives back."""
        with open(self.folder / "lock", "a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @cached_property
    def life(self) -> int:
        """A descriptor of this process's file, locked; its trials' commands inherit it."""
        path = self.folder / "workers" / self.worker
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return descriptor

    def leave(self) -> None:
        """This process works on the study no more."""
        os.close(self.life)
        (self.folder / "workers" / self.worker).unlink(missing_ok=True)

    def enqueue_own(self, params: Params) -> bool:
        """Let a new study begin with the cell's own settings; False if the space lacks them."""
        facts = self.facts
        budget = budget_of(params, facts.kind)
        values = own_values(facts.dimensions, params.cell(facts.cell), budget, facts.kind)
        with self.locked():
            if values and not self.study.get_trials(deepcopy=False):
                self.study.enqueue_trial(values, user_attrs={"own": True})
        return bool(values)

    def claim(self, total: int) -> int | None:
        """The number of a new trial, its values drawn; None if `total` are done or running."""
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
        """Queue trials of killed processes again; only under the lock."""
        for trial in self.trials():
            if running(trial) and not self._alive(trial.user_attrs.get("worker", "")):
                self._give_back(trial)

    def give_back(self, number: int) -> None:
        """Queue a trial again that was stopped."""
        with self.locked():
            self._give_back(self.trial(number))

    def _give_back(self, trial: FrozenTrial) -> None:
        self.storage.set_trial_user_attr(trial._trial_id, "interrupted", True)
        self.study.tell(trial.number, state=TrialState.FAIL)
        if len(trial.params) == len(self.facts.space):  # else it was killed before it had them
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
        """A trial died."""
        self.storage.set_trial_user_attr(self.trial(number)._trial_id, "reason", reason)
        self.study.tell(number, state=TrialState.FAIL)

    def attach(self, number: int) -> Trial:
        """A running trial, to be reported to from another process than the one that drew it."""
        return Trial(self.study, self.trial(number)._trial_id)

    def trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def trial(self, number: int) -> FrozenTrial:
        """The trial as it is now.

        Raises:
            InputError: there is none of this number.
        """
        trials = self.trials()
        if not 0 <= number < len(trials):
            raise InputError(f"study {self.name} has no trial {number}")
        return trials[number]

    def best(self) -> FrozenTrial | None:
        """The trial with the lowest loss, if one came to its end."""
        whole = [t for t in self.trials() if t.state is TrialState.COMPLETE]
        return min(whole, key=lambda t: t.value or 0.0, default=None)


def running(trial: FrozenTrial) -> bool:
    return trial.state is TrialState.RUNNING


DIFFERENT: Mapping[str, str] = {
    "space": "over another search space",
    "data": "on other training data or initial weights",
    "settings": "with other settings of the cell or the profile",
    "version": "of another version",
}


def differs(name: str, key: str, known: Any, wanted: Any) -> str:
    """What keeps a study from going on."""
    how = DIFFERENT.get(key, f"for {key} {known}, not {wanted}")
    return f"study {name} was made {how}; its trials cannot be compared: give --study another name"
