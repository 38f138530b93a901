"""The tracking store: a client of it, its experiments, and its errors in a sentence."""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

T = TypeVar("T")

STORE = Path("mlflow.db")
ARTIFACTS = Path("mlartifacts")
HTTP_SECONDS = 5  # MLflow's own patience (120 s, 7 times) would hold up the end of a stage
ATTEMPT_SECONDS = 60.0  # a model of 110 MB goes to a server in this time
DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    # it would write between the lines of a stage
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
UNUSABLE = (
    ("out-of-date database schema", "was made by an older MLflow; make a copy of it, then run"),
    ("Can't locate revision", "was made by a newer MLflow than the one installed here"),
    ("Max retries exceeded", "does not answer"),
)


def client(http_seconds: int = HTTP_SECONDS) -> "MlflowClient":
    """A client of the tracking store, which is made at the first call on a new clone.

    Args:
        http_seconds: how long to wait for an answer of a server, if MLFLOW_HTTP_REQUEST_TIMEOUT
            does not say.
    """
    for noisy in ("alembic", "mlflow.store.db.utils", "mlflow.pyfunc"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)  # `warn` says in a line what failed
    timeout = {"MLFLOW_HTTP_REQUEST_TIMEOUT": str(http_seconds)}
    for name, value in (DEFAULTS | timeout).items():
        os.environ.setdefault(name, value)
    from mlflow.tracking import MlflowClient

    uri = store_uri()
    if not uri.startswith("http"):
        from mlflow.store.db import utils

        utils.MAX_RETRY_COUNT = 1  # MLflow would try for two minutes to open a database
    if not os.environ.get("MLFLOW_TRACKING_URI") and not STORE.exists():
        from filelock import FileLock

        # The first client of a store makes its tables: two at once, or a kill, would break it.
        with FileLock(f"{STORE}.lock"):
            if not STORE.exists():
                new = STORE.with_name(f"{STORE.name}.new")
                new.unlink(missing_ok=True)
                MlflowClient(f"sqlite:///{new.absolute()}")
                os.replace(new, STORE)
    return MlflowClient(uri)


def store_uri() -> str:
    """Where runs go."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{STORE.absolute()}"


def experiment_id(mlflow: "MlflowClient", name: str) -> str:
    """The id of the experiment of this name, which is created if it is new."""
    from mlflow.exceptions import MlflowException

    experiment = mlflow.get_experiment_by_name(name)
    if experiment is not None:
        return experiment.experiment_id
    local = not os.environ.get("MLFLOW_TRACKING_URI")
    location = ARTIFACTS.absolute().as_uri() if local else None
    try:
        return mlflow.create_experiment(name, artifact_location=location)
    except MlflowException:  # another process made it in between
        experiment = mlflow.get_experiment_by_name(name)
        if experiment is None:
            raise
        return experiment.experiment_id


def explain(error: BaseException) -> str:
    """What went wrong with the store, in one line, and how to mend it if that is known."""
    text = " ".join(str(error).split())
    for sign, meaning in UNUSABLE:
        if sign in text:
            uri = store_uri()
            shown = uri.removeprefix("sqlite:///") if uri.startswith("sqlite:///") else uri
            how = f" `mlflow db upgrade {uri}`" if "older" in meaning else ""
            return f"{shown} {meaning}{how}"
    return f"{store_uri()}: {text[:200] or type(error).__name__}"


def warn(name: str, reason: str) -> None:
    """Say that something was not logged, in one line."""
    print(f"warning: {name}: {reason}", file=sys.stderr)


def attempt(name: str, loss: str, work: Callable[[], T]) -> T | None:
    """What `work` returns; if it fails or takes too long, None with a warning in one line.

    It runs in a daemon thread: a database's driver may wait for minutes for one that is away.

    Args:
        name: what the warning is about.
        loss: what the failure means for the user.
        work: talks to the store.
    """
    results: list[T] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            results.append(work())
        except Exception as error:  # a database's, a server's, the file system's
            errors.append(error)

    thread = threading.Thread(target=run, name="mlflow", daemon=True)
    thread.start()
    thread.join(ATTEMPT_SECONDS)
    if results:
        return results[0]
    late = TimeoutError(f"no answer within {ATTEMPT_SECONDS:g} s")
    warn(name, f"{loss} ({explain(errors[0] if errors else late)})")
    return None


def milliseconds() -> int:
    """Now, as MLflow counts time."""
    return int(time.time() * 1000)
