"""Intervals, verdicts and tests of the tables' figures, and the files that they come from."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from reports.make.report import Difference, Figure, Inference
from reports.make.results import statistics
from reports.make.results.statistics import Statistics
from reports.make.tables.captions import caption
from reports.make.tables.comparison import compared, comparison_sheet
from reports.make.tables.inputs import read_inputs
from reports.make.tables.paper import paper_sheet
from reports.make.tables.protocols import pairs
from reports.make.tables.rows import Assembler
from tests.helpers.tables import (
    ORGANS,
    Run,
    all_runs,
    copy_declarations,
    make_params,
    metrics_file,
    volume_runs,
)
from tests.helpers.units import (
    image_ids,
    image_rows,
    made_up_cases,
    made_up_counts,
    read_rows,
    write_cases,
    write_images,
    write_rows,
    write_runs,
)
from vmunet.errors import InputError
from vmunet.evaluation.runs import methods
from vmunet.evaluation.samples import CaseSample, ImageSample
from vmunet.evaluation.statistics import holm, intervals, paired, permutation_p

CELLS = ("base", "scratch", "vmamba-t")
BASE = Run("isic17-64", "base", "paper", 42)


def results_of(root, params, runs):
    return read_inputs(root, params, runs).results


def tables(root, params, runs, with_statistics=True):
    statistics = Statistics(root) if with_statistics else None
    paper_tables = Assembler(read_inputs(root, params, runs, statistics)).tables()
    return {table.key: table for table in paper_tables if table.key != "V"}  # V needs torch


def figures(table, dataset, metric):
    """By (cell, protocol, view), of the measured rows."""
    return {
        (row.cell, row.protocol, "-".join(row.runs[dataset][0].split("-")[:2])): row.figures[
            dataset
        ][metric]
        for row in table.rows
        if row.runs.get(dataset)
    }


@pytest.fixture(autouse=True)
def cost(monkeypatch):
    monkeypatch.setattr("reports.make.tables.rows.complexity_columns", lambda *_: ())


@pytest.fixture
def root(tmp_path):
    copy_declarations(tmp_path)
    return tmp_path


def made_grid(root):
    params = make_params(volumes=(64,))
    runs = all_runs(params, cells=CELLS)
    write_runs(root, params, runs)
    return root, params, runs


@pytest.fixture
def grid(root):
    """Files that a test may change."""
    return made_grid(root)


@pytest.fixture(scope="module")
def computed(tmp_path_factory):
    """The tables of files that no test changes, with all statistics."""
    root = tmp_path_factory.mktemp("grid")
    copy_declarations(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("reports.make.tables.rows.complexity_columns", lambda *_: ())
        return tables(*made_grid(root))


def test_figures_are_those_without_statistics_and_have_more(computed, grid):
    without = tables(*grid, with_statistics=False)
    for key, table in computed.items():
        for row, plain in zip(table.rows, without[key].rows, strict=True):
            for dataset, of in row.figures.items():
                for metric, figure in of.items():
                    bare = plain.figures[dataset][metric]
                    assert bare.inference is None
                    assert (figure.measured is None) == (figure.inference is None)
                    assert (figure.published, figure.measured) == (bare.published, bare.measured)
                    if figure.inference:
                        assert figure.inference.low <= figure.measured <= figure.inference.high


def test_intervals_are_percent_and_those_of_the_counts(computed):
    counts = made_up_counts(BASE, 64)["paper"]
    inference = figures(computed["I"], "isic17", "spe")[("base", "paper", "isic17-64")].inference
    low, high = intervals(ImageSample(counts[None]))["spe"]
    assert (inference.low, inference.high) == pytest.approx((100 * low, 100 * high))
    assert inference.p is None
    assert not inference.significant


def test_p_is_corrected_for_the_rows_of_a_table_dataset_and_metric(computed):
    by_run = figures(computed["III"], "isic18", "dsc")
    base = ImageSample(made_up_counts(Run("isic18-64", "base", "paper", 42), 64)["paper"][None])
    plain = {}
    for cell, protocol, view in by_run:
        sample = ImageSample(made_up_counts(Run(view, cell, protocol, 42), 64)["paper"][None])
        is_base = (cell, protocol) == ("base", "paper")
        plain[cell, protocol, view] = None if is_base else permutation_p(base, sample)["dsc"]
    assert len(plain) == 4  # the sound base is one of three tests
    corrected = dict(zip(plain, holm(list(plain.values())), strict=True))
    assert {key: figure.inference.p for key, figure in by_run.items()} == corrected


def test_rivals_are_compared_with_vm_unet_on_the_same_images_and_cases(root):
    params = make_params(volumes=(64,))
    rivals, volume_rivals = ("unet", "malunet"), ("vnet", "swin-unet")
    runs = all_runs(params, cells=("base",), rivals=rivals, volume_rivals=volume_rivals)
    write_runs(root, params, runs)
    of_tables = tables(root, params, runs)
    base = ImageSample(made_up_counts(BASE, 64)["paper"][None])
    by_run = figures(of_tables["I"], "isic17", "miou")
    tests = []
    for cell, protocol, view in by_run:
        sample = ImageSample(made_up_counts(Run(view, cell, protocol, 42), 64)["paper"][None])
        itself = (cell, protocol) == ("base", "paper")
        tests.append(None if itself else permutation_p(base, sample)["miou"])
    assert len(tests) == 4  # both rivals, and VM-UNet under both protocols
    assert [figure.inference.p for figure in by_run.values()] == holm(tests)
    of_volumes = figures(of_tables["II"], "synapse", "hd95")
    tested = {(cell, protocol): of.inference.p for (cell, protocol, _), of in of_volumes.items()}
    assert list(tested) == [
        *(("vnet", "paper"), ("swin-unet", "paper"), ("base", "paper"), ("base", "sound"))
    ]
    assert [cell for cell, p in tested.items() if p is None] == [("base", "paper")]


def test_without_the_base_cell_rivals_are_compared_with_the_first_of_the_ablations(root):
    params = make_params()
    params.grid.main_cell = "scratch"
    runs = [Run("isic17-64", cell, "paper", 42) for cell in ("scratch", "unet")]
    write_runs(root, params, runs)
    by_run = figures(tables(root, params, runs)["I"], "isic17", "miou")
    p = {cell: figure.inference.p for (cell, *_), figure in by_run.items()}
    assert p["scratch"] is None
    assert 0 < p["unet"] <= 1


def test_other_sizes_are_tested_against_the_base_size(computed):
    by_run = figures(computed["VI"], "isic17", "miou")
    assert {view for _, _, view in by_run} == {"isic17-64", "isic17-96", "isic17-128"}
    for (_, protocol, view), figure in by_run.items():
        is_base = (protocol, view) == ("paper", "isic17-64")
        assert (figure.inference.p is None) == is_base


def test_without_base_runs_there_is_no_test(root):
    params = make_params()
    runs = [Run("isic17-64", "scratch", protocol, 42) for protocol in ("paper", "sound")]
    write_runs(root, params, runs)
    by_run = figures(tables(root, params, runs)["I"], "isic17", "miou")
    assert [figure.inference.p for figure in by_run.values()] == [None, None]
    assert all(figure.inference.low < figure.inference.high for figure in by_run.values())


def test_volumes_in_percent_and_voxels(computed):
    table = computed["II"]
    base, sound = (made_up_cases(run) for run in volume_runs(make_params(volumes=(64,))))
    samples = [
        {
            column: CaseSample(
                np.array([row[column] for row in rows]).reshape(1, 12, len(ORGANS)), ORGANS
            )
            for column in ("paper_dice", "paper_hd95_voxels")
        }
        for rows in (base, sound)
    ]
    for metric, column, name, scale in (
        ("dsc", "paper_dice", "", 100),
        ("liver", "paper_dice", "liver", 100),
        ("hd95", "paper_hd95_voxels", "", 1),
    ):
        of_base, of_sound = figures(table, "synapse", metric).values()
        of_sample = replace(samples[0][column], highest=np.inf if metric == "hd95" else 1.0)
        low, high = intervals(of_sample)[name]
        assert of_base.inference.low == pytest.approx(scale * low)
        assert of_base.inference.high == pytest.approx(scale * high)
        p = permutation_p(samples[0][column], samples[1][column])[name]
        assert of_sound.inference.p == p


def test_difference_has_the_interval_moved_by_the_published_value():
    figure = Figure(80.0, 82.0, None, Inference(79.0, 84.5, None, False))
    assert figure.difference_interval == (-1.0, 4.5)
    assert Figure(None, 82.0, None, Inference(79.0, 84.5, None, False)).difference_interval is None
    assert Figure(80.0).difference_interval is None


def test_a_star_needs_a_test_of_methods():
    assert Inference(1, 2, 0.049, True).significant
    assert not Inference(1, 2, 0.05, True).significant
    assert not Inference(1, 2, 0.0001, False).significant
    assert not Difference((1, 2), (1, 2), 1, 2, 0.0001, False).significant


@pytest.mark.parametrize("seeds", [(1,), (1, 2), (1, 2, 3)])
def test_with_fewer_than_three_seeds_no_star_is_printed(root, seeds):
    """However clear the difference of the trained models is."""
    params = make_params()
    runs = all_runs(params, seeds=seeds, cells=("base", "scratch"), sound=())
    for run in runs:
        quality = 0.9 if run.cell == "base" else 0.5
        write_images(
            root, params, run, made_up_counts(run, params.view(run.view).size, quality=quality)
        )
    figure = figures(tables(root, params, runs)["I"], "isic17", "miou")[
        "scratch", "paper", "isic17-64"
    ]
    assert figure.inference.p < 0.05
    assert figure.inference.methods == figure.inference.significant == (len(seeds) == 3)
    inputs = read_inputs(root, params, runs, Statistics(root))
    made = Assembler(inputs).tables()
    sheets = [
        paper_sheet(made[0], inputs.declared, caption(made[0], inputs)),
        comparison_sheet(inputs, compared(made, inputs)),
    ]
    for sheet in sheets:
        cells = [cell for block in sheet.blocks for line in block.lines for cell in line.cells]
        assert any(cell.star for cell in cells) == (len(seeds) == 3), sheet.name
    assert {"models", "methods"} & {cell.text for cell in cells} == {
        "methods" if len(seeds) == 3 else "models"
    }


def test_seeds_are_one_row(root):
    params = make_params()
    runs = all_runs(params, seeds=(1, 2, 3), cells=("base", "scratch"), sound=())
    write_runs(root, params, runs)
    by_run = figures(tables(root, params, runs)["I"], "isic17", "dsc")
    seeds = {
        cell: ImageSample(
            np.stack(
                [made_up_counts(Run("isic17-64", cell, "paper", s), 64)["paper"] for s in (1, 2, 3)]
            )
        )
        for cell in ("base", "scratch")
    }
    inference = by_run["scratch", "paper", "isic17-64"].inference
    assert inference.low == pytest.approx(100 * intervals(seeds["scratch"])["dsc"][0])
    assert inference.p == methods(seeds["base"], seeds["scratch"])["dsc"].p
    assert inference.methods


def test_images_are_matched_by_id(computed, grid):
    """Another order of rows changes nothing."""
    root, params, runs = grid
    before = figures(computed["I"], "isic17", "miou")
    path = metrics_file(root, params, runs[1]).with_name("per_image.csv")
    assert (runs[1].view, runs[1].cell) == ("isic17-64", "scratch")
    write_rows(root, params, runs[1], read_rows(path)[::-1])
    assert figures(tables(*grid)["I"], "isic17", "miou") == before


def test_each_file_is_read_once_and_nothing_is_computed_twice(grid, monkeypatch):
    """All tables and both protocols' differences, from one interval of each model's scores."""
    read, drawn, tested = [], [], []
    open_file, draw, test = Path.open, statistics.intervals, statistics.difference_p
    monkeypatch.setattr(
        Path, "open", lambda self, *a, **k: read.append(self) or open_file(self, *a, **k)
    )

    def counted(sample):
        drawn.append(sample.parts().tobytes())
        return draw(sample)

    def counted_test(a, b):
        tested.append([sample.parts().tobytes() for sample in (a, b)])
        return test(a, b)

    monkeypatch.setattr(statistics, "intervals", counted)
    monkeypatch.setattr(statistics, "difference_p", counted_test)
    root, params, runs = grid
    inputs = read_inputs(root, params, runs, Statistics(root))
    Assembler(inputs).tables()
    assert len(pairs(inputs)) == 2 * 3 + 1
    own = [path for path in read if path.name.startswith("per_")]
    assert len(own) == len(set(own)) == len(runs)
    assert len(drawn) == len(set(drawn)) > 8
    assert len(tested) == len(set(map(tuple, tested))) > 8


def test_protocols_of_a_cell_in_pairs(grid):
    root, params, runs = grid
    results = results_of(root, params, runs)
    paper, sound = (
        [r for r in results if (r.run.view, r.run.cell, r.run.protocol) == ("isic17-64", "base", p)]
        for p in ("paper", "sound")
    )
    forward = Statistics(root).difference(paper, sound, "mean_dice")
    backward = Statistics(root).difference(sound, paper, "mean_dice")
    assert forward.low < forward.high
    assert (forward.first, forward.second, forward.p) == (
        backward.second,
        backward.first,
        backward.p,
    )
    assert (forward.low, forward.high) == pytest.approx((-backward.high, -backward.low))
    samples = [
        ImageSample(made_up_counts(r.run, 64)["native_size"][None]) for r in (*paper, *sound)
    ]
    expected = paired(*samples)["mean_dice"]
    interval_and_p = (forward.low, forward.high, forward.p)
    assert interval_and_p == pytest.approx((100 * expected.low, 100 * expected.high, expected.p))


def break_row(root, params, run, change, name="per_image.csv"):
    path = metrics_file(root, params, run).with_name(name)
    rows = read_rows(path)
    write_rows(root, params, run, change(rows) or rows)


def drop(rows, column):
    return [{key: value for key, value in row.items() if key != column} for row in rows]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: drop(rows, "paper_fn"), "KeyError: 'paper_fn'"),
        (lambda rows: rows[:-1], "23 of 24 ids"),
        (lambda rows: rows[3].update(paper_tp="many"), "'many'"),
        (lambda rows: rows[3].update(id="ISIC_9"), "has other ids than .*ISIC_0000003 is in"),
        (
            lambda rows: rows[3].update(native_size_tp=int(rows[3]["native_size_tp"]) + 1),
            "was measured against other masks than",
        ),
    ],
)
def test_a_file_of_other_images_is_named(grid, change, words):
    root, params, runs = grid
    run = Run("isic17-64", "scratch", "paper", 42)
    break_row(root, params, run, change)
    with pytest.raises(InputError, match=words) as raised:
        tables(root, params, runs)
    message = str(raised.value)
    assert message.startswith("metrics/demo/isic17-64/scratch/paper/42/per_image.csv")
    again = "run `vmunet sweep --cells isic17-64-scratch-paper-42`"
    assert message.endswith((again, "train and evaluate both from the same data"))


def test_missing_and_empty_files_are_named(grid):
    root, params, runs = grid
    path = metrics_file(root, params, BASE).with_name("per_image.csv")
    for content in (b"id\n", b"id\n\xff\xfe\n"):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"per_image.csv: does not hold the scores of each"):
            tables(root, params, runs)
    path.unlink()
    with pytest.raises(InputError, match=r"per_image.csv: no such file; .*; run `vmunet sweep"):
        tables(root, params, runs)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows[:-1], "does not hold .*'stomach'"),
        (lambda rows: rows[:-8], "11 of 12 cases"),
        (lambda rows: rows[9].update(truth_voxels="7"), "was measured against other masks"),
        (lambda rows: [row | {"case": row["case"][4:]} for row in rows], "has other cases than"),
    ],
)
def test_a_file_of_other_cases_is_named(grid, change, words):
    root, params, runs = grid
    run = Run("synapse-64", "base", "sound", 42)
    break_row(root, params, run, change, "per_case.csv")
    with pytest.raises(InputError, match=words) as raised:
        tables(root, params, runs)
    assert str(raised.value).startswith("metrics/demo/synapse-64/base/sound/42/per_case.csv")


def test_undefined_figures_have_no_interval(root):
    """An organ whose scores of the sound convention no case defines; the paper's are numbers."""
    params = make_params(volumes=(64,))
    (paper, sound) = volume_runs(params)
    rows = made_up_cases(paper)
    write_cases(root, params, paper, [row | {"hd95_mm": ""} for row in rows])
    write_cases(root, params, sound, [row | {"hd95_mm": ""} for row in rows])
    results = results_of(root, params, [paper, sound])
    computed = Statistics(root)
    assert np.isnan(computed.measured(results[:1], "hd95_mm").intervals["liver"]).all()
    assert not np.isnan(computed.measured(results[:1], "dice").intervals["liver"]).any()


def test_a_single_image_has_no_interval(root):
    params = make_params()
    run = Run("isic17-64", "base", "paper", 42)
    counts = made_up_counts(run, 64, images=1)
    write_images(root, params, run, counts)
    assert [row["id"] for row in image_rows(counts)] == image_ids(1)
    inference = figures(tables(root, params, [run])["I"], "isic17", "dsc").popitem()[1]
    assert (inference.inference.low, inference.inference.high) == (None, None)
