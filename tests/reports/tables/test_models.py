"""The models of Tables I and II: their cost, and the recipes of their authors."""

import json

import pytest

from reports.make.results.views import load_yaml
from tests.helpers.paths import ROOT as REPOSITORY
from tests.helpers.tables import (
    RIVALS,
    VOLUME_RIVALS,
    Run,
    all_runs,
    made,
    make_params,
    rows_of,
    write_metrics,
)
from tests.helpers.tables_measuring import write_costs, write_speed
from vmunet.errors import InputError
from vmunet.models.places import PLACES

PUBLISHED = load_yaml(REPOSITORY / "reports/published.yaml")
RECIPES = load_yaml(REPOSITORY / "reports/recipes.yaml")


def rivals_of(root, rivals=RIVALS, volume_rivals=VOLUME_RIVALS):
    """Parameters and runs with metrics files."""
    params = make_params(volumes=(64,))
    runs = all_runs(params, rivals=rivals, volume_rivals=volume_rivals)
    write_metrics(root, params, runs)
    return params, runs


def test_every_model_has_its_cost_beside_the_printed_one(root):
    params, runs = rivals_of(root)
    write_costs(root, params)
    write_speed(root, params)
    folder = made(root, params, runs)
    rows = rows_of(folder, "models")
    models = [(row["table"], row["model"]) for row in rows]
    # Each model once, also where several rows have it: VM-UNet from scratch, for one.
    assert models == [("I", name) for name in (*RIVALS, "vmunet")] + [
        ("II", name) for name in (*VOLUME_RIVALS, "vmunet")
    ]
    by_model = {(row["table"], row["model"]): row for row in rows}
    assert by_model["II", "vnet"]["input"] == "64×64×64"
    assert by_model["II", "swin-unet"]["input"] == "224×224"
    assert by_model["II", "swin-unet"]["classes"] == "9"
    malunet = by_model["I", "malunet"]
    assert (malunet["published_params_M"], malunet["params_M"]) == ("0.175", "0.177943")
    assert malunet["macs_thop_G"] == malunet["macs_complete_G"] == "0.08274"
    unet = by_model["I", "unet"]
    assert float(unet["inference_images_per_second"]) == 123.4
    assert float(unet["training_peak_bytes"]) == 2048 * 2**20
    assert unet["width_factor"] == "0.25"
    assert by_model["I", "unetpp"]["inference_images_per_second"] == ""
    assert by_model["I", "vmunet"]["inference_images_per_second"] == "123.4"
    tex = (folder / "models.tex").read_text()
    assert r"MALUNet & 256$\times$256 & 0.175 & 0.178 & 0.083 & 0.083 & 0.083 & --" in tex
    assert r"\textbf{Table II, 9 classes}" in tex
    for words in (
        "4 times too many at stride 2",
        "MALUNet's printed 0.175 M are 0.178 M",
        "VM-UNet of width 8 and the other models 0.25 times as wide as published",
    ):
        assert words in tex


def test_a_model_that_was_not_counted_has_no_row(root):
    params, runs = rivals_of(root, rivals=("unet",), volume_rivals=())
    write_costs(root, params, images=("vmunet", "unet"), slices=("vmunet",))
    folder = made(root, params, runs)
    assert [row["row"] for row in rows_of(folder, "models")] == ["UNet", "VM-UNet", "VM-UNet"]
    assert "Speed and memory were not measured" in (folder / "models.tex").read_text()


@pytest.mark.parametrize("text", ["{", '{"I": {"unet": {}}}'])
def test_a_file_that_holds_no_costs_is_named(root, text):
    params, runs = rivals_of(root, rivals=(), volume_rivals=())
    write_costs(root, params).write_text(text)
    with pytest.raises(InputError, match=r"metrics/demo/costs\.json: .*stages\.costs"):
        made(root, params, runs)


def test_printed_costs_are_of_known_models_and_agree_with_table_v():
    printed = PUBLISHED["costs"]
    for costs in printed.values():
        assert costs["source"]
        assert set(costs) - {"source"} <= set(PLACES)
    main = PUBLISHED["tables"]["V"]["2222-2221"]
    assert printed["I"]["vmunet"] == {name: main[name] for name in ("params", "flops")}


def test_every_model_has_its_authors_recipe():
    assert list(RECIPES) == list(PLACES)
    for name, recipe in RECIPES.items():
        assert recipe["known"] in ("code", "quoted", "nothing"), name
        # Most of what is known is known of each; nothing is said where nothing is published.
        told = {"optimizer", "loss", "weights"} & recipe.keys()
        assert len(told) == (0 if recipe["known"] == "nothing" else 1 if name == "mew-unet" else 3)


def test_recipes_are_shown_beside_the_tables_and_not_run(root):
    params, runs = rivals_of(root, rivals=("unet", "malunet"), volume_rivals=("r50-unet",))
    folder = made(root, params, runs)
    rows = {row["model"]: row for row in rows_of(folder, "recipes")}
    assert list(rows) == ["vmunet", "unet", "malunet", "r50-unet"]
    assert rows["malunet"]["epochs"] == "300"
    assert rows["unet"]["optimizer"] == ""
    tex = (folder / "recipes.tex").read_text()
    assert "Not run here: all measured rows use the common protocol" in tex
    assert "UNet (not published) &" in tex
    assert "R50 U-Net (quoted) &" in tex
    assert "Beckschen/TransUNet, issue 14" in tex
    index = (folder / "index.md").read_text()
    assert "## The recipes of the models' authors" in index
    assert "recipes.csv" in index


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('  batch: "8"\n', "  batch: 8\n", "malunet.batch: expected a text in quotes, not 8"),
        ('  batch: "8"\n', '  batches: "8"\n', "malunet: unknown 'batches'; known: data, opt"),
        ("  source: JCruan519/MALUNet\n", "", "malunet: lacks 'source'"),
        (
            "  source: JCruan519/MALUNet\n  known: code\n",
            "  source: JCruan519/MALUNet\n  known: guessed\n",
            "malunet.known: 'guessed' is none of code, quoted, nothing",
        ),
    ],
)
def test_a_mistake_in_a_recipe_is_named(root, old, new, words):
    path = root / "reports/recipes.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    params = make_params()
    runs = [Run("isic17-64", "malunet", "paper", 42)]
    write_metrics(root, params, runs)
    with pytest.raises(InputError, match=words):
        made(root, params, runs)


def test_a_model_of_ones_own_needs_no_recipe(root):
    (root / "reports/recipes.yaml").write_text(json.dumps({"vmunet": RECIPES["vmunet"]}))
    params, runs = rivals_of(root, rivals=("unet",), volume_rivals=())
    assert not (made(root, params, runs) / "recipes.csv").exists()
