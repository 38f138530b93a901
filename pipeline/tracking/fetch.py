"""The weights of a model that is in MLflow's store, for `Predictor.from_checkpoint`."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.passwords import without_password
from pipeline.tracking.store import STORE, client, explain, store_uri
from vmunet.errors import InputError

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

WEIGHTS = "artifacts/weights.safetensors"  # in a model's folder (pipeline/tracking/models.py)


def fetch(uri: str, folder: Path) -> Path:
    """Bring a model's weights into `folder` and return their path.

    Args:
        uri: `models:/NAME/VERSION`, `models:/NAME@ALIAS`, `models:/m-ID`, or `runs:/ID` with
            anything behind it: a run has one model, of which the newest version is taken.

    Raises:
        InputError: there is no store, it does not answer, or it has no such model.
    """
    if not os.environ.get("MLFLOW_TRACKING_URI") and not STORE.is_file():
        raise InputError(
            f"{uri}: no {STORE} in this folder; run in the repository's root, or set "
            "MLFLOW_TRACKING_URI to the store"
        )
    mlflow = client()
    from mlflow.artifacts import download_artifacts

    try:
        place = mlflow.get_logged_model(_model_id(mlflow, uri)).artifact_location
        brought = download_artifacts(
            artifact_uri=f"{place}/{WEIGHTS}", dst_path=str(folder), tracking_uri=store_uri()
        )
    except InputError:
        raise
    except Exception as error:  # of a database, a server or the file system
        raise InputError(f"{uri}: not in the store, or unreadable ({explain(error)})") from None
    return Path(brought)


def _model_id(mlflow: "MlflowClient", uri: str) -> str:
    """The id of the logged model that a URI names."""
    if match := re.fullmatch(r"runs:/(\w+)(/.*)?", uri):
        versions = mlflow.search_model_versions(f"run_id = '{match[1]}'")
        if not versions:
            raise InputError(
                f"{uri}: this run has no model in {without_password(store_uri())}; "
                "`vmunet mlflow rebuild` logs the models of runs/"
            )
        version = max(versions, key=lambda one: int(one.version))
    elif match := re.fullmatch(r"models:/(m-\w+)", uri):
        return match[1]
    elif match := re.fullmatch(r"models:/([^/@]+)/(\d+)", uri):
        version = mlflow.get_model_version(match[1], match[2])
    elif match := re.fullmatch(r"models:/([^/@]+)@([^/@]+)", uri):
        version = mlflow.get_model_version_by_alias(match[1], match[2])
    else:
        raise InputError(
            f"{uri}: expected models:/NAME/VERSION, models:/NAME@ALIAS or runs:/ID, as `vmunet ui` "
            "shows them"
        )
    return version.model_id or (version.source or "").removeprefix("models:/")
