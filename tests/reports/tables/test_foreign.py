"""nnU-Net's row in Tables I and II: there if it was scored, and nowhere else."""

import json
import math

import pytest

from reports.make.report import PATH
from tests.helpers.tables import (
    all_runs,
    made,
    make_params,
    metrics_file,
    rows_of,
    volume_runs,
    write_metrics,
)
from tests.helpers.tables_measuring import MadeUpStatistics
from vmunet.errors import InputError

LABEL = "nnU-Net 2D, its own protocol, same images"


def write_foreign(root, params, scored, trainer="nnUNetTrainer", **changed):
    """Scores of nnU-Net on the data of a run: the run's own, each plus 0.001.

    `changed` has values of the blocks `run`, `data` and `paper`.
    """
    content = json.loads(metrics_file(root, params, scored).read_text())
    paper = {k: v + 0.001 for k, v in content["paper"].items() if isinstance(v, float)}
    metrics = {
        "run": {"profile": params.profile_name, "view": scored.view, "trainer": trainer}
        | {name: content["run"][name] for name in ("dataset", "size")},
        "data": content["data"],
        "paper": paper,
    }
    for block, values in changed.items():
        metrics[block] |= values
    path = root / "metrics" / params.profile_name / scored.view / "nnunet/metrics.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(metrics))
    return content["paper"]


def measured(root):
    """A small grid of both datasets of images, and of volumes."""
    params = make_params(volumes=(64,))
    runs = [*all_runs(params), *volume_runs(params)]
    write_metrics(root, params, runs)
    return params, list(dict.fromkeys(runs))


def base(runs, dataset):
    return next(r for r in runs if r.view.startswith(dataset) and r.cell == "base")


def test_one_row_and_dashes_for_the_other_dataset(root):
    params, runs = measured(root)
    folder = made(root, params, runs, MadeUpStatistics())
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    ours = write_foreign(root, params, base(runs, "isic17"), "nnUNetTrainer_1epoch")
    made(root, params, runs, MadeUpStatistics())
    (row,) = (row for row in rows_of(folder, "table1") if LABEL in row["row"])
    assert row["row"] == f"{LABEL} (nnUNetTrainer_1epoch)"
    assert row["dataset"] == "isic17"
    assert float(row["measured_dsc"]) == pytest.approx(100 * (ours["dsc"] + 0.001), abs=1e-5)
    assert (row["published_dsc"], row["p_dsc"], row["runs"]) == ("", "", "")
    assert row["metrics_files"].endswith("/nnunet/metrics.json")
    lines = [line for line in (folder / "table1.tex").read_text().splitlines() if LABEL in line]
    assert len(lines) == 2  # a block for each dataset
    assert lines[1].count("--") >= 10, "no score on ISIC18: dashes"
    changed = {name for name, text in before.items() if (folder / name).read_bytes() != text}
    assert changed == {"table1.csv", "table1.tex", "index.md", PATH.name}


def test_volumes_have_the_row_too(root):
    params, runs = measured(root)
    ours = write_foreign(root, params, base(runs, "synapse"))
    folder = made(root, params, runs)
    (row,) = (row for row in rows_of(folder, "table2") if row["row"] == LABEL)
    assert float(row["measured_hd95"]) == pytest.approx(ours["hd95"] + 0.001, abs=1e-5)
    assert float(row["measured_liver"]) == pytest.approx(100 * (ours["liver"] + 0.001), abs=1e-5)
    assert LABEL not in (folder / "table1.tex").read_text()


@pytest.mark.parametrize(
    ("block", "name", "value"),
    [
        ("run", "profile", "another"),
        ("run", "view", "isic17-999"),
        ("run", "dataset", "isic18"),
        ("run", "size", 999),
        ("data", "source", "another"),
        ("data", "n_train", 7),
        ("data", "archives", {"images.zip": "another"}),
        ("data", "native_min", None),
    ],
)
def test_scores_of_another_view_or_of_other_data_are_one_error(root, block, name, value):
    params, runs = measured(root)
    run = base(runs, "isic17")
    path = metrics_file(root, params, run)
    content = json.loads(path.read_text())
    content["data"]["archives"] = {"images.zip": "the view's"}
    path.write_text(json.dumps(content))
    write_foreign(root, params, run, **{block: {name: value}})
    with pytest.raises(InputError, match=rf"nnunet/metrics\.json: .*its {block}\.{name} is "):
        made(root, params, runs)


@pytest.mark.parametrize("value", [math.nan, None])
def test_an_undefined_score_is_one_error(root, value):
    params, runs = measured(root)
    write_foreign(root, params, base(runs, "isic17"), paper={"miou": value})
    with pytest.raises(InputError, match=r"nnunet/metrics\.json: "):
        made(root, params, runs)


def test_an_undefined_score_of_a_run_is_one_error(root):
    params, runs = measured(root)
    path = metrics_file(root, params, base(runs, "isic17"))
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"paper": content["paper"] | {"miou": math.nan}}))
    with pytest.raises(InputError, match=r"metrics\.json: .*its paper\.miou is nan"):
        made(root, params, runs)
