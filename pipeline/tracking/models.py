"""A run's weights as a model of MLflow's registry: a pyfunc with signature and input example.

The registered model is called `<view>-<cell>-<protocol>`. Each training of each seed is a version,
and the alias `seed-<seed>` points to a seed's newest version. Nothing is pickled: the model is a
script (pipeline/tracking/pyfunc_model.py) and the safetensors file, which describes itself. The
serving machine needs this project installed; with a copy of the sources in every model, the CPU
kernels would be compiled again for each model.

In a store on this machine the weights are a hard link to the run's file, and need no space until
DVC removes that file. A server gets a copy. So models are logged unless VMUNET_MLFLOW_MODEL is 0.
"""

import base64
import hashlib
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

from pipeline.provenance import ROOT
from pipeline.tracking.store import warn

if TYPE_CHECKING:
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

SWITCH = "VMUNET_MLFLOW_MODEL"
SCRIPT = ROOT / "pipeline" / "tracking" / "pyfunc_model.py"
REQUIREMENTS = (
    "vmunet",
    "mlflow",
    "torch",
    "numpy",
    "numba",
    "pandas",
    "scipy",
    "safetensors",
    "opencv-python-headless",
    "nibabel",
    "tqdm",
)
WINDOWS = ("monai",)  # what a model of three dimensions needs too


def log_model(mlflow: "MlflowClient", run_id: str, run: Mapping[str, Any], folder: Path) -> bool:
    """Log and register a run's model, unless the MLflow run has it or models are switched off.

    Args:
        run: view, cell, protocol and seed.
        folder: the folder of the weights; without weights nothing is logged.

    Returns:
        Whether a model was logged.
    """
    from mlflow.exceptions import MlflowException

    weights = folder / "weights.safetensors"
    if os.environ.get(SWITCH) == "0" or not weights.is_file():
        return False
    name, sha256 = f"{run['view']}-{run['cell']}-{run['protocol']}", hash_of(weights)
    tags = {"seed": str(run["seed"]), "weights": sha256}
    versions = mlflow.search_model_versions(f"name = '{name}'")
    if any(v.run_id == run_id and v.tags.get("weights") == sha256 for v in versions):
        return False
    experiment = mlflow.get_run(run_id).info.experiment_id
    try:
        model = mlflow.create_logged_model(experiment, name=name, source_run_id=run_id, tags=tags)
    except MlflowException as error:
        if not _is_unknown(error):
            raise
        _warn_of_old_server(name)
        return False
    with tempfile.TemporaryDirectory() as temporary:
        model_folder = Path(temporary, "model")
        write_model(model_folder, weights, run_id, model.model_id)
        (model_folder / "artifacts" / weights.name).unlink()
        place = urlparse(model.artifact_location)
        if place.scheme in ("", "file"):
            _place(model_folder, weights, Path(unquote(place.path)))
        else:
            shutil.copy(weights, model_folder / "artifacts" / weights.name)
            mlflow.log_model_artifacts(model.model_id, str(model_folder))
    mlflow.finalize_logged_model(model.model_id, "READY")
    _register(mlflow, name)
    new_version = mlflow.create_model_version(
        name,
        source=f"models:/{model.model_id}",
        run_id=run_id,
        tags=tags,
        await_creation_for=0,
        model_id=model.model_id,
    )
    mlflow.set_registered_model_alias(name, f"seed-{run['seed']}", new_version.version)
    return True


def _is_unknown(error: "MlflowException") -> bool:
    """Whether the server lacks what was asked for, as MLflow 2 and some managed servers do."""
    codes = ("ENDPOINT_NOT_FOUND", "NOT_IMPLEMENTED")
    return error.error_code in codes or "failed with error code 405" in str(error)


@cache
def _warn_of_old_server(name: str) -> None:
    warn(name, "the MLflow server knows no models of runs (MLflow 3 does): no model is logged")


def hash_of(path: Path) -> str:
    """SHA-256 of a file's content, the same value as in metrics.json."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_model(
    folder: Path, weights: Path, run_id: str | None = None, model_id: str | None = None
) -> None:
    """Write a model's folder as MLflow loads it, with an empty file in place of the weights.

    Args:
        folder: the new folder; the stand-in is `artifacts/<the weights' name>` in it.
        weights: a checkpoint; its header says what the model takes and gives.
        run_id, model_id: the model's ids in a store; None outside of one.
    """
    import pandas as pd
    from mlflow.models import Model
    from mlflow.models.signature import ModelSignature
    from mlflow.pyfunc import save_model
    from mlflow.types import ColSpec, DataType, Schema

    from pipeline.tracking.store import be_quiet
    from vmunet.inference.served import Segmenter, example

    be_quiet()
    segmenter = Segmenter(weights, "cpu")
    input_name, output_name = ("volume", "labels") if segmenter.volumes else ("image", "mask")
    numbers = [ColSpec(DataType.double, name) for name in segmenter.amounts]
    text = base64.b64encode(example(segmenter.volumes)).decode()
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
        stand_in = Path(place, weights.name)  # save_model copies
        stand_in.touch()
        warnings.simplefilter("ignore")  # MLflow warns about its own type hints and about pandas
        save_model(
            folder,
            python_model=str(SCRIPT),
            artifacts={"weights": str(stand_in)},
            mlflow_model=Model(run_id=run_id, model_id=model_id),
            signature=ModelSignature(
                inputs=Schema([ColSpec(DataType.string, input_name)]),
                outputs=Schema([ColSpec(DataType.string, output_name), *numbers]),
            ),
            input_example=pd.DataFrame({input_name: [text]}),
            pip_requirements=list(_requirements(WINDOWS if segmenter.windows else ())),
        )


def _requirements(more: Iterable[str]) -> Iterator[str]:
    for name in (*REQUIREMENTS, *more):
        try:
            yield f"{name}=={version(name).split('+')[0]}"
        except PackageNotFoundError:
            continue


def _place(folder: Path, weights: Path, target: Path) -> None:
    """Copy a model's folder to the local folder of its artifacts, and link its weights there."""
    shutil.copytree(folder, target, dirs_exist_ok=True)
    linked = target / "artifacts" / weights.name
    linked.unlink(missing_ok=True)
    try:
        os.link(weights.resolve(), linked)
    except OSError:  # another file system
        shutil.copy(weights, linked)


def _register(mlflow: "MlflowClient", name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        mlflow.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
