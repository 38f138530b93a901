"""The tracking store: a client of it, its experiments, and its errors in a sentence."""

import logging
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

STORE = Path("mlflow.db")
ARTIFACTS = Path("mlartifacts")
# MLflow's own patience (120 s, 7 times) would hold up the end of a stage for a quarter of an hour;
# what fails is tried again by the outbox. And it would write between the lines of a stage.
DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
UNUSABLE = (
    ("out-of-date database schema", "was made by an older MLflow; make a copy of it, then run"),
    ("Can't locate revision", "was made by a newer MLflow than the one installed here"),
    ("Max retries exceeded", "does not answer"),
)


def client() -> "MlflowClient":
    """A client of the tracking store, which is made at the first call on a new clone."""
    for noisy in ("alembic", "mlflow.store.db.utils", "mlflow.pyfunc"):  # a new store's migrations
        logging.getLogger(noisy).setLevel(logging.WARNING)
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    from mlflow.tracking import MlflowClient

    uri = store_uri()
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
    """The experiment of this name, made when it is new."""
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
    """What went wrong with the store, in one line, and where it can be mended how."""
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


def milliseconds() -> int:
    """Now, as MLflow counts time."""
    return int(time.time() * 1000)
