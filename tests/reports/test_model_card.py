"""The model card beside a run's weights."""

import copy
import json
import re

import pytest
from ruamel.yaml import YAML

from reports.make.model_card import PHANTOM_LIMIT, SAMPLE_LIMIT, model_card
from tests.helpers.small_model import PLACE
from tests.helpers.tables import all_runs, make_params, metrics_file, volume_runs, write_metrics
from vmunet.models.places import PLACES

RECORD = {
    "cell": {"init": "vmamba-s", "drop_path_rate": 0.2, "depths": [2, 2, 2, 2]},
    "train": {"dims": [16, 32, 64, 128], "epochs": 10, "batch_size": 4, "learning_rate": 0.005},
}


@pytest.fixture
def metrics(tmp_path):
    params = make_params()
    run = all_runs(params)[0]
    write_metrics(tmp_path, params, [run])
    return json.loads(metrics_file(tmp_path, params, run).read_text())


def test_a_card_tells_data_scores_limits_and_licence(metrics):
    metrics["data"]["source"] = "http"
    metrics["run"]["dataset"] = "isic18"
    text = model_card(metrics, RECORD, "http")
    _, head, body = text.split("---\n", 2)
    assert YAML(typ="safe").load(head)["datasets"] == ["isic18"]
    miou = f"{100 * metrics['sound']['training_size']['miou']:.2f}"
    low, high = metrics["sound"]["training_size"]["intervals"]["miou"]
    assert f"{miou} [{100 * low:.2f}, {100 * high:.2f}]" in body
    assert "CC-BY-NC" in body
    assert "test images, so the scores below are optimistic" in body
    assert "Not a medical device" in body
    assert PHANTOM_LIMIT not in body
    assert metrics["checkpoint"]["sha256"] in body
    assert "10 epochs of batches of 4" in body


def test_a_card_of_phantoms_says_so_first_and_quotes_no_licence_of_patients_data(metrics):
    metrics["data"]["source"] = "phantom"
    _, head, body = model_card(metrics, RECORD, "http").split("---\n", 2)
    facts = YAML(typ="safe").load(head)
    assert "datasets" not in facts
    assert facts["tags"][-1] == "phantoms"
    assert facts["model-index"][0]["results"][0]["dataset"]["type"] == "phantoms"
    assert body.index(PHANTOM_LIMIT) < body.index("## Scores")
    assert "CC-0" not in body


def test_a_card_of_a_sample_says_that_its_scores_do_not_compare(metrics):
    metrics["data"]["source"] = "sample"
    body = model_card(metrics, RECORD, "http").split("---\n", 2)[2]
    assert body.index(SAMPLE_LIMIT) < body.index("## Scores")
    assert PHANTOM_LIMIT not in body


def test_weights_pre_trained_on_phantoms_are_not_called_vmambas(metrics):
    assert "initial weights: vmamba-s, drop path" in model_card(metrics, RECORD, "http")
    text = model_card(metrics, RECORD, "phantom")
    assert "initial weights: a short pre-training on phantoms in place of vmamba-s, drop" in text
    scratch = RECORD | {"cell": RECORD["cell"] | {"init": "none"}}
    assert "initial weights: none, drop" in model_card(metrics, scratch, "phantom")
    imagenet = RECORD | {"cell": RECORD["cell"] | {"init": "imagenet"}}
    assert "initial weights: ImageNet's, drop" in model_card(metrics, imagenet, "phantom")


def test_a_cell_with_settings_of_its_own_says_them(metrics):
    own = {"loss_weights": [1.0, 2.0], "augment": {"horizontal_flip": 0.25}}
    text = model_card(metrics, RECORD | {"cell": RECORD["cell"] | own}, "http")
    assert (
        ", weights of cross-entropy and Dice 1.0, 2.0, augmentation horizontal flip 0.25." in text
    )


@pytest.mark.parametrize("dataset", ["isic18", "isic-of-mine"])
def test_data_of_ones_own_get_nobody_elses_licence_or_limits(metrics, dataset):
    metrics["run"]["dataset"], metrics["data"]["source"] = dataset, "own"
    text = model_card(metrics, RECORD, "http")
    assert "under whatever terms you hold it" in text
    assert "CC-BY" not in text
    assert "few clinics" not in text


@pytest.mark.parametrize(
    ("dataset", "source", "licence"),
    [
        ("isic17", "http", "mit"),
        ("isic18", "file", "cc-by-nc-4.0"),
        ("isic18", "phantom", "mit"),
        ("synapse", "prepared", "other"),
        ("isic18", "own", "other"),
    ],
)
def test_the_head_has_the_licence_of_the_data(metrics, dataset, source, licence):
    metrics["run"]["dataset"], metrics["data"]["source"] = dataset, source
    head = YAML(typ="safe").load(model_card(metrics, RECORD, "http").split("---\n", 2)[1])
    assert head["license"] == licence
    assert ("license_name" in head) == (licence == "other")


def test_undefined_scores_are_dashes(metrics):
    changed = copy.deepcopy(metrics)
    changed["sound"]["native_size"]["mean_dice"] = None
    changed["sound"]["native_size"]["intervals"]["mean_dice"] = [None, None]
    changed["checkpoint"].pop("git", None)
    text = model_card(changed, RECORD, "http")
    row = next(line for line in text.splitlines() if line.startswith("| Dice, mean"))
    assert row.endswith("| -- |")
    assert "- git: --" in text
    assert not re.search(r"\bnan\b|None", text)


def test_a_card_of_volumes_has_its_organs_with_intervals(tmp_path):
    params = make_params(volumes=(64,))
    run = volume_runs(params)[0]
    write_metrics(tmp_path, params, [run])
    metrics = json.loads(metrics_file(tmp_path, params, run).read_text())
    metrics["sound"]["organs"]["liver"]["intervals"] = {"dice": [0.5, 0.75]}
    dice = metrics["sound"]["organs"]["liver"]["dice"]
    text = model_card(metrics, RECORD, "http")
    assert f"| {100 * dice:.2f} [50.00, 75.00] |" in text
    # a case also counts if only the prediction has the organ: Dice 0
    assert "cases counted in Dice" in text
    assert "cases with the organ" not in text
    assert "18 cases (520 slices) to train" in text
    assert "Slices are segmented one by one" in text


@pytest.fixture
def small(monkeypatch):
    """The record of a run of another model than VM-UNet."""
    monkeypatch.setitem(PLACES, "small", PLACE)
    monkeypatch.setitem(PLACES, "cubes", (PLACE[0], "SmallOfVolumes"))
    return RECORD | {
        "cell": {"model": "small", "init": "none"},
        "train": RECORD["train"] | {"width": 0.25},
    }


def test_a_card_of_another_model_names_it_and_nothing_of_vm_unet(metrics, small):
    metrics["data"]["source"] = "http"
    _, head, body = model_card(metrics, small, "http").split("---\n", 2)
    assert body.startswith("# Small: isic17-64-base-paper-42\n")
    assert (
        "Small: two convolutions, a group norm, and a transposed convolution. Nobody et al. 2026, "
        "a model for tests. Its repository is this one. Here 0.25 times as wide, for 64x64 px "
        "and the classes: lesion." in body
    )
    assert "initial weights: none. The weights are those of epoch 7." in body
    assert "glossary" not in body
    for words in ("VM-UNet (Ruan", "depths", "drop path", "state-space", "section IV-F"):
        assert words not in body, words
    assert "few clinics" in body
    assert YAML(typ="safe").load(head)["tags"] == ["small", "medical-imaging", "pytorch"]
    published = small | {"train": small["train"] | {"width": 1.0}}
    assert "Here as wide as published, for" in model_card(metrics, published, "http")


def test_a_model_of_volumes_sees_several_slices(tmp_path, small):
    params = make_params(volumes=(64,))
    run = volume_runs(params)[0]
    write_metrics(tmp_path, params, [run])
    metrics = json.loads(metrics_file(tmp_path, params, run).read_text())
    assert "Slices are segmented one by one" in model_card(metrics, small, "http")
    cubes = small | {"cell": {"model": "cubes", "init": "none"}}
    assert "Slices are segmented one by one" not in model_card(metrics, cubes, "http")
