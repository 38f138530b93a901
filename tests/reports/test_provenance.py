"""The origin of the report's figures as it states it, and the headline scores for `dvc diff`."""

from types import SimpleNamespace

import pytest

from pipeline.config.runs import Run
from reports.make.report import UNKNOWN, duration
from reports.make.results.metrics import read_results
from reports.make.results.provenance import provenance_of, summary_of
from reports.make.tables.headline import headline_scores
from tests.helpers.tables import all_runs, make_params, write_metrics

NAMES = {"isic17": "ISIC17", "isic18": "ISIC18", "synapse": "Synapse"}
UNITS = {"miou": "percent", "dsc": "percent", "hd95": "distance"}
WANTED = {name: {"miou": "percent", "dsc": "percent"} for name in ("isic17", "isic18")}


@pytest.fixture
def results(tmp_path):
    params = make_params(volumes=(64,))
    runs = all_runs(params, seeds=(1, 2), cells=("base",))
    write_metrics(tmp_path, params, runs)
    wanted = WANTED | {"synapse": {"dsc": "percent", "hd95": "distance"}}
    return params, read_results(tmp_path, params, runs, wanted)


def with_checkpoint(result, **changed):
    return SimpleNamespace(**{**vars(result), "checkpoint": dict(result.checkpoint) | changed})


def test_it_names_profile_data_seeds_revision_and_both_kinds_of_phantoms(results):
    provenance = provenance_of(*results, NAMES)
    lines = dict(provenance.lines())
    assert lines["Profile"].startswith("demo: A made-up profile")
    assert "56 training and 24 test phantom images" in lines["Data"]
    assert "phantom CT volumes" in lines["Data"]
    assert lines["Runs"] == f"{len(results[1])} runs, seeds 1 and 2"
    assert lines["Code revision"] == "revision"
    assert "Figures on phantoms say nothing about skin lesions." in lines["Data"]
    assert "Figures on phantoms say nothing about organs in real CT." in lines["Data"]


def test_the_summary_names_what_was_run_on_what(results):
    assert summary_of(*results, NAMES) == (
        f"Profile demo: {len(results[1])} runs of 1 variant of VM-UNet under the paper and sound "
        "protocols, seeds 1 and 2, trained and tested on ISIC17 (56 training and 24 test "
        "phantoms), ISIC18 (56 training and 24 test phantoms) and Synapse (18 training and 12 test "
        "phantom CT volumes)."
    )
    assert summary_of(results[0], [], NAMES) == "Profile demo: nothing was measured."


def test_missing_records_of_runs_are_called_unknown(results):
    lines = dict(provenance_of(*results, NAMES).lines())
    assert lines["Trained on"] == UNKNOWN
    assert lines["Training time, all runs"] == UNKNOWN
    assert lines["Packages"] == UNKNOWN
    empty = dict(provenance_of(results[0], [], NAMES).lines())
    assert empty["Data"] == "nothing measured"
    assert empty["Code revision"] == UNKNOWN


def test_runs_that_differ_are_all_named(results):
    params, (first, second, *_) = results
    facts = {"device": "CPU", "threads": 2, "seconds": 100.0}
    runs = [
        with_checkpoint(first, **facts, git="a", versions={"torch": "2.13", "numpy": "2"}),
        with_checkpoint(second, **facts, git="b+changes", versions={"torch": "2.12", "numpy": "2"}),
    ]
    lines = dict(provenance_of(params, runs, NAMES).lines())
    assert lines["Code revision"] == "a and b+changes"
    assert lines["Trained on"] == "CPU (2 threads)"
    assert lines["Training time, all runs"] == "3 min"
    assert lines["Packages"] == "torch 2.12 or 2.13, numpy 2"
    runs[1].checkpoint["seconds"] = None  # a sum of only some trainings would be too small
    assert dict(provenance_of(params, runs, NAMES).lines())["Training time, all runs"] == UNKNOWN


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0 s"), (119.4, "119 s"), (120, "2 min"), (9000, "2 h 30 min")]
)
def test_durations(seconds, words):
    assert duration(seconds) == words


def test_headline_scores_are_few_and_in_percent(results):
    _, read = results
    scores = headline_scores(read)
    run = Run("isic17-64", "base", "paper", 1)
    result = next(r for r in read if r.run.name == run.name)
    assert scores["isic17-64"]["base-paper-1"] == {
        "miou": round(100 * result.scores["miou"], 2),
        "mean_dice": round(100 * result.sound["native_size"]["mean_dice"].value, 2),
    }
    volume = next(r for r in read if r.run.view == "synapse-64")
    name = f"{volume.run.cell}-{volume.run.protocol}-{volume.run.seed}"
    assert scores["synapse-64"][name]["hd95"] == round(volume.scores["hd95"], 2)
    assert sum(len(own) for own in scores.values()) == len(read)
