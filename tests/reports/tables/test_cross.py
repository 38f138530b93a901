"""The table of cross-dataset tests: the same images for both models, without shared images."""

import csv
import json
import statistics

import pytest

from reports.make.tables.writing import make_tables
from tests.helpers.tables import (
    Run,
    all_runs,
    made,
    make_params,
    metrics_file,
    rows_of,
    write_metrics,
)
from tests.helpers.tables_measuring import counts_of, write_cross
from vmunet.errors import InputError

NAME = "isic17-to-isic18"
KEPT = range(4)  # two of the six images are shared


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
    assert r"Tested on ISIC18 (phantoms) at 64$\times$64, 4 images (2 shared ones left out)" in tex
    assert "other: ISIC17 (phantoms)" in tex
    assert "like with like" in tex
    assert "\\input{cross}" in (folder / "all.tex").read_text()


def test_without_cross_tests_there_is_no_table(root):
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
    with pytest.raises(InputError, match="base-paper-2 is no run of the grid"):
        make_tables(root, params, runs)


def test_one_seed_has_no_spread(root):
    params, runs, _ = prepared(root, seeds=(7,))
    assert r"\pm" not in (made(root, params, runs) / "cross.tex").read_text()


def rewrite(path, edit):
    with open(path, newline="") as file:
        rows = edit(list(csv.DictReader(file)))
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_a_foreign_file_of_a_cross_test_is_named(root):
    params, runs, folder = prepared(root)
    path = folder / "metrics.json"
    text = path.read_text()
    path.write_text('{"tested": 4}')
    with pytest.raises(InputError, match=f"{NAME}/metrics.json: does not hold the cross test"):
        make_tables(root, params, runs)
    path.write_text(text)
    rewrite(folder / "per_image.csv", lambda rows: rows[1:])
    with pytest.raises(InputError, match=f"{NAME}/per_image.csv: .*'i0'.* -m stages.cross {NAME}"):
        make_tables(root, params, runs)
    rewrite(folder / "per_image.csv", lambda rows: [row for row in rows if row["id"] != "i1"])
    with pytest.raises(InputError, match="3 of 4 images"):
        make_tables(root, params, runs)


def test_a_cross_test_without_an_image_of_its_own_has_no_row(root):
    params, runs, folder = prepared(root)
    content = json.loads((folder / "metrics.json").read_text())
    (folder / "metrics.json").write_text(json.dumps(content | {"tested": 0}))
    (folder / "per_image.csv").write_text("run,id\n")
    assert not (made(root, params, runs) / "cross.csv").exists()


def test_missing_images_at_home_are_named(root):
    params, runs, folder = prepared(root)
    home = metrics_file(root, params, Run("isic18-64", "base", "paper", 1))
    rewrite(home.with_name("per_image.csv"), lambda rows: rows[1:])
    with pytest.raises(InputError, match="i0") as caught:
        make_tables(root, params, runs)
    assert "metrics/demo/isic18-64/base/paper/1/per_image.csv" in str(caught.value)
    home.with_name("per_image.csv").unlink()
    with pytest.raises(
        InputError, match=r"no such file; .* run `vmunet sweep --cells isic18-64-base-paper-1`"
    ):
        make_tables(root, params, runs)
    (folder / "per_image.csv").unlink()
    with pytest.raises(InputError, match=f"cross/{NAME}/per_image.csv: no such file"):
        make_tables(root, params, runs)
