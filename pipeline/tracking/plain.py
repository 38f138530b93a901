"""An MLflow run that is not a training run of the grid: a search, or one of its trials."""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.tracking.header import RunHeader
from pipeline.tracking.live import LiveRun
from pipeline.tracking.store import milliseconds
from pipeline.tracking.sweeps import page_tag


class PlainRun(LiveRun):
    """An MLflow run with a name, parameters, tags and metrics.

    Args:
        experiment: the experiment's name, which is the profile's.
        name: the run's name.
        params, tags: not nested.
        run_id, history: see `LiveRun`. Several processes may log to one run.
        key: identifies the run, so that a restarted process continues it; without a key this is a
            new run.
    """

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
        key, tags = key or uuid.uuid4().hex, {**tags, **page_tag()}
        header = RunHeader(experiment, name, key, milliseconds(), params, tags)
        super().__init__(header, history, run_id=run_id)
