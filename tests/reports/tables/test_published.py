"""The paper's numbers, and the declared tables against params.yaml."""

import pytest

from pipeline.config.params import load_params, load_profile
from pipeline.config.runs import runs
from reports.make.results.views import load_yaml, views_by_size
from reports.make.tables.writing import make_tables
from tests.helpers.clone import demo_root
from tests.helpers.paths import ROOT as REPOSITORY
from tests.helpers.tables import ORGANS, rows_of, write_metrics

PUBLISHED = load_yaml(REPOSITORY / "reports" / "published.yaml")
DECLARED = load_yaml(REPOSITORY / "reports" / "tables.yaml")


def scores():
    """(table, row, dataset, its published scores) of every published row."""
    for table, rows in PUBLISHED["tables"].items():
        for name, row in rows.items():
            for dataset in DECLARED["datasets"]:
                if dataset in row:
                    yield table, name, dataset, row[dataset]


def test_every_row_is_there():
    counts = {table: 0 for table in PUBLISHED["tables"]}
    for table, _, _, figures in scores():
        counts[table] += len(figures)
    # Table II: ten rows of ten figures, two without HD95, one of the two means alone.
    assert counts == {"I": 65, "II": 120, "III": 12, "IV": 16, "V": 20, "VI": 12}


@pytest.mark.parametrize(("table", "row", "dataset", "figures"), list(scores()))
def test_dsc_follows_from_iou(table, row, dataset, figures):
    """DSC = 2 IoU / (1 + IoU) of one pooled confusion matrix; on Synapse it is the organs' mean.

    One printed row breaks the rule: the mean of R50 U-Net's organs is 77.91, its DSC is 74.68.
    """
    if table == "II":
        if figures.keys() >= set(ORGANS):
            mean = sum(figures[organ] for organ in ORGANS) / len(ORGANS)
            expected = 77.91 if row == "r50-unet" else figures["dsc"]
            assert mean == pytest.approx(expected, abs=0.02)
    else:
        iou = figures["miou"] / 100
        assert figures["dsc"] == pytest.approx(100 * 2 * iou / (1 + iou), abs=0.02)


def test_the_main_model_is_the_same_in_every_table():
    tables = PUBLISHED["tables"]
    for dataset in ("isic17", "isic18"):
        main = {name: tables["I"]["vm-unet"][dataset][name] for name in ("miou", "dsc")}
        for table, row in (("III", "vmamba-s"), ("IV", "0.2"), ("V", "2222-2221"), ("VI", "256")):
            assert tables[table][row][dataset] == main


def test_the_text_says_the_same():
    """Section IV-C and IV-D: gains over TransFuse and Swin-UNet, and of the initial weights."""
    tables = PUBLISHED["tables"]
    ours, transfuse = (tables["I"][row]["isic18"] for row in ("vm-unet", "transfuse"))
    assert ours["miou"] - transfuse["miou"] == pytest.approx(0.72)
    assert ours["dsc"] - transfuse["dsc"] == pytest.approx(0.44)
    ours, swin = (tables["II"][row]["synapse"] for row in ("vm-unet", "swin-unet"))
    assert ours["dsc"] - swin["dsc"] == pytest.approx(1.95)
    assert swin["hd95"] - ours["hd95"] == pytest.approx(2.34)
    for metric, gain in (("miou", 2.67), ("dsc", 1.65)):
        gains = [
            tables["III"]["vmamba-s"][dataset][metric] - tables["III"]["none"][dataset][metric]
            for dataset in ("isic17", "isic18")
        ]
        assert sum(gains) / 2 == pytest.approx(gain, abs=0.006)


def test_citations_exist():
    cited = {
        row["cite"]
        for rows in PUBLISHED["tables"].values()
        for row in rows.values()
        if "cite" in row
    }
    assert cited == set(PUBLISHED["references"])


def test_every_published_row_is_shown():
    shown = {
        row["published"]
        for spec in DECLARED["tables"].values()
        for row in spec["rows"]
        if "published" in row
    }
    rows = {f"{table}.{row}" for table, of_table in PUBLISHED["tables"].items() for row in of_table}
    assert shown == rows


def test_cells_are_those_of_params():
    params = load_params(demo_root())
    declared = {
        row["cell"]
        for t in DECLARED["tables"].values()
        for row in t["rows"]
        if "cell" in row and not (row.get("optional") and row["cell"] not in params.cells)
    }
    assert declared == set(params.cells)
    for row in DECLARED["tables"]["V"]["rows"]:
        cell = params.cells[row["cell"]]
        depths, decoder = (",".join(map(str, d)) for d in (cell.depths, cell.depths_decoder))
        assert row["label"] == f"{{{depths}-{decoder}}}"
    for row in DECLARED["tables"]["IV"]["rows"]:
        assert float(row["label"]) == params.cells[row["cell"]].drop_path_rate
    inits = {"none": "none", "VMamba-T": "vmamba-t", "VMamba-S": "vmamba-s"}
    for row in DECLARED["tables"]["III"]["rows"]:
        assert params.cells[row["cell"]].init == inits[row["label"]]


def test_the_real_grid_fills_the_tables(tmp_path):
    """Every table from the repository's own params.yaml, with made-up scores and the real cost."""
    params = load_params(demo_root())
    root = tmp_path
    (root / "reports").mkdir()
    for name in ("checklists.yaml", "published.yaml", "recipes.yaml", "tables.yaml", "templates"):
        (root / "reports" / name).symlink_to(REPOSITORY / "reports" / name)
    write_metrics(root, params, runs(params))
    make_tables(root, params, runs(params))
    index = (root / "reports/out/tables" / "index.md").read_text()
    assert "Runs that no table" not in index
    rows = [row for row in rows_of(root / "reports/out/tables", "table2") if row["cell"]]
    assert all(row["n_seeds"] == "1" for row in rows)  # every model but DARR
    main = next(row for row in rows if row["cell"] == "base")
    assert (main["row"], main["protocol"]) == ("VM-UNet", "paper")
    assert float(main["measured_hd95"]) == pytest.approx(5.5)
    rows = rows_of(root / "reports/out/tables", "table1")
    assert all(row["n_seeds"] == "1" for row in rows)
    assert len(rows_of(root / "reports/out/tables", "recipes")) == 18
    # The computed counts are the paper's, to its two decimals.
    lines = (root / "reports/out/tables" / "table5-cost.tex").read_text().splitlines()
    for name, row in PUBLISHED["tables"]["V"].items():
        label = next(
            r["label"] for r in DECLARED["tables"]["V"]["rows"] if r["published"] == f"V.{name}"
        )
        line = next(
            line for line in lines if line.startswith(label.replace("{", r"\{").replace("}", r"\}"))
        )
        columns = [text.strip() for text in line.split("&")]
        params_m, flops_g = f"{row['params']:.2f}", f"{row['flops']:.2f}"
        assert columns[1:5] == [params_m, params_m, flops_g, flops_g]


def test_views_stand_for_published_sizes():
    params = load_params(demo_root())
    for dataset in params.grid.datasets:
        by_size = views_by_size(params, dataset, 256)
        assert by_size[256] in params.grid.ablation_views
        assert len(by_size) == sum(view.dataset == dataset for view in params.grid.views.values())
    assert views_by_size(params, "synapse", 224) == {224: "synapse-64"}


def test_settings_are_those_of_the_paper_profile():
    """The captions compare with published.yaml; profiles/paper.yaml trains by the same values."""
    profile = load_profile("paper", REPOSITORY)
    for train, name in ((profile.train, "settings"), (profile.train_volumes, "settings_volumes")):
        settings = dict(PUBLISHED[name])
        size = settings.pop("size")
        views = profile.grid.volumes if name.endswith("volumes") else profile.grid.views
        assert size in {view.size for view in views.values()}
        assert {key: getattr(train, key) for key in settings} == settings | {
            "dims": tuple(settings["dims"])
        }
