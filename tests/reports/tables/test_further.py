"""Tables that the paper does not have: stars, cost, comparison, protocols, reproductions."""

import json
import re

import numpy as np
import pytest

from reports.make.report import Inference
from reports.make.results.statistics import Statistics
from reports.make.results.views import load_yaml
from reports.make.tables.writing import make_tables
from tests.helpers.tables import (
    ORGANS,
    Run,
    all_runs,
    made,
    made_up,
    made_up_organs,
    make_params,
    metrics_file,
    rows_of,
    write_metrics,
)
from tests.helpers.tables_measuring import (
    MadeUpStatistics,
    write_per_image,
    write_speed,
)
from vmunet.errors import InputError
from vmunet.evaluation.images import COMPARISONS
from vmunet.evaluation.metrics import COUNTS, mean_scores, pooled_scores


def everything(root, seeds=(42,)):
    params = make_params(volumes=(64,))
    runs = all_runs(params, seeds)
    write_metrics(root, params, runs)
    return params, runs, made(root, params, runs, MadeUpStatistics())


def test_a_star_marks_a_significant_figure_and_a_note_explains_it(root):
    params = make_params(volumes=(64,))
    runs = all_runs(params, seeds=(1, 2, 3))
    write_metrics(root, params, runs)
    folder = made(root, params, runs, MadeUpStatistics())
    tex = (folder / "table1.tex").read_text()
    assert r"VM-UNet (from scratch) & none & 77.59 & \textbf{70.40}" not in tex
    assert r"from scratch) & none & 77.59 & 71.20\,$\pm$\,0.40\rlap{*} & 87.38 & 83.18" in tex
    assert tex.count(r"\rlap{*}") == 2 * 5  # of both datasets, by metric
    for words in ("Welch's t test", "Holm", "three seeds or more"):
        assert words in tex
    row = next(row for row in rows_of(folder, "table1") if row["cell"] == "scratch")
    assert row["p_miou"] == "0.0123"
    assert float(row["low_miou"]) == pytest.approx(float(row["measured_miou"]) - 2.5)
    # Without tests there is neither star nor note.
    make_tables(root, params, runs)
    assert "Welch" not in (folder / "table1.tex").read_text()
    assert r"\rlap" not in (folder / "table1.tex").read_text()


def test_every_measured_row_is_compared_once(root):
    _, _, folder = everything(root)
    rows = rows_of(folder, "comparison")
    keys = [(r["dataset"], r["metric"], r["view"], r["cell"], r["protocol"]) for r in rows]
    assert len(set(keys)) == len(keys)
    # Ten cells, base under the sound protocol, and two more sizes of ISIC17; both metrics.
    assert len([key for key in keys if key[0] == "isic17"]) == 2 * 13
    assert len([key for key in keys if key[0] == "isic18"]) == 2 * 11
    assert {key[1] for key in keys if key[0] == "synapse"} == {"dsc", "hd95"}
    base = next(r for r in rows if (r["cell"], r["protocol"]) == ("base", "paper"))
    assert base["tables"] == "I III IV V VI"
    assert base["p"] == ""
    measured = 100 * made_up(Run("isic17-64", "base", "paper", 42))["miou"]
    assert float(base["difference"]) == pytest.approx(measured - 80.23, abs=1e-4)
    assert float(base["difference_low"]) == pytest.approx(measured - 2.5 - 80.23, abs=1e-4)
    assert "verdict" not in base  # image intervals judge no published value
    assert {(row["p_of"], row["p"] != "") for row in rows} == {("models", True), ("", False)}
    tex = (folder / "comparison.tex").read_text()
    assert r"Initial weights VMamba-T & III & 78.85 &" in tex
    assert r"0.012 & models \\" in tex  # no star: one seed
    assert r"\textbf{ISIC17 (phantoms), mIoU (\%)}" in tex
    assert r"\textbf{Synapse (phantoms), HD95 (voxels)}" in tex
    for words in (
        "cannot say whether",
        "95\\% intervals are bootstraps",
        "best of an unknown number of runs",
    ):
        assert words in tex


def test_the_largest_p_of_several_tables_is_shown(root):
    class TwoFamilies(MadeUpStatistics):
        def inferences(self, rows, base, scales):
            p = 0.01 * len(scales)  # Table I has five metrics, the others two
            inferences = super().inferences(rows, base, scales)
            for inferred in inferences:
                for metric, one in inferred.items():
                    inferred[metric] = Inference(one.low, one.high, one.p and p, one.methods)
            return inferences

    params = make_params()
    runs = all_runs(params)
    write_metrics(root, params, runs)
    folder = made(root, params, runs, TwoFamilies())
    rows = {(r["cell"], r["protocol"]): r["p"] for r in rows_of(folder, "comparison")}
    assert rows["scratch", "paper"] == "0.05"  # I and III
    assert rows["vmamba-t", "paper"] == "0.02"
    assert rows["base", "paper"] == ""


def test_without_statistics_the_comparison_has_dashes(root):
    params = make_params()
    runs = all_runs(params)
    write_metrics(root, params, runs)
    folder = made(root, params, runs)
    tex = (folder / "comparison.tex").read_text()
    assert r"80.23 & 70.00 & -- & $-$10.23 & -- & -- & -- \\" in tex
    row = rows_of(folder, "comparison")[0]
    assert row["low"] == row["p_of"] == row["p"] == ""


def test_the_protocols_are_compared_on_the_seeds_of_both(root):
    params = make_params(volumes=(64,))
    runs = all_runs(params, seeds=(1, 2))
    runs += [Run("isic17-64", "base", "paper", 3)]
    write_metrics(root, params, runs)
    asked = []

    class Asked(MadeUpStatistics):
        def difference(self, first, second, metric):
            asked.append((first[0].run.view, [r.run.seed for r in first], metric))
            assert {r.run.protocol for r in first} == {"paper"}
            assert [r.run.seed for r in first] == [r.run.seed for r in second]
            return super().difference(first, second, metric)

    folder = made(root, params, runs, Asked())
    assert asked == [
        (view, [1, 2], metric)
        for view, metrics in (
            ("isic17-64", ("miou", "dsc", "mean_dice")),
            ("isic18-64", ("miou", "dsc", "mean_dice")),
            ("synapse-64", ("dsc",)),
        )
        for metric in metrics
    ]
    rows = rows_of(folder, "protocols")
    means = [
        sum(100 * made_up(Run("isic17-64", "base", p, s))["miou"] for s in (1, 2)) / 2
        for p in ("paper", "sound")
    ]
    assert [float(rows[0][p]) for p in ("paper", "sound")] == pytest.approx(means, abs=1e-4)
    assert float(rows[0]["difference"]) == pytest.approx(means[1] - means[0], abs=1e-4)
    assert (rows[0]["p"], rows[0]["difference_low"]) == ("0.0002", "5.5")
    assert rows[0]["seeds"] == "1 2"
    volumes = 100 * sum(made_up_organs(Run("v", "base", "sound", s))[0]["dsc"] for s in (1, 2)) / 2
    assert float(rows[-1]["sound"]) == pytest.approx(volumes, abs=1e-4)
    tex = (folder / "protocols.tex").read_text()
    assert r"\textless{}0.001 & models \\" in tex  # two seeds
    assert "selection on the test set" in tex
    assert "not corrected" in tex


def test_one_protocol_alone_is_not_compared(root):
    params = make_params()
    runs = all_runs(params, sound=())
    write_metrics(root, params, runs)
    folder = made(root, params, runs)
    assert not (folder / "protocols.tex").exists()
    assert "protocols}" not in (folder / "all.tex").read_text()


def with_counts(root, params, runs, images=24):
    """Files of images whose scores in metrics.json follow from the per_image.csv beside it."""
    truth = np.random.default_rng(0).integers(100, 500, images)  # pixels of the lesion, of 1600
    for run in runs:
        rng = np.random.default_rng(list(run.name.encode()))
        counts = {}
        for comparison in COMPARISONS:
            missed = rng.integers(0, 30 if run.protocol == "sound" else 90, images)
            wrong = rng.integers(0, 90, images)
            counts[comparison] = np.stack(
                [truth - missed, wrong, missed, 1600 - truth - wrong], axis=1
            )
        rows = [
            {"id": f"i{i}", "native_width": 40, "native_height": 40}
            | {f"{c}_{n}": counts[c][i][k] for c in counts for k, n in enumerate(COUNTS)}
            for i in range(images)
        ]
        path = metrics_file(root, params, run)
        write_per_image(path.with_name("per_image.csv"), rows)
        content = json.loads(path.read_text())
        content["paper"] = pooled_scores(counts["paper"].sum(0))
        native = content["sound"]["native_size"]
        native["mean_dice"] = mean_scores(counts["native_size"], absent=1.0)["mean_dice"]
        path.write_text(json.dumps(content))


def test_speed_and_memory_as_measured(root):
    params = make_params()
    runs = all_runs(params)
    write_metrics(root, params, runs)
    write_speed(root, params)
    folder = made(root, params, runs)
    tex = (folder / "table5-cost.tex").read_text()
    line = next(line for line in tex.splitlines() if line.startswith(r"\{2,2,2,2-2,2,2,1\}"))
    assert line.endswith(r" & 8.30 & 123 & 4.57 & 512 & 2048 \\")
    line = next(line for line in tex.splitlines() if line.startswith(r"\{2,2,2,2-2,2,2,2\}"))
    assert line.endswith(r" & 8.30 & 123 & -- & 512 & -- \\")
    for words in (
        "measured on CPU with 2 threads",
        r"width 8 at 64$\times$64, batch size 16 in inference and 4 in training",
        "beyond what was held before the model was made: of the process's resident memory",
    ):
        assert words in tex
    row = rows_of(folder, "table5-cost")[0]
    assert float(row["inference_peak_bytes"]) == 512 * 2**20
    assert row["training_batch_size"] == "4"
    write_speed(root, params, device="NVIDIA H100", threads=1)
    make_tables(root, params, runs)
    tex = (folder / "table5-cost.tex").read_text()
    assert "measured on NVIDIA H100 with 1 thread," in tex
    assert "allocate on the GPU" in tex
    assert "resident" not in tex


@pytest.mark.parametrize("text", ["{", "[]", '{"device": "CPU"}'])
def test_a_file_that_holds_no_speed_is_named(root, text):
    params = make_params()
    write_speed(root, params).write_text(text)
    with pytest.raises(
        InputError, match=r"metrics/demo/isic17-64/speed\.json: .*stages.speed isic"
    ):
        made(root, params, [])


def test_reproductions_of_others_are_marked_as_unverified(root):
    _, _, folder = everything(root)
    rows = rows_of(folder, "reproductions")
    assert [(r["dataset"], r["metric"], r["published"]) for r in rows][:5] == [
        ("isic18", "miou", "81.35"),
        ("isic18", "miou", "81.05"),
        ("synapse", "dsc", "81.08"),
        ("isic18", "miou", "77.86"),
        ("isic17", "dsc", "86.99"),
    ]
    assert {r["verified"] for r in rows} == {"False"}
    measured = 100 * made_up(Run("isic18-64", "base", "sound", 42))["miou"]
    assert float(rows[0]["sound_measured"]) == pytest.approx(measured, abs=1e-4)
    tex = (folder / "reproductions.tex").read_text()
    assert r"ISIC18 (phantoms), mIoU & 81.35 & 78.0--80.4 & 71.00 & {[}68.50, 73.00] &" in tex
    assert r"UNet: ISIC17 (phantoms), DSC & 86.99 & 84.0 & -- & --" in tex
    assert "Others' figures are unverified (VM-UNet on ISIC18: users of the published code" in tex
    entries = load_yaml(root / "reports/published.yaml")["reproductions"]
    of_vmunet = [entry["text"] for entry in entries if "VM-UNet" in entry["text"]]
    for number in (3, 22, 45, 47, 74, 85, 95, 102):
        assert re.search(rf"\b{number}\b", " ".join(of_vmunet)), number


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("    published: I.vm-unet\n", "", "entry 1: lacks 'published'"),
        ("published: II.vm-unet\n    low", "published: II.vmunet\n    low", "no table shows dsc"),
        ("metric: miou\n", "metric: nsd\n", "no table shows nsd of I.vm-unet on isic18"),
    ],
)
def test_a_wrong_reproduction_is_named(root, old, new, words):
    path = root / "reports" / "published.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=words):
        made(root, make_params(), [])


def test_volumes_are_in_every_table_of_theirs(root):
    _, _, folder = everything(root)
    for name in ("comparison", "protocols", "reproductions"):
        text = (folder / f"{name}.tex").read_text()
        assert "say nothing about skin lesions" in text
        assert "say nothing about organs in real CT" in text
        assert "Synapse" in text
    assert set(ORGANS) <= {row["organ"] for row in rows_of(folder, "organs")}


def test_intervals_of_the_protocols_from_the_runs_own_files(root):
    """The real statistics, on files that agree with each other."""
    params = make_params()
    runs = [Run("isic17-64", "base", p, s) for p in ("paper", "sound") for s in (1, 2)]
    write_metrics(root, params, runs)
    with_counts(root, params, runs)
    folder = made(root, params, runs, Statistics(root))
    for row in rows_of(folder, "protocols"):
        for protocol in ("paper", "sound"):
            low, high = (float(row[f"{protocol}_{end}"]) for end in ("low", "high"))
            assert low < high
        assert float(row["difference_low"]) < float(row["difference_high"])
        assert 0 < float(row["p"]) <= 1
    rows = {r["metric"]: r for r in rows_of(folder, "protocols")}
    # The figure lies in its own interval, which is also the interval of the comparison.
    assert float(rows["miou"]["paper_low"]) < float(rows["miou"]["paper"])
    assert float(rows["miou"]["paper"]) < float(rows["miou"]["paper_high"])
    compared = next(r for r in rows_of(folder, "comparison") if r["metric"] == "miou")
    assert compared["low"] == rows["miou"]["paper_low"]
    assert compared["high"] == rows["miou"]["paper_high"]
