"""Before any test imports torch: the same environment as the stages have."""

from pathlib import Path

import pytest

import pipeline  # noqa: F401  (idle threads sleep, so that a busy machine does not crawl)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow store without runs: making one takes seconds, copying it none."""
    from pipeline.tracking.store import STORE, client

    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        client()
    return folder / STORE
