"""Tables of volumes: Table II's measured rows, both conventions by organ, sources."""

import json

import pytest

from reports.make.tables.writing import make_tables
from reports.make.typeset.sheet import markdown_table
from tests.helpers.tables import (
    ORGANS,
    Run,
    all_runs,
    made,
    made_up_organs,
    make_params,
    metrics_file,
    rows_of,
    volume_runs,
    write_metrics,
    write_volume_metrics,
)
from vmunet.errors import InputError


@pytest.fixture
def params():
    return make_params(volumes=(64,))


def change(root, params, run, edit):
    """Apply `edit` to a run's metrics file; returns the file's path as messages name it."""
    path = metrics_file(root, params, run)
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
    return str(path.relative_to(root))


def test_table_2_shows_the_measured_rows(root, params):
    runs = volume_runs(params)
    write_volume_metrics(root, params, runs)
    folder = made(root, params, runs)
    ours = [row for row in rows_of(folder, "table2") if row["cell"] == "base"]
    assert [(row["row"], row["protocol"], row["runs"]) for row in ours] == [
        ("VM-UNet", "paper", "synapse-64-base-paper-42"),
        ("VM-UNet, sound protocol", "sound", "synapse-64-base-sound-42"),
    ]
    for row, run in zip(ours, runs, strict=True):
        paper, _ = made_up_organs(run)
        assert row["published_row"] == "II.vm-unet"
        # HD95 stays in voxels: it is not a percentage.
        assert float(row["measured_hd95"]) == pytest.approx(paper["hd95"], abs=1e-4)
        assert float(row["difference_hd95"]) == pytest.approx(paper["hd95"] - 19.21, abs=1e-4)
        for metric in ("dsc", *ORGANS):
            assert float(row[f"measured_{metric}"]) == pytest.approx(100 * paper[metric], abs=1e-4)
    tex = (folder / "table2.tex").read_text()
    # Lower is better only for HD95; the sound row's better figures are bold.
    assert r" & measured & phantoms & 72.50 & 5.50 & 90.00 &" in tex
    assert r"\quad sound protocol & measured & phantoms & \textbf{74.50} & \textbf{5.30} &" in tex
    assert (r" & published &  & \textbf{81.08} & 19.21 &") in tex
    rivals = [row for row in rows_of(folder, "table2") if row["cell"] != "base"]
    assert len(rivals) == 12
    assert not any(row["measured_dsc"] for row in rivals)


def test_ties_are_bold(root, params):
    runs = volume_runs(params)
    same = made_up_organs(runs[0])
    write_volume_metrics(root, params, runs, blocks=lambda run: same)
    tex = (made(root, params, runs) / "table2.tex").read_text()
    assert (
        tex.count(r" & measured & phantoms & \textbf{72.50} & \textbf{5.50} & \textbf{90.00} &")
        == 2
    )


def test_one_protocol_alone(root, params):
    runs = volume_runs(params, protocols=("paper",))
    write_volume_metrics(root, params, runs)
    folder = made(root, params, runs)
    tex = (folder / "table2.tex").read_text()
    # A single figure is not the best.
    assert r" & measured & phantoms & 72.50 & 5.50 & 90.00 &" in tex
    assert "sound protocol" not in tex
    assert "| measured " in (folder / "index.md").read_text()


def test_no_run_of_volumes_leaves_published_rows_and_no_organs(root):
    params = make_params()
    runs = all_runs(params)
    write_metrics(root, params, runs)
    folder = made(root, params, runs)
    tex = (folder / "table2.tex").read_text()
    assert " & measured" not in tex
    assert "nothing measured" in tex
    assert "voxels" not in tex
    assert not {"organs.tex", "organs.csv"} & {path.name for path in folder.iterdir()}
    index = (folder / "index.md").read_text()
    assert "organs}" not in (folder / "all.tex").read_text()
    assert "both conventions" not in index


def test_caption_of_phantoms(root, params):
    runs = volume_runs(params, seeds=(1, 2))
    write_volume_metrics(root, params, runs)
    folder = made(root, params, runs)
    for name in ("table2.tex", "organs.tex"):
        text = (folder / name).read_text().replace("$\\times$", "x")
        assert r"\textbf{Figures on phantoms say nothing about organs in real CT.}" in text
        for part in (
            "Synapse: 18 training cases (520 slices) and 12 test cases (336 slices) of phantom CT "
            "volumes (synthetic), 64x64 px in plane, used at 64x64. ",
            "Synapse: At 64x64 the slices are not resized.",
            "4 runs, 2 under the paper protocol and 2 under the sound one",
            "12 epochs (paper: 300), batch size 4 (paper: 32),",
            "The paper's slices were resized to 224x224.",
        ):
            assert part in text, (name, part)
        assert "skin" not in text
        assert "images" not in text
    text = (folder / "table2.tex").read_text()
    assert "seeds 1 and 2 (mean $\\pm$ sample standard deviation);" in text
    for part in ("HD95 is in voxels", "text says mm", "lowest training loss", "held-out sixth"):
        assert part in text
    assert "confusion matrix" not in text
    # There is no table of images without any.
    assert not (folder / "sound.tex").exists()


def test_image_tables_say_nothing_of_volumes(root, params):
    runs = all_runs(params)
    write_metrics(root, params, runs)
    folder = made(root, params, runs)
    for name in ("table1", "table3", "table4", "table5", "table6", "sound"):
        text = (folder / f"{name}.tex").read_text()
        assert [word for word in ("olumes", "voxels", "Synapse") if word in text] == [], name
    assert len(rows_of(folder, "sound")) == len(runs) - 2


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("file", "of raw CT volumes from a local folder, 512x512 px in plane, used at 224x224."),
        ("synapse", "of raw CT volumes (downloaded from synapse.org), 512x512 px in plane"),
        ("prepared", "of real CT volumes as TransUNet prepared them (without voxel spacing), 512x"),
    ],
)
def test_real_volumes_by_the_papers_settings(root, source, words):
    params = make_params((256,), "http", (96, 192, 384, 768), 300, 32, volumes=(224,))
    runs = volume_runs(params)
    write_volume_metrics(root, params, runs, source, native=(512, 512))
    folder = made(root, params, runs)
    text = (folder / "table2.tex").read_text().replace("$\\times$", "x")
    assert words in text
    assert "hantom" not in text
    assert "not resized" not in text
    assert (
        "On volumes: width 96, 300 epochs, batch size 32, learning rate 0.001, T\\_max 100. All "
        "are the paper's."
    ) in text
    assert "were resized" not in text


def test_upsampled_slices(root):
    params = make_params(volumes=(64,))
    runs = volume_runs(params)
    write_volume_metrics(root, params, runs, native=(48, 56))
    text = (made(root, params, runs) / "index.md").read_text()
    assert "48 to 56 px wide and 48 to 56 px high in plane, used at 64×64." in text
    assert "At 64×64 the slices are upsampled and gain no detail." in text


def test_organs_under_both_conventions(root, params):
    runs = volume_runs(params, seeds=(1, 2))
    write_volume_metrics(root, params, runs)
    folder = made(root, params, runs)
    rows = rows_of(folder, "organs")
    assert [row["organ"] for row in rows] == [*ORGANS, "mean"] * 4
    run = Run("synapse-64", "base", "sound", 2)
    paper, sound = made_up_organs(run)
    row = next(r for r in rows if (r["run"], r["organ"]) == (run.name, "gallbladder"))
    organ = sound["organs"]["gallbladder"]
    assert float(row["paper_dice"]) == pytest.approx(100 * paper["gallbladder"])
    assert float(row["paper_hd95_voxels"]) == pytest.approx(paper["hd95_organs"]["gallbladder"])
    assert float(row["dice"]) == pytest.approx(100 * organ["dice"])
    assert float(row["hd95_mm"]) == pytest.approx(organ["hd95_mm"])
    assert float(row["hd95_penalised_mm"]) == pytest.approx(organ["hd95_penalised_mm"])
    assert float(row["nsd"]) == pytest.approx(100 * organ["nsd"])
    counts = [row[name] for name in ("dice_n", "hd95_n", "nsd_n", "absent")]
    assert counts == ["11", "10", "11", "1"]
    tex = (folder / "organs.tex").read_text()
    assert "Synapse (phantoms) at 64$\\times$64: base, sound protocol, seed 2" in tex
    assert r"gallbladder & 87.20 & 2.78 & 86.20 & 11 & 3.78 & 10 & 23.78 & 67.20 & 11 & 1 \\" in tex
    assert r"mean & 74.70 & 5.28 & 73.70 & 8 & 6.28 & 8 & 8.78 & 54.70 & 8 & 1 \\" in tex
    assert "within 2 mm of the other" in tex
    assert "spacing" not in tex
    index = (folder / "index.md").read_text()
    assert index.count("| Organ ") == 4
    assert "\\input{organs}" in (folder / "all.tex").read_text()
    traced = next(row for row in rows_of(folder, "runs") if row["run"] == run.name)
    assert float(traced["organs_hd95_mm"]) == pytest.approx(sound["hd95_mm"])
    assert traced["native_size_mean_dice"] == ""
    assert traced["tables"] == "II"


def without_spacing(run):
    """Metrics as of prepared arrays, with a gallbladder that is absent everywhere."""
    paper, sound = made_up_organs(run)
    organs = sound["organs"]
    for organ in organs.values():
        organ |= {"hd95_mm": None, "hd95_n": 0, "nsd": None, "nsd_n": 0}
        organ.pop("hd95_penalised_mm")  # as in a file of an earlier version
    organs["gallbladder"] |= {"dice": None, "dice_n": 0, "absent": 12}
    return paper, sound | {
        "spacing_known": False,
        "hd95_mm": None,
        "nsd": None,
        "hd95_penalised_mm": None,
    }


def test_a_narrow_column_has_a_whole_rule():
    assert markdown_table(["Organ", "n"], [["liver", "3"]]).splitlines()[1] == "| ----- | -: |"


def test_unknown_spacing_is_a_dash_with_a_footnote(root, params):
    runs = volume_runs(params)
    write_volume_metrics(root, params, runs, "prepared", blocks=without_spacing)
    folder = made(root, params, runs)
    tex = (folder / "organs.tex").read_text()
    assert r"aorta & 90.00 & 2.00 & 89.00 & 12 & -- & 0 & -- & -- & 0 & 0 \\" in tex
    assert r"gallbladder & 85.00 & 3.00 & -- & 0 & -- & 0 & -- & -- & 0 & 12 \\" in tex
    assert r"mean & 72.50 & 5.50 & 71.50 & 7 & -- & 0 & -- & -- & 0 & 12 \\" in tex
    assert "HD95 in mm and NSD are not defined: a dash." in tex
    row = rows_of(folder, "organs")[0]
    assert row["hd95_mm"] == row["nsd"] == ""
    assert row["hd95_n"] == "0"
    # The paper's convention needs no spacing.
    assert "5.50 & 90.00" in (folder / "table2.tex").read_text()


def test_a_file_without_an_organ_is_named(root, params):
    runs = volume_runs(params, seeds=(1, 2))
    write_volume_metrics(root, params, runs)
    path = change(root, params, runs[1], lambda content: content["sound"]["organs"].pop("liver"))
    with pytest.raises(
        InputError, match=rf"{path}: does not hold .*'liver'.*--cells {runs[1].name}"
    ):
        make_tables(root, params, runs)


def test_a_missing_file_names_the_command(root, params):
    runs = volume_runs(params)
    write_volume_metrics(root, params, runs[:1])
    with pytest.raises(InputError, match="vmunet sweep --cells synapse-64-base-sound-42"):
        make_tables(root, params, runs)


def test_the_smallest_view_is_the_tables(root):
    params = make_params(volumes=(96, 64))
    runs = volume_runs(params)
    write_volume_metrics(root, params, runs)
    folder = made(root, params, runs)
    assert {row["view"] for row in rows_of(folder, "table2")} == {"synapse-64", ""}
    assert "synapse-96-base-paper-42" in (folder / "index.md").read_text().split("no table of")[1]


def test_micro_batches_are_a_footnote(root, params):
    runs = volume_runs(params)
    write_volume_metrics(root, params, runs)
    change(root, params, runs[1], lambda content: content["checkpoint"].update(micro_batch=4))
    folder = made(root, params, runs)
    note = (
        "synapse-64-base-sound-42: trained in micro batches of 4: Dice is pooled over 4 slices "
        "instead of the batch."
    )
    for name in ("table2", "organs"):
        assert note in (folder / f"{name}.tex").read_text()
    assert "micro batches" not in (folder / "table1.tex").read_text()
    change(root, params, runs[1], lambda content: content["checkpoint"].update(micro_batch=None))
    assert "micro batches" not in (made(root, params, runs) / "index.md").read_text()
