"""The statement of reproduction: its numbers, and the runs of which nothing is said."""

import json

import numpy as np
import pytest
import scipy.stats

from reports.make.results.views import load_yaml
from reports.make.tables.agreement import agreed, agreement_data, agreement_sheet
from reports.make.tables.comparison import compared
from reports.make.tables.inputs import SPLITS, read_inputs
from reports.make.tables.rows import Assembler
from tests.helpers.paths import ROOT
from tests.helpers.tables import Run, copy_declarations, make_params, metrics_file, sound_scores
from tests.helpers.tables import write as write_run
from vmunet.errors import InputError

PAPER = {
    "sizes": (256, 384),
    "source": "http",
    "dims": (96, 192, 384, 768),
    "epochs": 300,
    "batch_size": 32,
}
SEEDS = (42, 43, 44)


@pytest.fixture(autouse=True)
def cost(monkeypatch):
    monkeypatch.setattr("reports.make.tables.rows.complexity_columns", lambda *_: ())


@pytest.fixture
def root(tmp_path):
    copy_declarations(tmp_path)
    return tmp_path


def write(root, params, run, miou=0.79, epochs=300, source="http", n_train=1500):
    shift = 0.004 * (run.seed - 43)
    scores = dict.fromkeys(("miou", "dsc", "acc", "spe", "sen"), miou + shift)
    data = {"n_train": n_train, "n_test": 650, "source": source}
    write_run(root, params, run, data, (600, 4000), scores, sound_scores(scores))
    path = metrics_file(root, params, run)
    content = json.loads(path.read_text())
    if epochs:
        content["history"] = {"epoch": list(range(1, epochs + 1))}
    path.write_text(json.dumps(content))


def stated(root, params, runs):
    inputs = read_inputs(root, params, runs)
    return agreed(compared(Assembler(inputs).tables(), inputs), inputs), inputs


def runs_of(cell="base", protocol="paper", view="isic17-256", seeds=SEEDS):
    return [Run(view, cell, protocol, seed) for seed in seeds]


def test_the_statement_over_three_seeds(root):
    params, runs = make_params(**PAPER), runs_of()
    for run in runs:
        write(root, params, run)
    (miou, dsc), inputs = stated(root, params, runs)
    assert (miou.row.metric, dsc.row.metric) == ("miou", "dsc")
    scores = np.array([78.6, 79.0, 79.4])
    half = scipy.stats.t.ppf(0.975, 2) * scores.std(ddof=1) * np.sqrt(4 / 3)
    assert miou.prediction == pytest.approx((79 - half, 79 + half))
    assert miou.predicted == (79 + half > 80.23)
    half = scipy.stats.t.ppf(0.95, 2) * scores.std(ddof=1) / np.sqrt(3)
    assert miou.interval == pytest.approx((79 - half - 80.23, 79 + half - 80.23))
    assert (miou.margin, miou.verdict) == (0.72, "undecided")
    assert dsc.verdict == "different"
    (record, _) = agreement_data([miou, dsc]).records()
    assert record["n_seeds"] == 3
    assert record["published_in_prediction"] is True
    sheet = agreement_sheet(inputs, [miou, dsc])
    printed = [cell.text for cell in sheet.blocks[0].lines[0].cells]
    assert printed[0] == "VM-UNet"
    assert printed[2:5] == ["3", "80.23", "79.00 ± 0.40"]
    assert printed[-2:] == ["0.72", "undecided"]
    assert len(sheet.head) == len(printed)
    assert any("smallest lead" in note for note in sheet.caption.notes)


def test_larger_sizes_and_the_row_from_scratch_too(root):
    params = make_params(**PAPER)
    runs = [*runs_of("scratch"), *runs_of(view="isic17-384")]
    for run in runs:
        write(root, params, run)
    rows, _ = stated(root, params, runs)
    assert [(of.row.tables, of.published) for of in rows if of.row.metric == "miou"] == [
        (("I", "III"), 77.59),
        (("VI",), 79.44),
    ]


@pytest.mark.parametrize("seeds", [(42,), (42, 43)])
def test_nothing_is_said_of_fewer_seeds(root, seeds):
    params, runs = make_params(**PAPER), runs_of(seeds=seeds)
    for run in runs:
        write(root, params, run)
    assert stated(root, params, runs)[0] == []


@pytest.mark.parametrize(
    "changed",
    [
        {"dims": (48, 96, 192, 384)},
        {"epochs": 30},
        {"batch_size": 16},
        {"t_max": (300, 300)},
        {"source": "phantom"},  # of the initial weights
    ],
)
def test_nothing_is_said_with_other_settings(root, changed):
    params, runs = make_params(**PAPER | changed), runs_of()
    for run in runs:
        write(root, params, run, epochs=changed.get("epochs", 300))
    assert stated(root, params, runs)[0] == []


@pytest.mark.parametrize(
    "changed",
    [
        {"source": "sample"},
        {"source": "phantom"},
        {"n_train": 1400},
        {"epochs": 30},
        {"epochs": 0},  # a file of an earlier version, which does not say it
    ],
)
def test_nothing_is_said_of_other_data_or_trainings(root, changed):
    params, runs = make_params(**PAPER), runs_of()
    for run in runs:
        write(root, params, run, **changed)
    assert stated(root, params, runs)[0] == []


def test_nothing_is_said_of_other_models_sizes_protocols_and_cells_with_own_settings(root):
    params = make_params(**PAPER)
    runs = [*runs_of("unet"), *runs_of(protocol="sound"), *runs_of("scratch")]
    params.cells["scratch"].loss_weights = (1.0, 0.5)
    for run in runs:
        write(root, params, run)
    assert stated(root, params, runs)[0] == []
    smaller = make_params(**PAPER | {"sizes": (128, 192)})
    runs = runs_of(view="isic17-128")
    for run in runs:
        write(root, smaller, run)
    assert stated(root, smaller, runs)[0] == []


def test_seeds_of_different_epochs_are_refused(root):
    params, runs = make_params(**PAPER), runs_of()
    for run in runs:
        write(root, params, run, epochs=300 if run.seed == 42 else 30)
    with pytest.raises(
        InputError,
        match=r"paper/43/metrics\.json: its number of epochs is 30, but .*paper/42/.* is 300",
    ):
        stated(root, params, runs)


def test_seeds_of_which_one_does_not_tell_its_epochs_are_refused(root):
    params, runs = make_params(**PAPER), runs_of()
    for run in runs:
        write(root, params, run, epochs=0 if run.seed == 43 else 300)
    with pytest.raises(InputError, match=r"paper/43/metrics\.json: .* epochs is unknown"):
        stated(root, params, runs)


@pytest.mark.parametrize(
    ("source", "agrees", "rows"), [("http", True, 2), ("http", False, 0), ("file", False, 2)]
)
def test_nothing_is_said_of_another_split(root, source, agrees, rows):
    """If the data stage checked these very data."""
    params, runs = make_params(**PAPER), runs_of()
    for run in runs:
        write(root, params, run)
    checked = {"isic17": {"source": source, "agrees": agrees, "text": "the split"}}
    path = root / SPLITS
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(checked))
    assert len(stated(root, params, runs)[0]) == rows


def test_without_margins_is_an_error(root):
    params, runs = make_params(**PAPER), runs_of()
    for run in runs:
        write(root, params, run)
    path = root / "reports/published.yaml"
    path.write_text(path.read_text().replace("\nequivalence:", "\nformerly:"))
    with pytest.raises(InputError, match="equivalence: no margins; state"):
        stated(root, params, runs)


def test_the_margins_are_the_smallest_leads_of_the_papers_tables():
    published = load_yaml(ROOT / "reports/published.yaml")
    for datasets, table in ((("isic17", "isic18"), "I"), (("synapse",), "II")):
        rows = published["tables"][table]
        for metric in published["equivalence"]["margins"][datasets[0]]:
            leads = []
            for dataset in datasets:
                others = [
                    row[dataset][metric]
                    for name, row in rows.items()
                    if name != "vm-unet" and dataset in row
                ]
                leads.append(rows["vm-unet"][dataset][metric] - max(others))
            for dataset in datasets:
                margin = published["equivalence"]["margins"][dataset][metric]
                assert margin == pytest.approx(min(leads), abs=1e-9)


def test_the_counts_are_the_papers():
    from vmunet.data.isic.official import DATASETS

    cases = load_yaml(ROOT / "reports/published.yaml")["cases"]
    for name, official in DATASETS.items():
        assert cases[name] == {"train": official.n_train, "test": official.n_test}
