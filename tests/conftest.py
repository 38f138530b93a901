"""Before any test imports torch: the same environment as the stages have."""

import signal
from pathlib import Path

import pytest

import pipeline  # noqa: F401  (idle threads sleep, so that a busy machine does not crawl)

# A shell's background job ignores SIGINT, and what the tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest modules first, so that none is left to one process at the end."""
    longest = ("test_pipeline", "test_search", "test_kills", "test_sweep")
    ranks = {name: rank for rank, name in enumerate(longest)}
    items.sort(key=lambda item: ranks.get(item.path.stem, len(longest)))


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


@pytest.fixture(autouse=True)
def own_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--max-pixels` of a command in this process holds for no other test."""
    for name in ("VMUNET_MAX_PIXELS", "VMUNET_MAX_VOXELS"):
        monkeypatch.setenv(name, "")  # what a test sets later is undone too
        monkeypatch.delenv(name)
