"""What the tests of the tables share."""

import pytest

from tests.helpers.tables import prepare


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A root with the real declarations of reports/ and a stand-in for the model's cost."""
    prepare(tmp_path, monkeypatch.setitem)
    return tmp_path
