"""The tracking store: its client, its experiments, and its errors in one sentence."""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pipeline.passwords import without_password
from pipeline.tracking.moved import bring_home
from vmunet.files import make_private

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

T = TypeVar("T")

STORE = Path("mlflow.db")
ARTIFACTS = Path("mlartifacts")
HTTP_SECONDS = 5  # MLflow itself would wait 7 times for 120 s at the end of a stage
ATTEMPT_SECONDS = 60.0  # enough to send a model of 110 MB to a server
DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    # The bar would appear between the lines of a stage.
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
UNUSABLE = (
    ("out-of-date database schema", "was made by an older MLflow; make a copy of it, then run"),
    ("Can't locate revision", "was made by a newer MLflow than the one installed here"),
    ("Max retries exceeded", "does not answer"),
)


def client(http_seconds: int = HTTP_SECONDS) -> "MlflowClient":
    """A client of the tracking store; the first call in a new clone makes the store.

    Args:
        http_seconds: the time to wait for a server's answer, if MLFLOW_HTTP_REQUEST_TIMEOUT is not
            set.
    """
    be_quiet()
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(http_seconds))
    from mlflow.tracking import MlflowClient

    uri = store_uri()
    if not uri.startswith("http"):
        from mlflow.store.db import utils

        utils.MAX_RETRY_COUNT = 1  # MLflow would try for two minutes to open a database
    if not os.environ.get("MLFLOW_TRACKING_URI") and not STORE.exists():
        from filelock import FileLock

        # The first client of a store makes its tables; two at once, or a kill, would break it.
        with FileLock(f"{STORE}.lock"):
            if not STORE.exists():
                from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

                new = STORE.with_name(f"{STORE.name}.new")
                new.unlink(missing_ok=True)
                make_private(new)
                # As an address: MLflow fails at a quote in the path of its own experiment.
                SqlAlchemyStore(sqlite_uri(new), Path("mlruns").absolute().as_uri())
                os.replace(new, STORE)
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        bring_home(STORE, ARTIFACTS)
    return MlflowClient(uri)


def be_quiet() -> None:
    """Keep MLflow's bars and messages off the terminal: `warn` reports a failure in one line."""
    for noisy in ("alembic", "mlflow.store.db.utils", "mlflow.pyfunc"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)


def store_uri() -> str:
    """The address of the store that runs are logged to."""
    return os.environ.get("MLFLOW_TRACKING_URI") or sqlite_uri(STORE)


def sqlite_uri(path: Path, driver: str = "sqlite") -> str:
    """The address of a database file, for programs that run in the working directory.

    It is absolute, unless a folder's name has a % or a ?: these have a meaning in an address, and
    MLflow and SQLAlchemy do not agree how to escape them.

    Args:
        path: the file, relative to the working directory.
    """
    full = str(path.absolute())
    return f"{driver}:///{path if '%' in full or '?' in full else full}"


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
    except MlflowException:  # another process has just made it
        experiment = mlflow.get_experiment_by_name(name)
        if experiment is None:
            raise
        return experiment.experiment_id


def explain(error: BaseException) -> str:
    """The store's error in one line, and how to repair it if that is known."""
    text = without_password(" ".join(str(error).split()))
    for sign, meaning in UNUSABLE:
        if sign in text:
            uri = without_password(store_uri())
            shown = uri.removeprefix("sqlite:///") if uri.startswith("sqlite:///") else uri
            how = f" `mlflow db upgrade {uri}`" if "older" in meaning else ""
            return f"{shown} {meaning}{how}"
    return f"{without_password(store_uri())}: {text[:200] or type(error).__name__}"


def warn(name: str, reason: str) -> None:
    """Print a warning in one line: something was not logged."""
    print(f"warning: {name}: {reason}", file=sys.stderr)


def attempt(name: str, loss: str, work: Callable[[], T]) -> T | None:
    """Return the result of `work`; if it fails or takes too long, warn in one line, return None.

    `work` runs in a daemon thread, because a database's driver may wait for minutes if the database
    does not answer.

    Args:
        name: the subject of the warning.
        loss: the consequence of a failure for the user.
        work: uses the store.
    """
    results: list[T] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            results.append(work())
        except Exception as error:  # of a database, a server or the file system
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
    """The present time in MLflow's unit."""
    return int(time.time() * 1000)
