"""`vmunet compare`: its output, the names that it accepts, and its errors."""

import json
import re
import shutil

import numpy as np
import pytest

from pipeline.cli import main
from pipeline.commands.compare import _verdict
from pipeline.config.params import load_params
from pipeline.config.runs import own_runs, runs
from reports.make.results.comparison import ScoreLine, compare
from tests.helpers.tables import ORGANS, REPOSITORY, metrics_file, write
from tests.helpers.units import made_up_cases, made_up_counts, write_cases, write_images, write_rows
from vmunet.evaluation.metrics import mean_scores, per_image_scores, pooled_scores
from vmunet.evaluation.samples import MEAN, CaseSample, ImageSample
from vmunet.evaluation.statistics import holm, paired

CELLS = ("base", "scratch", "vmamba-t")


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """The repository's parameters with scores of a few cells; two seeds, and a dataset of own."""
    root = tmp_path_factory.mktemp("scored")
    shutil.copytree(REPOSITORY / "profiles", root / "profiles")
    text = (REPOSITORY / "params.yaml").read_text()
    for old, new in (
        ("seeds: [42]", "seeds: [42, 43, 44]"),
        ("cells: [scratch]", "cells: [scratch, base]"),
        (
            "  images: {}\n",
            "  images:\n    polyps: {images: a, masks: b, classes: [adenoma, other], "
            "split: {test: 0.5}, size: 64}\n",
        ),
    ):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    (root / "params.yaml").write_text(text)
    params = load_params(root)
    for run in runs(params):
        if run.view in params.grid.volumes:
            write_cases(root, params, run, made_up_cases(run, shift=0.1 * (run.seed == 43)))
        elif run.cell in CELLS:
            quality = 0.9 if run.cell == "vmamba-t" else 0.7
            counts = made_up_counts(run, params.view(run.view).size, quality=quality)
            write_images(root, params, run, counts)
    return root


@pytest.fixture
def root(scored, monkeypatch):
    """The working directory; a test that writes into it takes `changed`."""
    monkeypatch.chdir(scored)
    return scored


@pytest.fixture
def changed(scored, tmp_path, monkeypatch):
    """A copy of it, to be written into."""
    shutil.copytree(scored, tmp_path / "clone")
    monkeypatch.chdir(tmp_path / "clone")
    return tmp_path / "clone"


def output(capsys, *arguments):
    assert main(["compare", *arguments]) in (0, None), capsys.readouterr().err
    captured = capsys.readouterr()
    assert all(len(line) <= 100 for line in captured.out.splitlines())
    return captured.out


def error(capsys, *arguments):
    assert main(["compare", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


def blocks(text):
    """The printed views, by their first line up to the colon."""
    parts = re.split(r"^(?=\S+(?: and \S+)?, [a-z ]+ protocols?: )", text, flags=re.MULTILINE)
    return {part.split(":")[0]: part for part in parts if part.strip()}


def test_numbers_are_those_of_the_counts(root, capsys):
    text = output(capsys, "base", "vmamba-t", "--view", "isic17-64")
    (block,) = blocks(text).values()
    params = load_params()
    samples = {
        name: [
            ImageSample(
                np.stack(
                    [
                        made_up_counts(run, 64, quality=quality)[name]
                        for run in runs(params)
                        if (run.view, run.cell, run.protocol) == ("isic17-64", cell, "paper")
                    ]
                )
            )
            for cell, quality in (("base", 0.7), ("vmamba-t", 0.9))
        ]
        for name in ("paper", "training_size", "native_size")
    }
    assert samples["paper"][0].counts.shape == (3, 24, 4)
    wanted = {
        "pooled mIoU": ("paper", "miou"),
        "pooled DSC": ("paper", "dsc"),
        "mean Dice, training size": ("training_size", "mean_dice"),
        "mean IoU, training size": ("training_size", "mean_iou"),
        "mean Dice, native size": ("native_size", "mean_dice"),
    }
    pairs = {label: paired(*samples[key])[name] for label, (key, name) in wanted.items()}
    p_values = holm([pair.p for pair in pairs.values()])
    for (label, (key, name)), p in zip(wanted.items(), p_values, strict=True):
        a, b = (
            np.mean([(pooled_scores(c) | mean_scores(c))[name] for c in of.counts])
            for of in samples[key]
        )
        line = next(line for line in block.splitlines() if line.startswith(label))
        numbers = [float(n) for n in re.findall(r"[+-]?\d+\.\d+", line)]
        pair = pairs[label]
        expected = [100 * v for v in (a, b, b - a, pair.low, pair.high)]
        assert numbers[:5] == pytest.approx(expected, abs=0.0051), label
        assert line.rstrip(" *").endswith("< 0.001" if p < 0.001 else f"{p:.3f}")
    assert "24 test images; data: phantom images (synthetic)" in block
    assert "A  base, seeds 42, 43, 44\nB  vmamba-t, seeds 42, 43, 44\n" in block
    assert "vmamba-t is significantly better than base in every score." in block


def test_every_view_and_protocol_that_both_have(root, capsys):
    assert list(blocks(output(capsys, "base", "scratch"))) == [
        "isic17-64, paper protocol",
        "isic18-64, paper protocol",
    ]
    both = output(capsys, "base-paper", "base-sound")
    assert [name.split(",")[0] for name in blocks(both)] == ["isic17-64", "isic18-64", "synapse-64"]
    assert all("paper and sound protocols" in name for name in blocks(both))
    assert "chosen by the loss on these test images" in " ".join(both.split())


def test_images_that_differ_most(root, capsys):
    text = output(capsys, "isic17-64-base-paper-42", "runs/isic17-64/scratch/paper/42/")
    params = load_params()
    of = {
        run.name: per_image_scores(made_up_counts(run, 64, quality=0.7)["native_size"])["dice"]
        for run in runs(params)
        if run.view == "isic17-64" and run.cell in CELLS
    }
    a, b = of["isic17-64-base-paper-42"], of["isic17-64-scratch-paper-42"]
    printed = re.findall(r"^  (ISIC_\d+) +([\d.]+) +([\d.]+)$", text, flags=re.MULTILINE)
    most = [int(i) for i in np.argsort(b - a)]
    assert [int(name[5:]) for name, _, _ in printed] == [*most[:3], *most[:-4:-1]]
    for name, one, other in printed:
        i = int(name[5:])
        assert (float(one), float(other)) == pytest.approx((100 * a[i], 100 * b[i]), abs=0.0051)


def test_volumes(root, capsys):
    text = output(capsys, "synapse-64-base-paper-42", "synapse-64-base-paper-43")
    assert "12 test cases; data: phantom CT volumes (synthetic)" in text
    params = load_params()
    rows = [
        made_up_cases(run, shift=0.1 * (run.seed == 43))
        for run in runs(params)
        if (run.view, run.cell, run.protocol) == ("synapse-64", "base", "paper") and run.seed < 44
    ]
    for label, column, name, scale in (
        ("DSC ", "paper_dice", MEAN, 100),
        ("HD95 (voxels)", "paper_hd95_voxels", MEAN, 1),
        ("DSC, kidney left", "paper_dice", "kidney-left", 100),
    ):
        a, b = (
            CaseSample(
                np.reshape([row[column] for row in of], (1, 12, len(ORGANS))),
                ORGANS,
                highest=np.inf if scale == 1 else 1.0,
            )
            for of in rows
        )
        line = next(line for line in text.splitlines() if line.startswith(label))
        numbers = [float(n) for n in re.findall(r"[+-]?\d+\.\d+", line)]
        pair = paired(a, b)[name]
        expected = [scale * value for value in (pair.difference, pair.low, pair.high)]
        assert numbers[2:5] == pytest.approx(expected, abs=0.0051)
    # However far they are apart: two trainings of one method.
    assert "significant" not in text
    assert "*" not in text
    assert re.search(r"These trained models differ \(p < 0.05\) in \d+ of 10 scores", text)
    assert "about these trained models, not about" in " ".join(text.split())
    assert re.search(r"^  case\d+ ", text, flags=re.MULTILINE)


def test_two_sizes_by_image(root, capsys):
    text = output(capsys, "isic17-64-base-paper-42", "isic17-128-base-paper-42")
    assert text.startswith("isic17-64 and isic17-128, paper protocol: 24 test images")


def test_several_classes_of_your_own(changed, capsys):
    params = load_params()
    rng = np.random.default_rng(0)
    truth = rng.integers(1, 99, (20, 2))
    for run in own_runs(params):
        dice = rng.uniform(0.5, 0.9, (20, 2)) + 0.05 * (run.cell == "base")
        rows = [
            {"id": f"{i:03}", "class": label, "native_size_tp": truth[i, k], "native_size_fn": 0}
            | {"training_size_dice": dice[i, k], "training_size_iou": dice[i, k] / 2}
            | {"native_size_dice": "" if i == k == 0 else dice[i, k]}
            for i in range(20)
            for k, label in enumerate(("adenoma", "other"))
        ]
        mean = float(np.mean([dice[1:, 0].mean(), dice[:, 1].mean()]))
        data = {"n_train": 20, "n_test": 20, "source": "own", "classes": ["adenoma", "other"]}
        sound = {"native_size": {"mean_dice": mean, "miou": None}}
        write(changed, params, run, data, (9, 9), {"dsc": 0.5, "iou": {}}, sound)
        write_rows(changed, params, run, rows)
    text = output(capsys, "scratch", "base", "--view", "polyps")
    assert "polyps, sound protocol: 20 test images; data: data of your own" in text
    labels = [line.split("  ")[0] for line in text.splitlines()]
    assert {"mean Dice, native size", "Dice, adenoma, native size"} <= set(labels)


def test_runs_without_scores_are_left_out_and_named(changed, capsys):
    params = load_params()
    gone = [run for run in runs(params) if run.name.startswith("isic18-64-scratch")]
    for run in gone:
        metrics_file(changed, params, run).unlink()
    text = " ".join(output(capsys, "base", "scratch").split())
    assert list(blocks(text)) == ["isic17-64, paper protocol"]
    assert (
        "Not compared, because not scored yet: isic18-64-scratch-paper-42, isic18-64-scratch"
        in text
    )
    assert "run `vmunet sweep --cells isic18-64-scratch-paper-42 --cells isic18-64-scr" in text
    message = error(capsys, "base", "scratch", "--view", "isic18-64")
    assert "the runs to compare are not scored yet: isic18-64-scratch-paper-42" in message
    assert "run `vmunet sweep --cells isic18-64-scratch-paper-42" in message


def test_one_seed_is_left_where_the_other_has_no_scores(changed, capsys):
    params = load_params()
    run = next(run for run in runs(params) if run.name == "isic17-64-scratch-paper-43")
    metrics_file(changed, params, run).unlink()
    text = output(capsys, "base", "scratch", "--view", "isic17-64")
    assert "A  base, seeds 42, 43, 44\nB  scratch, seeds 42, 44\n" in text
    assert "Not compared, because not scored yet: isic17-64-scratch-paper-43;" in text


def test_seeds_of_different_epochs_are_no_repetition(changed, capsys):
    params = load_params()
    for run in runs(params):
        if (run.view, run.cell, run.protocol) == ("isic17-64", "scratch", "paper"):
            path = metrics_file(changed, params, run)
            content = json.loads(path.read_text())
            content["history"] = {"epoch": list(range(12 if run.seed == 42 else 3))}
            path.write_text(json.dumps(content))
    message = error(capsys, "base", "scratch", "--view", "isic17-64")
    assert "scratch/paper/43/metrics.json: its number of epochs is 3, but" in message


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["base", "scrach"],
            r"scrach: no cell or run of that name \(did you mean scratch or .*\?\); cells with",
        ),
        (["base", "base"], r"base and base are the same runs \(isic17-64-base-paper-42\)"),
        (["base", "base-sound"], "name two cells, or both protocols: base-paper and base-sound"),
        (["base-paper", "base-paper-42"], "are the same runs"),
        (["base", "scratch", "--view", "isic17-32"], "unknown view 'isic17-32'; known: isic17-64"),
        (["base", "scratch", "--seeds", "7"], "--seeds 7: base is declared with 42, 43, 44"),
        (["base", "scratch", "--seeds", "x"], "--seeds x: expected whole numbers"),
        (["scratch", "vmamba-t", "--view", "synapse-64"], "scratch has no run with --view synap"),
        (["scratch-paper", "base-sound", "--protocol", "paper"], "base-sound has no run with"),
        (["isic17-64-scratch", "isic18-64-base"], "different test images: isic17-64 and isic18-64"),
        (
            ["isic17-64-scratch", "isic18-64-vmamba-t-paper-42"],
            "have different test images",
        ),
        (
            ["isic17-96-base", "scratch"],
            r"no view and protocol in common: isic17-96-base runs on isic17-96 \(paper\); scratch",
        ),
    ],
)
def test_refused(root, capsys, arguments, words):
    message = error(capsys, *arguments)
    assert message.startswith("error: ")
    assert re.search(words, message), message


def test_a_cell_without_runs(changed, capsys):
    path = changed / "params.yaml"
    path.write_text(
        path.read_text().replace("cells:\n  base: {}\n", "cells:\n  base: {}\n  new: {}\n")
    )
    assert "cell new has no run in the grid; add it to grid.ablations" in error(
        capsys, "base", "new"
    )


def test_help_explains(capsys):
    with pytest.raises(SystemExit):
        main(["compare", "--help"])
    text = capsys.readouterr().out
    assert "vmunet compare base scratch" in text
    assert "Holm" in text
    assert all(len(line) <= 100 for line in text.splitlines())


def line(label, difference, p, lower=False, methods=True):
    return ScoreLine(label, lower, 50.0, 50.0 + difference, difference, 0, 0, p, methods)


def test_verdicts_in_words():
    up, down = line("DSC, liver", 3.0, 0.01), line("HD95", 3.0, 0.02, lower=True)
    none, equal = line("DSC", 1.0, 0.3), line("DSC", 0.0, 1.0)
    assert (up.better, down.better, equal.better) == ("b", "a", "")
    assert _verdict([up, none], "one", "two") == (
        "two is significantly better than one in DSC (liver); the other score does not differ "
        "significantly."
    )
    assert _verdict([up, down], "one", "two") == (
        "two is significantly better than one in DSC (liver); one is significantly better than two "
        "in HD95."
    )
    assert _verdict([none, equal], "one", "two") == (
        "No difference between one and two is significant: the smallest p is 0.300."
    )
    assert _verdict([line("DSC", 0.0, None)], "one", "two") == "No score is defined for both."
    of_models = [line("DSC", 3.0, 0.001, methods=False), line("HD95", 3.0, 0.3, methods=False)]
    assert _verdict(of_models, "one", "two") == (
        "These trained models differ (p < 0.05) in 1 of 2 scores."
    )


def test_a_model_with_itself_differs_in_nothing(root):
    params = load_params()
    run = next(run for run in runs(params) if run.name == "isic17-64-base-paper-42")
    comparison = compare(root, params, [run], [run])
    assert {one.p for one in comparison.lines} == {1.0}
    assert {one.difference for one in comparison.lines} == {0.0}
    assert comparison.a_ahead == comparison.b_ahead == []
