"""Which tables show a run: one answer for the tables themselves, for sweeps and for tracking."""

import pytest

from reports.make.results.views import runs_of_tables, tables_of
from tests.helpers.tables import (
    Run,
    all_runs,
    copy_declarations,
    made,
    make_params,
    prepare,
    rows_of,
    write_metrics,
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("declarations")
    copy_declarations(root)
    return root


@pytest.mark.parametrize(
    ("view", "cell", "tables"),
    [
        ("isic17-64", "base", ["I", "III", "IV", "V", "VI"]),
        ("isic18-64", "scratch", ["I", "III"]),
        ("isic17-96", "base", ["VI"]),
        ("isic17-96", "scratch", []),  # no table shows an ablation at another size
        ("synapse-64", "base", ["II"]),
        ("synapse-96", "base", []),  # Table II shows the smallest view
        ("isic17-64", "mine", []),
        ("polyps", "base", []),  # a person's own dataset: no table declares it
    ],
)
def test_tables_of_a_run(root, view, cell, tables):
    params = make_params(volumes=(96, 64))
    for protocol in ("paper", "sound"):
        assert tables_of(Run(view, cell, protocol, 42), params, root) == tables


def test_without_declared_tables_there_are_none(tmp_path):
    run = Run("isic17-64", "base", "paper", 42)
    assert tables_of(run, make_params(), tmp_path) == []
    assert runs_of_tables([run], make_params(), tmp_path) == {}


def test_the_tables_show_exactly_these_runs(tmp_path, monkeypatch):
    prepare(tmp_path, monkeypatch.setitem)
    params = make_params(volumes=(64,))
    runs = all_runs(params, seeds=(1, 2))
    write_metrics(tmp_path, params, runs)
    folder = made(tmp_path, params, runs)
    for number, names in enumerate(runs_of_tables(runs, params, tmp_path).values(), 1):
        rows = rows_of(folder, f"table{number}")
        shown = {name for row in rows for name in row["runs"].split(";") if name}
        assert shown == set(names)
