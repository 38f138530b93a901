"""The MLflow run of a training run: what run.json says of it, and an epoch at a time."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.tracking.outbox import RunHeader
from pipeline.tracking.sender import Sender
from pipeline.tracking.store import milliseconds
from pipeline.tracking.sweeps import parent_tags
from pipeline.tracking.system import Gauge, processor_name, system_sampler

SECTIONS = ("cell", "train", "protocol")  # of run.json: they become parameters
TAGS = ("data_hash", "weights_hash", "code_hash", "git", "dvc_lock", "device", "micro_batch")


@dataclass(frozen=True)
class Ticket:
    """How a run finds its MLflow run again: as text it is kept in the resume state."""

    key: str
    started: int
    run_id: str = ""

    @classmethod
    def read(cls, text: str) -> "Ticket":
        """The ticket that `str` made; a new one of ''."""
        if not text:
            return cls(uuid.uuid4().hex, milliseconds())
        key, started, *run_id = text.split()
        return cls(key, int(started), *run_id)

    def __str__(self) -> str:
        return f"{self.key} {self.started} {self.run_id}".rstrip()


def header_of(
    record: Mapping[str, Any],
    ticket: Ticket,
    tables: str,
    history: Sequence[Mapping[str, float]],
    ended: int | None = None,
) -> RunHeader:
    """The MLflow run of a run.

    Args:
        record: run.json, or what is known of it at the start.
        ticket: how it is found.
        tables: those that show it, as a tag.
        history: its epochs, for a store that does not know it.
        ended: when it ended, ms.
    """
    run = record["run"]
    tags = {**run, **{name: record.get(name) for name in TAGS}, "tables": tables}
    return RunHeader(
        experiment=run["profile"],
        name=f"{run['view']}-{run['cell']}-{run['protocol']}-{run['seed']}",
        key=ticket.key,
        started=ticket.started,
        params={f"{s}.{k}": v for s in SECTIONS for k, v in record[s].items()},
        tags={name: str(value) for name, value in tags.items() if value not in (None, "")},
        run_id=ticket.run_id,
        history=list(history),
        ended=ended,
    )


class RunTracker:
    """Logs a training run while it trains.

    Args:
        record, ticket, tables, history: see `header_of`; of a resumed run the ticket that it had,
            and the epochs that it has behind it.
        gauge: further system metrics.
    """

    def __init__(
        self,
        record: Mapping[str, Any],
        ticket: Ticket,
        tables: str,
        history: Sequence[Mapping[str, float]],
        gauge: Gauge | None = None,
    ) -> None:
        header = header_of(record, ticket, tables, history)
        tags = {**header.tags, "processor": processor_name(), **parent_tags()}
        header = replace(header, tags=tags)
        self._ticket = ticket
        self._sender = Sender(header, sample=system_sampler(gauge))

    @property
    def ticket(self) -> Ticket:
        """The run's ticket, with the MLflow run's id as soon as the store has answered."""
        run_id = self._sender.run_id or self._ticket.run_id
        return Ticket(self._ticket.key, self._ticket.started, run_id)

    def log(self, row: Mapping[str, float]) -> None:
        """Log a row of the history."""
        step = int(row["epoch"])
        metrics = {key: float(value) for key, value in row.items() if key != "epoch"}
        self._sender.add("metrics", epoch=True, step=step, metrics=metrics)

    def finish(self, status: str = "FINISHED") -> None:
        """Close the run, FINISHED, FAILED or KILLED, and wait until all is sent or cannot be."""
        self._sender.finish(status)
