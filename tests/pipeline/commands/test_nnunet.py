"""`vmunet nnunet`: which of nnU-Net's programs it starts, with what; nothing of nnU-Net runs."""

import argparse
from types import SimpleNamespace

import pytest

from pipeline.commands import nnunet
from pipeline.config.nnunet import Place
from vmunet.errors import InputError

DEFAULTS = "nnUNetTrainer"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """`run(action)` in an empty clone with a view `a`: the commands and their environments."""
    monkeypatch.chdir(tmp_path)
    started = []
    view = SimpleNamespace(view=lambda name: name)
    monkeypatch.setattr("pipeline.config.params.load_params", lambda: view)
    monkeypatch.setattr(nnunet.shutil, "which", lambda name, path: f"/bin/{name}")

    def record(command, environment):
        started.append((command, environment))
        if "plan_and_preprocess" in command[0]:
            Place("a").preprocessed.mkdir(parents=True, exist_ok=True)
        return 0

    monkeypatch.setattr(nnunet, "_run", record)
    parser = argparse.ArgumentParser()
    nnunet.add_arguments(parser)

    def act(*words):
        started.clear()
        arguments = parser.parse_args(words)
        assert arguments.command(arguments) == 0
        return list(started)

    return act


def exported(place):
    place.dataset.mkdir(parents=True)
    for name in ("dataset.json", "splits_final.json"):
        (place.dataset / name).write_text(name)


def test_each_step_needs_the_one_before(run):
    with pytest.raises(InputError, match=r"dataset\.json: no such file; .*nnunet export a"):
        run("train", "a")
    with pytest.raises(InputError, match=r"checkpoint_final\.pth: no such file; .*nnunet train a"):
        run("predict", "a")


def test_training_uses_our_split_and_folders(run, tmp_path):
    place = Place("a")
    exported(place)
    (place.predictions / "old").mkdir(parents=True)
    (plan, environment), (training, _) = run("train", "a", "--device", "cpu")
    assert plan[:5] == ["/bin/nnUNetv2_plan_and_preprocess", "-d", "1", "-c", "2d"]
    assert training[1:4] == ["1", "2d", "0"]
    assert training[4:] == ["-tr", DEFAULTS, "-device", "cpu"]
    for name, folder in (("raw", "raw"), ("preprocessed", "preprocessed"), ("results", "results")):
        assert environment[f"nnUNet_{name}"] == str(tmp_path / ".nnunet/a" / folder)
    assert (place.preprocessed / "splits_final.json").read_text() == "splits_final.json"
    assert not place.predictions.exists()  # they would be of an earlier model


def test_a_stopped_training_goes_on(run):
    place = Place("a", "nnUNetTrainer_5epochs")
    exported(place)
    place.results.mkdir(parents=True)
    (place.results / "checkpoint_latest.pth").touch()
    ((command, _),) = run("train", "a", "--trainer", place.trainer)
    assert command[-1] == "--c"


def test_predictions_are_of_the_test_images(run, tmp_path):
    place = Place("a")
    exported(place)
    place.results.mkdir(parents=True)
    place.checkpoint.touch()
    ((command, _),) = run("predict", "a")
    assert command[1:5] == [
        *("-i", str(tmp_path / place.dataset / "imagesTs")),
        *("-o", str(tmp_path / place.predictions)),
    ]


def test_without_nnunet_one_sentence_says_how_to_get_it(run, monkeypatch):
    exported(Place("a"))
    monkeypatch.setattr(nnunet.shutil, "which", lambda name, path: None)
    with pytest.raises(InputError, match=r"not on PATH; run pip install -e '\.\[nnunet\]'"):
        run("train", "a")
