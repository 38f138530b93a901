"""Tables: golden LaTeX from made-up metrics, dashes, errors, escaping, seeds, traceability."""

import json
import re
import statistics
from pathlib import Path
from types import SimpleNamespace

import pytest

from reports.make.report import PATH, read_report
from reports.make.tables.writing import make_tables, rendered
from reports.make.typeset.render import environment
from reports.make.typeset.sheet import SheetCell
from reports.make.typeset.words import number, signed
from tests.helpers.paths import ROOT
from tests.helpers.tables import (
    RIVALS,
    Run,
    all_runs,
    made,
    made_up,
    make_params,
    metrics_file,
    prepare,
    rows_of,
    sound_scores,
    write_metrics,
)
from tests.helpers.tables_measuring import (
    SOME,
    SOME_OF_VOLUMES,
    MadeUpStatistics,
    make_everything,
)
from vmunet.errors import InputError

GOLDEN = ROOT / "tests/golden_tables"


def golden_files(root):
    """Every file that shows the report; a separate test is about report.json."""
    paths = sorted(make_everything(root).iterdir())
    return {path.name: path.read_bytes() for path in paths if path.name != PATH.name}


def test_golden(root):
    files = golden_files(root)
    assert set(files) == {path.name for path in GOLDEN.iterdir()}
    for name, content in files.items():
        assert content == (GOLDEN / name).read_bytes(), name


def test_every_file_shows_the_content_of_report_json(root):
    """The report read back from its file renders to the same bytes."""
    folder = make_everything(root)
    texts = rendered(read_report(root), root / "reports/templates/tables")
    written = {path.name: path.read_text() for path in folder.iterdir()}
    assert written.pop(PATH.name) == read_report(root).json()
    assert texts == written


def test_a_missing_or_foreign_report_is_one_error(root):
    with pytest.raises(InputError, match=r"report\.json: no such file; .*python -m stages.tables"):
        read_report(root)
    path = made(root, make_params(), []) / PATH.name
    for text in ("{", "[]", '{"provenance": {}}'):
        path.write_text(text)
        with pytest.raises(InputError, match=r"report\.json: does not hold what .*stages.tables"):
            read_report(root)


def test_same_bytes_twice_and_old_files_go(root):
    first = golden_files(root)
    folder = root / "reports/out/tables"
    (folder / "table7.tex").write_text("stale")
    params = make_params(volumes=(64,), cross=("isic17-to-isic18",))
    first_runs = all_runs(params, (1, 2, 3), rivals=SOME, volume_rivals=SOME_OF_VOLUMES)
    make_tables(root, params, first_runs, MadeUpStatistics())
    again = {path.name: path.read_bytes() for path in folder.iterdir() if path.name in first}
    assert again == first
    assert {path.name for path in folder.iterdir()} == {*first, PATH.name}


def test_a_figure_without_runs_is_a_dash(root):
    params = make_params()
    runs = all_runs(params, cells=["scratch"], sound=())
    runs = [run for run in runs if run.view == "isic17-64" and run.cell == "scratch"]
    write_metrics(root, params, runs)
    folder = made(root, params, runs)
    rows = rows_of(folder, "table1")
    measured = {(row["row"], row["dataset"]): row["measured_miou"] for row in rows}
    assert [key for key, value in measured.items() if value] == [
        ("VM-UNet (from scratch)", "isic17")
    ]
    tex = (folder / "table3.tex").read_text()
    assert r"VMamba-S & \textbf{80.23} & -- & \textbf{89.03} & -- &" in tex
    # A single measured value is not the best of a column.
    assert r"none & 77.59 & 70.40 & 87.38 & 82.63 & 78.66 & -- &" in tex
    assert "nothing measured" in (folder / "table2.tex").read_text()


def test_what_the_grid_does_not_run_is_published_only(root):
    params = make_params()
    runs = all_runs(params)
    write_metrics(root, params, runs)
    folder = made(root, params, runs)
    assert all(
        not row["measured_dsc"] and row["n_seeds"] == "0" for row in rows_of(folder, "table2")
    )
    rivals = [row for row in rows_of(folder, "table1") if row["cell"] in RIVALS]
    assert len(rivals) == 11
    assert all(row["published_miou"] and not row["measured_miou"] for row in rivals)
    tex = (folder / "table2.tex").read_text()
    assert "UCTransNet {[}43] & published &  & 78.23 & 26.75 & -- & -- " in tex
    assert "& measured" not in tex
    assert "DARR is quoted alone: no code and no layer sizes" in tex
    assert not (folder / "recipes.tex").exists()
    assert not (folder / "models.tex").exists()


def test_rivals_are_measured_beside_vm_unet(root):
    params = make_params(volumes=(64,))
    params.cells["transfuse"].init = "imagenet"
    params.cells["transfuse-imagenet"] = params.cells["transfuse"]
    params.profile.weights.source = "http"
    rivals, volume_rivals = ("unet", "unetpp", "transfuse"), ("vnet", "swin-unet")
    runs = all_runs(params, rivals=rivals, volume_rivals=volume_rivals)
    write_metrics(root, params, runs)
    folder = made(root, params, runs, MadeUpStatistics())
    rows = {(r["row"], r["dataset"]): r for r in rows_of(folder, "table1")}
    expected = 100 * made_up(Run("isic17-64", "unet", "paper", 42))["miou"]
    assert float(rows["UNet", "isic17"]["measured_miou"]) == pytest.approx(expected, abs=1e-4)
    assert rows["UNet", "isic17"]["p_miou"] == "0.0123"
    started = {name: row["initial_weights"] for (name, _), row in rows.items()}
    assert (started["UNet"], started["TransFuse"]) == ("none", "ImageNet")
    assert (started["VM-UNet"], started["VM-UNet (from scratch)"]) == ("VMamba-S", "none")
    assert started["MALUNet"] == ""  # it has no run
    # A row of ISIC17 that is neither published nor measured is not there.
    assert ("UNet++", "isic17") in rows
    assert ("SANet", "isic17") not in rows
    tex = (folder / "table1.tex").read_text()
    assert r"UNet {[}1] & none & 76.98 & 74.00 &" in tex  # no star: one seed
    assert "other models 0.25 times as wide as published" in tex
    assert "Every measured model is trained by one protocol" in tex
    rows = {r["row"]: r for r in rows_of(folder, "table2") if r["protocol"] == "paper"}
    assert rows["Swin U-Net"]["n_seeds"] == "1"
    assert rows["TransUnet"]["n_seeds"] == "0"
    tex = (folder / "table2.tex").read_text()
    assert re.search(r"V-Net \{\[}39] & published &.*\n & measured & none & 72", tex)
    assert "\n & measured & -- & -- & -- &" in tex  # a dash for what is not run
    named = "3 other models" if len({*rivals, *volume_rivals}) == 3 else "5 other models"
    assert f"10 variants of VM-UNet and {named} under" in (folder / "index.md").read_text()


def test_a_row_that_the_paper_does_not_report_needs_a_run(root):
    params = make_params()
    params.cells["sanet-imagenet"] = params.cells["sanet"]
    runs = all_runs(params, rivals=("unet", "unet-34m"))
    write_metrics(root, params, runs)
    names = [row["row"] for row in rows_of(made(root, params, runs), "table1")]
    assert names.count("UNet (34.5 M)") == 2
    assert not any("ImageNet" in name for name in names)  # without a run, and without a cell
    runs += [Run("isic17-64", "sanet-imagenet", "paper", 42)]
    write_metrics(root, params, runs[-1:])
    rows = rows_of(made(root, params, runs), "table1")
    shown = [row["dataset"] for row in rows if row["row"] == "SANet (ImageNet)"]
    assert shown == ["isic17"]


def test_seeds_give_mean_and_sample_deviation(root):
    params = make_params()
    runs = all_runs(params, seeds=(1, 2, 5))
    write_metrics(root, params, runs)
    folder = made(root, params, runs)
    scores = [100 * made_up(Run("isic17-64", "base", "paper", s))["miou"] for s in (1, 2, 5)]
    row = next(row for row in rows_of(folder, "table1") if row["cell"] == "base")
    assert float(row["measured_miou"]) == pytest.approx(statistics.mean(scores), abs=1e-4)
    assert float(row["std_miou"]) == pytest.approx(statistics.stdev(scores), abs=1e-4)
    assert float(row["difference_miou"]) == pytest.approx(statistics.mean(scores) - 80.23, abs=1e-4)
    assert row["n_seeds"] == "3"
    shown = f"{statistics.mean(scores):.2f}\\,$\\pm$\\,{statistics.stdev(scores):.2f}"
    assert shown in (folder / "table1.tex").read_text()
    assert (
        "seeds 1, 2 and 5 (mean $\\pm$ sample standard deviation)"
        in (folder / "table1.tex").read_text()
    )


def test_one_seed_says_so(root):
    params = make_params()
    runs = all_runs(params)
    write_metrics(root, params, runs)
    tex = (made(root, params, runs) / "table4.tex").read_text()
    assert "seed 42; " in tex
    assert r"\pm" not in tex


def test_sound_rows_follow_their_cell(root):
    params = make_params()
    runs = all_runs(params, sound=("base", "scratch"))
    write_metrics(root, params, runs)
    folder = made(root, params, runs)
    for name, first in (("table1", "VM-UNet"), ("table3", "VMamba-S"), ("table4", "0.2")):
        rows = [row for row in rows_of(folder, name) if row["dataset"] == "isic17"]
        labels = [row["row"] for row in rows]
        place = labels.index(first)
        assert labels[place + 1] == f"{first}, sound protocol"
        paper, sound = rows[place], rows[place + 1]
        assert sound["published_row"] == paper["published_row"]
        expected = float(sound["measured_dsc"]) - float(paper["published_dsc"])
        assert float(sound["difference_dsc"]) == pytest.approx(expected, abs=1e-4)
    tex = (folder / "table3.tex").read_text()
    # The paper reports no such run: a dash, though the CSV compares it with the row above.
    assert tex.count("\\quad sound protocol & --") == 2
    assert "10 runs, 6 under the paper protocol and 4 under the sound one" in tex


def test_input_sizes_match_by_ratio(root):
    params = make_params(sizes=(64, 96, 128, 160))
    runs = all_runs(params)
    write_metrics(root, params, runs)
    rows = [
        row for row in rows_of(made(root, params, runs), "table6") if row["protocol"] == "paper"
    ]
    shown = [
        (row["row"], row["size_here"], row["view"]) for row in rows if row["dataset"] == "isic17"
    ]
    assert shown == [
        ("256×256", "64×64", "isic17-64"),
        ("384×384", "96×96", "isic17-96"),
        ("512×512", "128×128", "isic17-128"),
        ("--", "160×160", "isic17-160"),  # a size that the paper did not try has its own row
    ]
    isic18 = [row["measured_miou"] != "" for row in rows if row["dataset"] == "isic18"]
    assert isic18 == [True, False, False]


def test_complexity_columns(root):
    params = make_params()
    runs = all_runs(params)
    write_metrics(root, params, runs)
    folder = made(root, params, runs)
    row = rows_of(folder, "table5")[0]
    names = ("published_params_M", "params_M", "published_flops_G", "macs_paper_G")
    assert [row[name] for name in (*names, "macs_complete_G")] == [
        "27.43", "27.43", "4.11", "4.11", "8.30",
    ]  # fmt: skip
    tex = (folder / "table5-cost.tex").read_text()
    assert "the models trained here have width 8" in tex
    assert r"\{2,2,2,2-2,2,2,1\} & 27.43 & 27.43 & 4.11 & 4.11 & 8.30 & -- & -- & -- & -- \\" in tex
    assert "27.43" not in (folder / "table5.tex").read_text()


def test_caption_names_the_sources_of_the_table(root):
    params = make_params()
    runs = all_runs(params)
    write_metrics(root, params, runs)
    folder = made(root, params, runs)
    for name in ("table1.tex", "table3.tex", "table4.tex", "table5.tex", "table6.tex"):
        text = (folder / name).read_text()
        for dataset in ("ISIC17", "ISIC18"):
            made_from = f"{dataset}: 56 training and 24 test phantom images (synthetic), used at 64"
            assert made_from in text, (name, dataset)
            assert f"{dataset} (phantoms)" in text
        assert r"\textbf{Figures on phantoms say nothing about skin lesions.}" in text
        assert "Profile demo, seed 42; " in text
        assert "width 8 (paper: 96), 12 epochs (paper: 300), batch size 4 (paper: 32)," in text
        assert "short pre-training on phantoms" in text
    assert "hantom" not in (folder / "table2.tex").read_text()
    assert "drop\\_path\\_rate" in (folder / "table4.tex").read_text()


def test_caption_of_real_images_that_are_no_larger_than_the_views(root):
    params = make_params((256, 384, 512), "http", (96, 192, 384, 768), 300, 32)
    runs = all_runs(params)
    write_metrics(root, params, runs, source="file", native=(256, 256))
    folder = made(root, params, runs)
    text = (folder / "table6.tex").read_text().replace("$\\times$", "x")
    assert "hantom" not in text
    assert "24 test real images from local archives, stored at 256x256, used at" in text
    assert "ISIC17: At 256x256 the images are not resized: the soft masks" in text
    assert "At 384x384 and 512x512 the images are upsampled" in text
    assert (
        "On images: width 96, 300 epochs, batch size 32, learning rate 0.001, T\\_max 50. All are "
        "the paper's."
    ) in text


def test_each_block_says_what_it_was_made_from(root):
    """A sample of real images beside phantoms: only the phantoms' block is called phantoms."""
    params = make_params()
    runs = all_runs(params)
    write_metrics(root, params, runs)
    for run in runs:
        if run.view.startswith("isic17"):
            path = metrics_file(root, params, run)
            content = json.loads(path.read_text())
            counts = {"source": "sample", "n_train": 168, "n_test": 72}
            content["data"] |= counts | {"native_min": [128, 128], "native_max": [128, 128]}
            path.write_text(json.dumps(content))
    folder = made(root, params, runs)
    origins = read_report(root).origins
    assert [(one.tagged, one.kind) for one in origins.values()] == [
        ("ISIC17 (sample)", "sample"),
        ("ISIC18 (phantoms)", "phantom"),
    ]
    assert origins["isic17"].sentences.replace("\u00d7", "x") == (
        "ISIC17: a sample of 240 real ISIC 2017 images (168 to train, 72 to test), stored at "
        "128x128, used at 64x64, 96x96 and 128x128. Not the paper's 1,500 and 650 images: the "
        "figures do not compare with the published ones."
    )
    assert origins["isic18"].caution == "Figures on phantoms say nothing about skin lesions."
    blocks = (folder / "table1.tex").read_text().split(r"\midrule")
    assert r"\textbf{ISIC17 (sample)}" in blocks[1]
    assert r"\textbf{ISIC18 (phantoms)}" in blocks[2]
    for name in ("table3", "comparison", "sound", "protocols"):
        text = (folder / f"{name}.tex").read_text()
        assert "ISIC17 (sample)" in text
        assert "ISIC18 (phantoms)" in text
        assert "ISIC17 (phantoms)" not in text
    assert read_report(root).summary == (
        f"Profile demo: {len(runs)} runs of 10 variants of VM-UNet under the paper and sound "
        "protocols, seed 42, trained and tested on ISIC17 (a sample of 240 real images, 168 to "
        "train and 72 to test) and ISIC18 (56 training and 24 test phantoms)."
    )


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("epochs", 299, "width 96, 299 epochs (paper: 300), batch size 32,"),
        ("batch_size", 16, "300 epochs, batch size 16 (paper: 32), learning rate 0.001,"),
        ("learning_rate", 5e-3, "batch size 32, learning rate 0.005 (paper: 0.001), T_max 50."),
        ("t_max", 2, "learning rate 0.001, T_max 2 (paper: 50)."),
    ],
)
def test_one_other_setting_is_not_as_in_the_paper(root, name, value, words):
    params = make_params((256, 384, 512), "http", (96, 192, 384, 768), 300, 32)
    setattr(params.profile.train, name, value)
    runs = all_runs(params)
    write_metrics(root, params, runs, source="http")
    text = (made(root, params, runs) / "index.md").read_text()
    assert words in text.replace("\\_", "_")
    assert "All are the paper's" not in text
    assert "images of the real archive (downloaded), natively 80 to 160 px wide" in text


def test_a_cell_with_settings_of_its_own_is_an_exception(root):
    params = make_params((256, 384, 512), "http", (96, 192, 384, 768), 300, 32)
    params.cells["base"].train = SimpleNamespace(learning_rate=5e-4, weight_decay=None)
    params.cells["base"].loss_weights = [1.0, 2.0]
    runs = all_runs(params)
    write_metrics(root, params, runs, source="http")
    text = (made(root, params, runs) / "index.md").read_text()
    assert (
        "All are the paper's. Except: cell base trains with learning rate 0.0005 and loss weights "
        "1 and 2." in text.replace("\\_", "_")
    )


def test_the_sound_metrics_of_every_run(root):
    params = make_params()
    runs = all_runs(params, seeds=(1, 2))
    write_metrics(root, params, runs)
    folder = made(root, params, runs)
    by_run = {row["run"]: row for row in rows_of(folder, "sound")}
    assert set(by_run) == {run.name for run in runs}
    run = Run("isic18-64", "base", "sound", 2)
    row, scores = by_run[run.name], sound_scores(made_up(run))
    assert float(row["paper_miou"]) == pytest.approx(100 * made_up(run)["miou"], abs=1e-4)
    for size in ("training_size", "native_size"):
        for name in ("miou", "mean_iou", "mean_dice", "thresholded_jaccard"):
            expected = (scores[size][name], *scores[size]["intervals"][name])
            shown = [float(row[f"{size}_{name}{end}"]) for end in ("", "_low", "_high")]
            assert shown == pytest.approx([100 * value for value in expected], abs=1e-4)
    traced = next(row for row in rows_of(folder, "runs") if row["run"] == run.name)
    assert traced["native_size_mean_dice"] == row["native_size_mean_dice"]
    line = "base & sound & 2 & 79.80 & 80.00 & 81.00 [79.50, 83.00] & 89.00 [87.50, 91.00]"
    tex = (folder / "sound.tex").read_text().replace("{[}", "[")
    assert line in tex
    line = "base & sound & 2 & 79.80 & 79.90 & 80.90 [79.40, 82.90] & 88.90 [87.40, 90.90]"
    assert line in (folder / "sound-native.tex").read_text().replace("{[}", "[")
    assert r"\textbf{Figures on phantoms say nothing about skin lesions.}" in tex
    assert "\n### ISIC18 (phantoms) at 64×64\n" in (folder / "index.md").read_text()


def test_undefined_sound_metrics_are_dashes(root):
    params = make_params()
    runs = all_runs(params)
    write_metrics(root, params, runs)
    path = metrics_file(root, params, runs[0])
    content = json.loads(path.read_text())
    native = content["sound"]["native_size"]
    native["mean_dice"], native["thresholded_jaccard"] = None, None
    for name in ("mean_iou", "mean_dice"):
        native["intervals"][name] = [None, None]
    path.write_text(json.dumps(content))
    folder = made(root, params, runs)
    tex = (folder / "sound-native.tex").read_text().replace("{[}", "[")
    assert "70.10 & 71.10 [--] & -- & -- & " in tex
    row = rows_of(folder, "sound")[0]
    assert row["native_size_mean_dice"] == row["native_size_mean_iou_low"] == ""


def test_every_figure_leads_to_its_files(root):
    params = make_params()
    runs = [*all_runs(params, seeds=(1, 2)), Run("isic17-64", "base", "paper", 1)]
    write_metrics(root, params, dict.fromkeys(runs))
    folder = made(root, params, runs)
    trace = {row["metrics_file"]: row for row in rows_of(folder, "runs")}
    assert len(trace) == len(set(runs)) == len(rows_of(folder, "runs"))
    for name in (f"table{i}" for i in range(1, 7)):
        for row in rows_of(folder, name):
            files = row["metrics_files"].split(";") if row["metrics_files"] else []
            assert len(files) == int(row["n_seeds"])
            assert bool(files) == bool(row["measured_dsc"])
            for file in files:
                assert (root / file).is_file()
                assert trace[file]["checkpoint_sha256"].startswith("sha-of-")
                assert row["table"] in trace[file]["tables"].split()


def test_a_cell_that_no_table_shows_is_named(root):
    params = make_params()
    params.cells["mine_too"] = params.cells["base"]
    runs = [Run("isic17-64", "mine_too", "paper", 42), *all_runs(params)]
    write_metrics(root, params, runs, scores=lambda run: made_up(Run("v", "base", "paper", 1)))
    text = (made(root, params, runs) / "index.md").read_text()
    assert "## Runs that no table of the paper shows\n\n- isic17-64-mine\\_too-paper-42\n" in text


def test_missing_metrics_names_the_file_and_writes_nothing(root):
    params = make_params()
    runs = all_runs(params)
    write_metrics(root, params, runs)
    path = metrics_file(root, params, runs[3])
    path.unlink()
    with pytest.raises(InputError, match=str(path.relative_to(root))):
        make_tables(root, params, runs)
    assert not (root / "reports/out/tables").exists()


@pytest.mark.parametrize(
    ("section", "field", "value", "words"),
    [
        ("run", "seed", 41, "is of another run: its seed is 41, not 42"),
        ("run", "profile", "paper", "is of another run: its profile is 'paper', not 'demo'"),
        ("run", "size", 96, "is of another run: its size is 96, not 64"),
        ("data", "n_train", 57, "'data.n_train' is 57, but 56 in .* train and evaluate both"),
        ("data", "source", "elsewhere", "its data.source is 'elsewhere'"),
    ],
)
def test_a_file_of_another_run_or_of_other_data_is_named(root, section, field, value, words):
    params = make_params()
    runs = all_runs(params)
    write_metrics(root, params, runs)
    path = metrics_file(root, params, runs[2])
    content = json.loads(path.read_text())
    content[section][field] = value
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=f"{path.relative_to(root)}: .*{words}"):
        make_tables(root, params, runs)


@pytest.mark.parametrize("text", ["{", "[]", '{"run": {}}', "no JSON \udcff"])
def test_a_file_that_is_no_metrics_file_is_named(root, text):
    params = make_params()
    runs = all_runs(params)
    write_metrics(root, params, runs)
    path = metrics_file(root, params, runs[0])
    path.write_text(text, errors="surrogateescape")
    with pytest.raises(InputError) as caught:
        make_tables(root, params, runs)
    message = str(caught.value)
    assert message.startswith(str(path.relative_to(root)))
    assert message.endswith(f"run `vmunet sweep --cells {runs[0].name}`")
    assert "\n" not in message


def test_a_metrics_file_without_scores_is_named(root):
    params = make_params()
    runs = all_runs(params)
    write_metrics(root, params, runs)
    path = metrics_file(root, params, runs[0])
    content = json.loads(path.read_text())
    del content["sound"]["native_size"]
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"does not hold the scores of a run \(KeyError: 'native_"):
        make_tables(root, params, runs)


def test_two_base_views_of_a_dataset_are_refused(root):
    params = make_params()
    params.grid.ablation_views.append(params.grid.size_views.pop())
    runs = all_runs(params)
    write_metrics(root, params, runs)
    with pytest.raises(InputError, match="grid\\.ablation_views has 2 views of isic17"):
        make_tables(root, params, runs)


def test_an_unknown_cell_or_published_row_is_named(root):
    params = make_params()
    runs = all_runs(params)
    write_metrics(root, params, runs)
    path = root / "reports" / "tables.yaml"
    text = path.read_text()
    path.write_text(text.replace("cell: vmamba-t}", "cell: vmamba-b}"))
    with pytest.raises(InputError, match="no cell 'vmamba-b'"):
        make_tables(root, params, runs)
    path.write_text(text.replace("published: I.sanet,", "published: I.sannet,"))
    with pytest.raises(InputError, match=r"I\.sannet"):
        make_tables(root, params, runs)


def test_a_cell_that_params_renamed_is_named(root):
    params = make_params()
    params.cells["from-scratch"] = params.cells.pop("scratch")
    runs = all_runs(params, cells=["base"])
    write_metrics(root, params, runs)
    with pytest.raises(InputError, match=r"reports/tables\.yaml: row .* no cell 'scratch'"):
        make_tables(root, params, runs)


def test_the_last_section_names_the_origin_of_the_figures(root):
    folder = make_everything(root)
    for name, end in (("all.tex", r"\end{document}"), ("index.md", "Each table's figures")):
        text = (folder / name).read_text()
        last = text.split("Where these figures come from")[1].split(end)[0]
        for words in ("demo: A made-up profile", "seeds 1, 2 and 3", "revision"):
            assert words in last, (name, words)
        assert "about skin lesions" in last


def test_an_empty_grid_gives_the_published_figures(root):
    params = make_params()
    folder = made(root, params, [])
    assert "VM-UNet & -- & \\textbf{80.23} & -- & \\textbf" in (folder / "table1.tex").read_text()
    names = {path.stem for path in folder.iterdir()}
    assert not {"sound", "organs", "comparison", "protocols", "cross"} & names
    assert "81.35 & 78.0--80.4 & -- & -- & -- & --" in (folder / "reproductions.tex").read_text()


def test_a_bold_starred_cell():
    template = environment(GOLDEN).from_string(r"{\VAR{name | tex}} \VAR{cell | cell}")
    shown = template.render(name="50%_", cell=SheetCell("1 ± 2", bold=True, star=True))
    assert shown == r"{50\%\_} \textbf{1\,$\pm$\,2}\rlap{*}"


def test_numbers():
    assert number(None) == signed(None) == "--"
    assert number(80.226, 0.004) == "80.23 ± 0.00"
    assert [signed(x) for x in (1.005, -1.234, -0.001)] == ["+1.00", "\u22121.23", "0.00"]


if (
    __name__ == "__main__"
):  # writes the golden files again: look at the difference before committing
    import tempfile

    with tempfile.TemporaryDirectory() as made_root:
        prepare(Path(made_root), lambda mapping, key, value: mapping.update({key: value}))
        GOLDEN.mkdir(exist_ok=True)
        for file_name, file_content in golden_files(Path(made_root)).items():
            (GOLDEN / file_name).write_bytes(file_content)


def test_a_row_of_nothing_is_an_error_and_not_left_out(root):
    path = root / "reports" / "tables.yaml"
    text = path.read_text()
    row = "{label: UNet++, published: I.unetpp, cell: unetpp}"
    assert row in text
    path.write_text(text.replace(row, "{label: UNet++}"))
    params = make_params()
    runs = all_runs(params)
    write_metrics(root, params, runs)
    with pytest.raises(InputError, match=r"row 'UNet\+\+' has neither `published` nor `cell`"):
        made(root, params, runs)


def test_a_score_is_rounded_once(root):
    """Half a digit that the first rounding makes would round up: 47.68499 is 47.68 everywhere."""
    params = make_params()
    run = next(run for run in all_runs(params) if run.cell == "scratch")
    write_metrics(root, params, [run], lambda run: made_up(run) | {"miou": 0.4768498})
    folder = made(root, params, [run])
    for name in ("table1.tex", "sound.tex", "index.md"):
        text = (folder / name).read_text()
        assert "47.68" in text, name
        assert "47.69" not in text, name
