"""What a run has to tell MLflow, in a file until it is sent.

A line of `.mlflow-outbox/<run>-<key>.jsonl` is one thing to send. The first describes the run
itself; the others are epochs, metrics, tags, files, the model, and the run's end. How many lines
were sent, and the run's id, stand in the `.sent` file beside it; both go when all is sent. Sending
a line twice, because a process died in between, changes nothing: a metric keeps its time stamp, an
epoch that the run has is left out, and the run is found by its key, which is its tag `key`.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.tracking.store import experiment_id

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

OUTBOX = Path(".mlflow-outbox")
KEY = "key"  # the tag by which a run is found where its id is not known
MOST_METRICS = 1000  # that MLflow takes at once
WAIT_SECONDS = 30
# What a store answers when it will never take a thing, as opposed to not now.
REFUSALS = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "INVALID_STATE", "BAD_REQUEST")
Entry = dict[str, Any]


@dataclass(frozen=True)
class RunHeader:
    """A run of MLflow.

    Attributes:
        experiment: the experiment's name: the profile's.
        name: the run's name.
        key: what identifies it, whatever store it is in.
        started: when it started, ms.
        params: parameters, flat.
        tags: provenance.
        run_id: its id where it is known; a store that has no such run, nor its key, gets a new one.
        history: rows an epoch that a new run gets at once.
        ended: when it ended, ms; None for one that goes on.
    """

    experiment: str
    name: str
    key: str
    started: int
    params: Mapping[str, Any]
    tags: Mapping[str, str]
    run_id: str = ""
    history: Sequence[Mapping[str, float]] = field(default_factory=list)
    ended: int | None = None


class Outbox:
    """The file of one run, and the sending of it.

    One process at a time holds a file, by a lock that ends with it.
    """

    def __init__(self, path: Path) -> None:
        """Raises filelock.Timeout where another process sends it for long."""
        from filelock import FileLock

        self.path = path
        self._sent_path = path.with_suffix(".sent")
        path.parent.mkdir(parents=True, exist_ok=True)
        # taken by the stage, released by the thread that sends
        self._lock = FileLock(path.with_suffix(".lock"), thread_local=False)
        self._lock.acquire(timeout=WAIT_SECONDS)
        self.refused: list[BaseException] = []
        self._run_id, self._sent = "", 0
        self._opened: RunHeader | None = None
        self._epochs: set[int] = set()
        if self._sent_path.exists():
            self._run_id, self._sent = json.loads(self._sent_path.read_text())

    @classmethod
    def of(cls, header: RunHeader) -> "Outbox":
        """The outbox of a run, with its description, after what an earlier process left."""
        from filelock import Timeout

        try:
            box = cls(OUTBOX / f"{header.name}-{header.key}.jsonl")
        except Timeout:
            box = cls(OUTBOX / f"{header.name}-{header.key}-{os.getpid()}.jsonl")
        box.append({"what": "run", **asdict(header)})
        return box

    @property
    def run_id(self) -> str:
        """The MLflow run's id; empty until the store has answered."""
        return self._run_id

    def append(self, entry: Entry) -> None:
        """Keep something to be sent."""
        line = json.dumps(entry) + "\n"
        with open(self.path, "a+b") as file:
            # a process that was killed may have left half a line
            if file.tell() and not _ends_line(file):
                line = "\n" + line
            file.write(line.encode())

    def waiting(self) -> list[Entry]:
        """What is not sent yet."""
        if not self.path.exists():
            return []
        lines = self.path.read_bytes().split(b"\n")[:-1]
        return [_parsed(line) for line in lines[self._sent :]]

    def send(self, mlflow: "MlflowClient", senders: Mapping[str, Callable[..., None]]) -> None:
        """Send all that waits, in order.

        Args:
            senders: for each further kind of entry, what sends it: (client, run id, entry).

        Raises:
            Exception: whatever the store raises; what was sent before is not sent again.
        """
        from mlflow.exceptions import MlflowException

        while entries := self.waiting():
            entry, count = entries[0], 1
            if entry.get("what") == "run":
                self._open(mlflow, RunHeader(**{k: v for k, v in entry.items() if k != "what"}))
            else:
                if entry.get("what") == "metrics":
                    count = _batch(entries)
                try:
                    self._send(mlflow, entries[:count], senders)
                except MlflowException as error:
                    if error.error_code not in REFUSALS:
                        raise
                    self.refused.append(error)
            self._sent += count
            self._note()

    def close(self) -> None:
        """Let go of the file, and remove it where nothing waits."""
        if not self.waiting():
            self.path.unlink(missing_ok=True)
            self._sent_path.unlink(missing_ok=True)
        self._lock.release()
        if not self.path.exists():
            self.path.with_suffix(".lock").unlink(missing_ok=True)

    def _send(
        self, mlflow: "MlflowClient", entries: list[Entry], senders: Mapping[str, Callable]
    ) -> None:
        entry = entries[0]
        what = str(entry.get("what"))
        if what == "metrics":
            self._send_metrics(mlflow, entries)
        elif what == "tags":
            mlflow.log_batch(self._run_id, tags=_tags(entry["tags"]))
        elif what == "end":
            mlflow.set_terminated(self._run_id, entry["status"], entry["time"])
        elif what in senders:
            senders[what](mlflow, self._run_id, entry)

    def _send_metrics(self, mlflow: "MlflowClient", entries: list[Entry]) -> None:
        from mlflow.entities import Metric

        values: list[Metric] = []
        epochs: set[int] = set()
        for entry in entries:
            if entry.get("epoch"):
                if entry["step"] in self._epochs | epochs:
                    continue  # redone after a kill
                epochs.add(entry["step"])
            values += [
                Metric(key, value, entry["time"], entry["step"])
                for key, value in entry["metrics"].items()
            ]
        if values:
            mlflow.log_batch(self._run_id, metrics=values)
        self._epochs |= epochs

    def _open(self, mlflow: "MlflowClient", header: RunHeader) -> None:
        """Find the run, or make it."""
        from mlflow.entities import Metric, Param

        experiment = experiment_id(mlflow, header.experiment)
        self._run_id = find_run(mlflow, experiment, header, self._run_id)
        tags = {**header.tags, KEY: header.key}
        if self._run_id:
            mlflow.log_batch(self._run_id, tags=_tags(tags))
            if header.ended is None:
                mlflow.update_run(self._run_id, status="RUNNING")
            past = mlflow.get_metric_history(self._run_id, "train_loss")
            self._epochs |= {metric.step for metric in past}
            return
        run = mlflow.create_run(
            experiment, start_time=header.started, run_name=header.name, tags=tags
        )
        run_id = run.info.run_id
        mlflow.log_batch(run_id, params=[Param(k, str(v)) for k, v in header.params.items()])
        for row in header.history:
            step = int(row["epoch"])
            values = [
                Metric(key, float(value), header.started, step)
                for key, value in row.items()
                if key != "epoch"
            ]
            mlflow.log_batch(run_id, metrics=values)
            self._epochs.add(step)
        if header.ended is not None:
            mlflow.set_terminated(run_id, "FINISHED", header.ended)
        self._run_id = run_id

    def _note(self) -> None:
        part = self._sent_path.with_suffix(".sent.part")
        part.write_text(json.dumps([self._run_id, self._sent]))
        os.replace(part, self._sent_path)


def find_run(mlflow: "MlflowClient", experiment: str, header: RunHeader, known: str = "") -> str:
    """The id of a run that is in the store and was not deleted there; '' where there is none."""
    from mlflow.exceptions import MlflowException

    for run_id in filter(None, (known, header.run_id)):
        try:
            info = mlflow.get_run(run_id).info
        except MlflowException as error:
            if error.error_code not in REFUSALS:
                raise
            continue
        if info.lifecycle_stage == "active":
            return run_id
    found = mlflow.search_runs([experiment], f"tags.{KEY} = '{header.key}'", max_results=1)
    return found[0].info.run_id if found else ""


def _tags(tags: Mapping[str, str]) -> list[Any]:
    from mlflow.entities import RunTag

    return [RunTag(key, str(value)) for key, value in tags.items()]


def _batch(entries: Sequence[Entry]) -> int:
    """How many of the first entries are metrics that fit into one call."""
    total = 0
    for count, entry in enumerate(entries):
        total += len(entry.get("metrics", ()))
        if entry.get("what") != "metrics" or (count and total > MOST_METRICS):
            return count
    return len(entries)


def _ends_line(file: Any) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def _parsed(line: bytes) -> Entry:
    try:
        entry = json.loads(line)
    except ValueError:  # half a line of a process that was killed
        return {}
    return entry if isinstance(entry, dict) else {}
