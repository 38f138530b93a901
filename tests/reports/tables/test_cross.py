"""The table of cross-dataset tests: the same images, shared ones left out, files checked."""

import csv
import json
import statistics

import pytest

from stages.tables import make_tables
from tests.helpers.tables import (
    Run,
    all_runs,
    made,
    make_params,
    metrics_file,
    prepare,
    rows_of,
    write_metrics,
)
from tests.helpers.tables_measuring import counts_of, write_cross
from vmunet.errors import InputError

NAME = "isic17-to-isic18"
KEPT = range(4)  # of six images two are shared


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A root with the real reports/ and a stand-in for the model's cost."""
    prepare(tmp_path, monkeypatch.setitem)
    return tmp_path


def prepared(root, seeds=(1, 2)):
    params = make_params(cross=(NAME,))
    runs = all_runs(params, seeds)
    write_metrics(root, params, runs)
    return params, runs, write_cross(root, params, runs)


def home_miou(run):
    rows = [counts_of(run, index) for index in KEPT]
    tp, fp, fn = (sum(row[f"paper_{name}"] for row in rows) for name in ("tp", "fp", "fn"))
    return 100 * tp / (tp + fp + fn)


def test_both_models_are_scored_on_the_images_that_are_not_shared(root):
    params, runs, _ = prepared(root)
    folder = made(root, params, runs)
    rows = {(r["cell"], r["protocol"]): r for r in rows_of(folder, "cross")}
    assert set(rows) == {("base", "paper"), ("base", "sound"), ("scratch", "paper")}
    row = rows["base", "sound"]
    assert (row["images"], row["left_out"], row["same_seeds"]) == ("4", "2", "1 2")
    scores = [home_miou(Run("isic18-64", "base", "sound", seed)) for seed in (1, 2)]
    assert float(row["same_miou"]) == pytest.approx(statistics.mean(scores), abs=1e-4)
    assert float(row["same_miou_std"]) == pytest.approx(statistics.stdev(scores), abs=1e-4)
    assert float(row["other_mean_dice"]) == 50
    assert float(row["other_miou"]) < float(row["same_miou"])
    dice = [
        statistics.mean(
            counts_of(Run("isic18-64", "base", "sound", s), i)["native_size_dice"] for i in KEPT
        )
        for s in (1, 2)
    ]
    assert float(row["same_mean_dice"]) == pytest.approx(100 * statistics.mean(dice), abs=1e-4)
    tex = (folder / "cross.tex").read_text()
    assert r"Tested on ISIC18 at 64$\times$64, 4 images (2 shared ones left out)" in tex
    assert "other: ISIC17" in tex
    assert "like with like" in tex
    assert "\\input{cross}" in (folder / "all.tex").read_text()


def test_what_was_not_measured_is_left_out(root):
    params = make_params(cross=(NAME,))
    runs = all_runs(params)
    write_metrics(root, params, runs)
    folder = made(root, params, runs)
    assert not {"cross.tex", "cross.csv"} & {path.name for path in folder.iterdir()}
    assert "cross" not in (folder / "all.tex").read_text()
    assert "other dataset" not in (folder / "index.md").read_text()


def test_no_run_at_home_is_a_dash(root):
    params, runs, _ = prepared(root)
    runs = [run for run in runs if not (run.view == "isic18-64" and run.cell == "scratch")]
    tex = (made(root, params, runs) / "cross.tex").read_text()
    assert r"scratch & paper & -- & -- & -- &" in tex


def test_a_run_that_the_grid_does_not_have_is_named(root):
    params, runs, _ = prepared(root)
    runs = [run for run in runs if run.seed != 2]
    with pytest.raises(InputError, match="names base-paper-2, which is no run of the grid"):
        make_tables(root, params, runs)


def test_one_seed_has_no_spread(root):
    params, runs, _ = prepared(root, seeds=(7,))
    assert r"\pm" not in (made(root, params, runs) / "cross.tex").read_text()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: content.pop("shared"), "'shared'"),
        (lambda content: content.update(tested=5), "'tested' is 5"),
        (lambda content: content.update(shared=["i1"]), "1 of them among the shared"),
        (lambda content: content.update(runs=[]), "'runs'"),
        (lambda content: content["runs"].pop("base-paper-1"), "'runs' names other runs"),
    ],
)
def test_a_broken_metrics_file_is_named(root, change, words):
    params, runs, folder = prepared(root)
    path = folder / "metrics.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=words) as caught:
        make_tables(root, params, runs)
    assert f"metrics/demo/cross/{NAME}/metrics.json" in str(caught.value)


def rewrite(path, edit):
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    rows = edit(rows)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda rows: [row | {"paper_tp": "x"} for row in rows], "'paper_tp'"),
        (lambda rows: [row | {"paper_fn": "-1"} for row in rows], "'paper_fn'"),
        (lambda rows: [row | {"native_size_dice": "1.5"} for row in rows], "'native_size_dice'"),
        (lambda rows: rows[1:], "i0"),
        (lambda rows: [*rows, rows[-1]], "i3"),
    ],
)
def test_a_broken_list_of_images_is_named(root, edit, words):
    params, runs, folder = prepared(root)
    rewrite(folder / "per_image.csv", edit)
    with pytest.raises(InputError, match=words) as caught:
        make_tables(root, params, runs)
    assert f"metrics/demo/cross/{NAME}/" in str(caught.value)


def test_missing_images_at_home_are_named(root):
    params, runs, folder = prepared(root)
    home = metrics_file(root, params, Run("isic18-64", "base", "paper", 1))
    rewrite(home.with_name("per_image.csv"), lambda rows: rows[1:])
    with pytest.raises(InputError, match="i0") as caught:
        make_tables(root, params, runs)
    assert "metrics/demo/isic18-64/base/paper/1/per_image.csv" in str(caught.value)
    home.with_name("per_image.csv").unlink()
    with pytest.raises(
        InputError, match="no such file; run `vmunet sweep --cells isic18-64-base-paper-1`"
    ):
        make_tables(root, params, runs)
    (folder / "per_image.csv").unlink()
    with pytest.raises(InputError, match=f"cross/{NAME}/per_image.csv: no such file"):
        make_tables(root, params, runs)
