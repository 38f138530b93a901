"""A run of MLflow that is no training run of the grid: a search, or one of its trials."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pipeline.tracking.outbox import RunHeader
from pipeline.tracking.run import Ticket
from pipeline.tracking.sender import Sender
from pipeline.tracking.sweeps import page_tag


class PlainRun:
    """Parameters, tags and metrics under a name.

    Args:
        experiment: the experiment's name: the profile's.
        name: the run's.
        params, tags: flat.
        run_id: a run to go on in, whatever process began it; empty starts a new one.
    """

    def __init__(
        self,
        experiment: str,
        name: str,
        params: Mapping[str, Any],
        tags: Mapping[str, str],
        run_id: str = "",
    ) -> None:
        # A key of its own, for several processes may log to one run.
        ticket = replace(Ticket.read(""), run_id=run_id)
        self._sender = Sender(
            RunHeader(
                experiment=experiment,
                name=name,
                key=ticket.key,
                started=ticket.started,
                params=params,
                tags={**tags, **page_tag()},
                run_id=ticket.run_id,
            )
        )

    @property
    def run_id(self) -> str:
        """The MLflow run's id; empty until the store has answered."""
        return self._sender.run_id

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Log metrics; an epoch's, which have a train_loss, once only."""
        values = {key: float(value) for key, value in metrics.items()}
        self._sender.add("metrics", epoch="train_loss" in values, step=step, metrics=values)

    def finish(self, status: str = "FINISHED") -> None:
        """Close the run, FINISHED, FAILED or KILLED, and wait until all is sent or cannot be."""
        self._sender.finish(status)
