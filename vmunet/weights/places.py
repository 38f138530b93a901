"""Where weights are: a path, an address of the web, or a model of MLflow. Each becomes a path."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from vmunet.errors import InputError
from vmunet.weights.remote import download

WEB = ("https://", "http://")
MLFLOW = ("models:/", "runs:/")
# In a clone `fetch` of pipeline/tracking/fetch.py answers for MLflow. It is imported by name,
# because the library must not depend on the tools that run it.
PIPELINE, FETCH = "pipeline", ".tracking.fetch"


@contextmanager
def local(place: Path | str) -> Iterator[Path]:
    """The path of weights, or of a folder of weights; a fetched one stays for this block alone.

    Args:
        place: see `vmunet.inference.predictor.Predictor.from_checkpoint`.

    Raises:
        InputError: it cannot be fetched. An InputError of the block that names the fetched file
            names `place` instead.
    """
    text = str(place)
    if not text.startswith((*WEB, *MLFLOW)):
        yield Path(place)
        return
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = download(text) if text.startswith(WEB) else _from_mlflow(text, Path(folder))
        try:
            yield path
        except InputError as error:
            raise InputError(str(error).replace(str(path), text)) from None


def _from_mlflow(uri: str, folder: Path) -> Path:
    try:
        pipeline = import_module(FETCH, PIPELINE)
        return pipeline.fetch(uri, folder)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in (PIPELINE, "mlflow"):
            raise
        raise InputError(
            f"{uri}: a model of MLflow needs the pipeline, a clone of the repository and in it pip "
            "install -e '.[pipeline]'; or give the path of a .safetensors file"
        ) from None
