"""Searches: a study that processes share, kills that lose nothing, and no test image read."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from optuna.trial import TrialState
from ruamel.yaml import YAML

from pipeline.config.params import load_params
from pipeline.config.runs import Run
from pipeline.search.data import search_data
from pipeline.search.journal import damaged, open_journal
from pipeline.search.report import draw as draw_plots
from pipeline.search.space import as_yaml, cell_with, overrides, own_values, space
from pipeline.search.study import SharedStudy, study_facts
from tests.helpers import fake_trial
from tests.helpers.search import VIEW, copied, make_project, search, start
from vmunet import InputError
from vmunet.settings import TrainSettings

NAME = f"{VIEW}-scratch-sound"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("search") / "project")


@pytest.fixture
def project(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A separate project, which is the current folder."""
    folder = copied(prepared, tmp_path / "project")
    monkeypatch.chdir(folder)
    return folder


def open_study(epochs: int = 9, view: str = VIEW, protocol: str = "sound") -> SharedStudy:
    params = load_params()
    return SharedStudy("s", study_facts(params, view, "scratch", protocol, epochs))


def draw(study: SharedStudy, count: int) -> list[dict[str, float]]:
    """Values of trials that ran one after the other, with `fake_trial`'s loss."""
    for _ in range(count):
        number = study.claim(1000)
        assert number is not None
        fake_trial.train(study, study.attach(number))
    return [trial.params for trial in study.trials()]


def wait_for(condition, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def states(project: Path) -> list[TrialState]:
    return [trial.state for trial in SharedStudy(NAME, root=project).trials()]


def test_two_processes_share_a_study(project: Path) -> None:
    both = [start(project, VIEW, "--trials", "8", "--parallel", "2") for _ in range(2)]
    outputs = [process.communicate(timeout=200)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    study = SharedStudy(NAME)
    trials = study.trials()
    assert [trial.number for trial in trials] == list(range(8))
    assert all(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in trials)
    assert len({trial.params["learning_rate"] for trial in trials}) == 8
    assert len({trial.user_attrs["worker"] for trial in trials}) == 2
    assert not list(Path(".search", NAME, "workers").iterdir())
    assert "[8/8]" in "".join(outputs)
    again = search(project, VIEW, "--trials", "8")
    assert "8 of 8 trials done" in again
    assert "scratch-tuned:" in again
    assert len(study.trials()) == 8


def test_a_killed_search_goes_on(project: Path) -> None:
    (project / "slow").touch()
    process = start(project, VIEW, "--trials", "3", "--parallel", "1")
    journal = project / ".search" / f"{NAME}.log"
    wait_for(lambda: journal.exists() and b'"intermediate_value"' in journal.read_bytes())
    process.kill()
    process.communicate()
    with open(journal, "ab") as file:
        file.write(b'{"op_code":7,"worker_id":"a')  # a line that a kill left incomplete
    (project / "slow").unlink()
    output = search(project, VIEW, "--trials", "3", "--parallel", "1")
    assert "0 of 3 trials done" in output
    study = SharedStudy(NAME)
    first, *others = study.trials()
    assert first.state is TrialState.FAIL
    assert first.user_attrs["interrupted"] is True
    assert len(others) == 3
    (again,) = (trial for trial in others if trial.user_attrs.get("again") == first.number)
    assert again.params == first.params
    assert again.state is TrialState.COMPLETE
    assert all(trial.state.is_finished() for trial in others)


def test_ctrl_c_queues_the_trial_again(project: Path) -> None:
    (project / "slow").touch()
    process = start(project, VIEW, "--trials", "2", "--parallel", "1")
    journal = project / ".search" / f"{NAME}.log"
    wait_for(lambda: journal.exists() and b'"intermediate_value"' in journal.read_bytes())
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "trial 0  stopped" in output
    assert states(project) == [TrialState.FAIL, TrialState.WAITING]
    assert "stopped, done again" in Path("reports/out/search", NAME, "index.md").read_text()


def test_a_dead_trial_fails_and_the_study_goes_on(project: Path) -> None:
    (project / "die-0").touch()
    output = search(project, VIEW, "--trials", "3", "--parallel", "1")
    assert "trial 0  failed: killed by SIGKILL" in output
    assert f"trial 0 of {NAME}" in output  # its last lines
    assert states(project).count(TrialState.FAIL) == 1
    assert "[3/3]" in output


def test_a_study_of_dead_trials_is_given_up(project: Path) -> None:
    (project / "die").touch()
    output = search(project, VIEW, "--trials", "9", "--parallel", "1", status=1)
    assert "stopped: the first 3 trials failed" in output
    assert "no trial has come to its end yet" in output
    assert states(project) == [TrialState.FAIL] * 3


def test_hyperband_prunes(project: Path) -> None:
    study = open_study(epochs=9)
    draw(study, 20)
    pruned = [trial for trial in study.trials() if trial.state is TrialState.PRUNED]
    assert pruned
    assert all(trial.last_step < 9 for trial in pruned)
    best = study.best()
    assert best is not None
    assert best.value == min(t.value for t in study.trials() if t.state is TrialState.COMPLETE)
    plots = draw_plots(study.study, project)
    assert sorted(path.name for path in project.glob("*.png")) == [
        "epochs.png",
        "history.png",
        "importance.png",
    ]
    assert plots["Importance"] == "![Importance](importance.png)"


def test_draws_follow_from_the_seed_also_after_a_break(
    project: Path, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draws = draw(open_study(), 14)  # beyond the first 10, which are drawn at random
    monkeypatch.chdir(copied(prepared, tmp_path / "other"))
    draw(open_study(), 12)
    assert draw(open_study(), 2) == draws
    assert len({tuple(values.values()) for values in draws}) == 14


def test_the_first_trial_has_the_cells_own_settings(project: Path) -> None:
    study, params = open_study(), load_params()
    assert study.enqueue_own(params)
    assert study.enqueue_own(params)  # only once, also if a search starts several times
    number = study.claim(10)
    assert number == 0
    trial = study.trial(0)
    assert trial.params["learning_rate"] == 1e-3
    assert trial.params["rotation_limit"] == 180
    other = params.cell("scratch").model_copy(update={"drop_path_rate": 0.21})
    budget = params.profile.train
    assert own_values(space("images", "sound", other, budget), other, budget, "images") == {}


def test_another_model_has_no_drop_path_to_search(project: Path) -> None:
    params = load_params()
    rival, budget = params.cell("unet"), params.profile.train
    dimensions = space("images", "sound", rival, budget)
    values = {d.name: d.low for d in dimensions}
    assert "drop_path_rate" not in values
    changed = cell_with(rival, overrides(dimensions, values, "images"))
    assert (changed.model, changed.settings(budget).weight_decay) == ("unet", 1e-4)


def test_no_test_image_is_read_and_the_best_cell_can_be_pasted(project: Path) -> None:
    """Real trials in processes; then the pasted cell trains to the same loss, to the bit."""
    for name in ("images.npy", "masks.npy", "ids.txt"):
        (project / "data/arrays" / VIEW / "sound/test" / name).unlink()
    search(project, VIEW, "--trials", "2", "--epochs", "2", fake=False)
    study = SharedStudy(NAME)
    best = study.best()
    assert best is not None
    report = project / "reports/out/search" / NAME
    assert {"index.md", "cell.yaml"} <= {path.name for path in report.iterdir()}
    tuned_cells = YAML(typ="safe").load(report / "cell.yaml")["cells"]
    text = Path("params.yaml").read_text()
    pasted = as_yaml("scratch-tuned", tuned_cells["scratch-tuned"])
    assert pasted in (report / "index.md").read_text()
    content = YAML(typ="safe").load(text)
    content["cells"] |= tuned_cells
    with open("params.yaml", "w") as file:
        YAML(typ="safe").dump(content, file)
    assert trained("scratch-tuned", epochs=2)[1] == best.value
    in_mlflow(study)


def in_mlflow(study: SharedStudy) -> None:
    """The study has a run, and each trial has a run nested in it."""
    from pipeline.tracking import client

    mlflow = client()
    experiment = mlflow.get_experiment_by_name("tiny")
    assert experiment is not None
    runs = {run.info.run_name: run for run in mlflow.search_runs([experiment.experiment_id])}
    parent = runs.pop(f"search {NAME}")
    best = study.best()
    assert best is not None
    assert parent.data.metrics["best_loss"] == best.value
    assert sorted(runs) == [f"{NAME}-0", f"{NAME}-1"]
    for trial in study.trials():
        run = runs[f"{NAME}-{trial.number}"]
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert float(run.data.params["trial.learning_rate"]) == trial.params["learning_rate"]
        assert run.info.status in ("FINISHED", "KILLED")
        history = mlflow.get_metric_history(run.info.run_id, "selection_loss")
        assert len(history) == (2 if trial.state is TrialState.COMPLETE else 1)


def trained(cell: str, epochs: int) -> tuple[bytes, float]:
    """Weights and the lowest loss of a run under `sound`, as the training stage makes it."""
    import torch

    from stages.common.training import make_model
    from stages.train import image_task
    from vmunet.protocols import SOUND
    from vmunet.training.loop import train
    from vmunet.training.losses import training_loss
    from vmunet.training.processor import use_processor

    threads = torch.get_num_threads()
    use_processor(1)
    try:
        params = load_params()
        run = Run(VIEW, cell, "sound", 1)
        task = image_task(run, params)
        chosen = params.cell(cell)
        settings = chosen.settings(TrainSettings(**asdict(task.settings) | {"epochs": epochs}))
        torch.manual_seed(run.seed)
        model, _ = make_model(chosen, task)
        kept, held = task.datasets()
        progress = train(
            model,
            kept,
            held,
            training_loss(1, "logits", chosen.weights),
            settings,
            SOUND,
            run.seed,
            torch.device("cpu"),
            selection_loss=training_loss(1, "logits"),
        )
    finally:
        torch.set_num_threads(threads)
    tensors = progress.best_weights.values()
    return b"".join(tensor.numpy().tobytes() for tensor in tensors), progress.best_loss


def test_explicit_defaults_keep_the_bits(project: Path) -> None:
    content = YAML(typ="safe").load(Path("params.yaml"))
    augment = {"horizontal_flip": 0.5, "vertical_flip": 0.5, "turns": 0.5, "rotation": 0.5}
    defaults = {
        "init": "none",
        "train": {"learning_rate": 1e-3, "weight_decay": 1e-2},
        "loss_weights": [1.0, 1.0],
        "augment": augment | {"rotation_limit": None},
    }
    others = {
        "rate": {"init": "none", "train": {"learning_rate": 2e-3}},
        "weights": {"init": "none", "loss_weights": [0.5, 1.5]},
        "augment": {"init": "none", "augment": {"rotation": 0.0}},
    }
    content["cells"] |= {"explicit": defaults, **others}
    with open("params.yaml", "w") as file:
        YAML(typ="safe").dump(content, file)
    plain = trained("scratch", 1)
    assert trained("explicit", 1) == plain
    assert len({trained(name, 1)[0] for name in others} | {plain[0]}) == 4


@pytest.fixture
def trial(monkeypatch: pytest.MonkeyPatch) -> Iterator:
    """`stages.search_trial` with MLflow left out, on one thread."""
    import torch

    import stages.search_trial as module

    fake_trial.Tracker.made.clear()
    monkeypatch.setattr(module, "PlainRun", fake_trial.Tracker)
    threads = torch.get_num_threads()
    yield module
    torch.set_num_threads(threads)


def test_an_interrupted_trial_goes_on_from_its_last_epoch(
    project: Path, trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, params = open_study(epochs=3), load_params()
    study.study.set_user_attr("mlflow_run_id", "parent")
    study.enqueue_own(params)
    report = trial.Reports.epoch

    def interrupted(self, row) -> None:
        report(self, row)
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    number = study.claim(2)
    monkeypatch.setattr(trial.Reports, "epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trial.run_trial(study, study.attach(number), params)
    monkeypatch.setattr(trial.Reports, "epoch", report)
    study.give_back(number)
    again = study.claim(2)
    assert study.trial(again).user_attrs["own"] is True
    trial.run_trial(study, study.attach(again), params)
    first, second = fake_trial.Tracker.made
    assert (first.status, second.status) == ("KILLED", "FINISHED")
    assert first.tags["mlflow.parentRunId"] == "parent"
    assert first.key == second.key
    assert (first.history, second.history) == ([], [1])
    assert (first.logged, second.logged) == ([1, 2], [2, 3])  # saved after the first
    assert study.trial(again).value == trained("scratch", 3)[1]
    assert not list(study.folder.glob("states/*"))


@pytest.mark.parametrize(("view", "protocol"), [(VIEW, "paper"), ("synapse-32", "paper")])
def test_the_paper_protocol_is_searched_on_held_out_images_too(
    project: Path, trial, view: str, protocol: str
) -> None:
    study, params = open_study(2, view, protocol), load_params()
    for folder in search_data(params, view, protocol).test:
        shutil.rmtree(folder)
    number = study.claim(1)
    trial.run_trial(study, study.attach(number), params)
    assert study.trial(number).state is TrialState.COMPLETE
    assert ("turns" in study.trial(number).params) == (view != VIEW)


def test_a_diverged_trial_counts_as_pruned(
    project: Path, trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    import vmunet.training.loop

    def diverge(*_: object, **more: object) -> None:
        raise vmunet.training.loop.DivergedError("s-0: the loss became nan")

    monkeypatch.setattr(vmunet.training.loop, "train", diverge)
    study = open_study()
    number = study.claim(1)
    trial.run_trial(study, study.attach(number), load_params())
    assert study.trial(number).state is TrialState.PRUNED
    assert "nan" in study.trial(number).user_attrs["reason"]


def test_a_process_of_a_search_cannot_open_test_data(project: Path) -> None:
    code = (
        "import numpy as np; from pathlib import Path\n"
        "from pipeline.search.data import refuse_to_open\n"
        "folder = Path('data/arrays/isic17-32/sound')\n"
        "refuse_to_open([folder / 'test'])\n"
        "np.load(folder / 'train/images.npy', mmap_mode='r')\n"
        "np.load(folder / 'test/images.npy', mmap_mode='r')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "a search must not read test data" in done.stderr
    assert done.stderr.rstrip().splitlines()[-1].startswith("RuntimeError")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["isic99"], "unknown view 'isic99'; known: isic17-32, synapse-32"),
        ([VIEW, "--cell", "bsae"], "unknown cell 'bsae'; known: att-unet, base"),
        ([VIEW, "--trials", "0"], "--trials 0: expected at least 1"),
        ([VIEW, "--parallel", "0"], "--parallel 0: expected at least 1"),
        ([VIEW, "--timeout", "-1"], "--timeout -1.0: expected more than 0 seconds"),
        ([VIEW, "--study", "../x"], "--study ../x: expected letters"),
        ([VIEW, "--cell", "base"], "vmamba-s.safetensors: not found; run `dvc repro weights`"),
        ([VIEW, "--gpus", "7"], "--gpus 7: there is no GPU 7"),
    ],
)
def test_bad_input_is_one_sentence(
    project: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    from pipeline.cli import main

    own = [] if "--cell" in arguments else ["--cell", "scratch"]
    assert main(["search", *arguments, *own]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_arrays_that_are_missing(project: Path) -> None:
    shutil.rmtree("data")
    with pytest.raises(InputError, match="run `dvc repro preprocess@isic17-32` first"):
        open_study()


def test_a_study_of_other_facts_is_refused(project: Path) -> None:
    open_study(epochs=9)
    with pytest.raises(InputError, match="for epochs 9, not 8; its trials cannot be compared"):
        open_study(epochs=8)
    with open(f"data/arrays/{VIEW}/sound/train/ids.txt", "a") as file:
        file.write("\n")
    with pytest.raises(InputError, match="on other training data"):
        open_study(epochs=9)
    journal = Path(".search/s.log")
    journal.write_text(journal.read_text().replace('"high":0.02', '"high":0.03'))
    with pytest.raises(InputError, match="training data"):
        open_study(epochs=9)


def test_an_incomplete_last_line_is_removed_and_a_damaged_one_is_an_error(project: Path) -> None:
    study = open_study()
    draw(study, 2)
    journal = Path(".search/s.log")
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_co')
    assert len(draw(study, 1)) == 3  # also for a process that had it open
    assert len(draw(open_study(), 1)) == 4
    assert all(json.loads(line) for line in journal.read_bytes().splitlines())
    lines = whole.splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:3], b"garbage\n", *lines[3:]]))
    with pytest.raises(InputError, match=r"s\.log: not a study's journal, or damaged"):
        open_study()
    journal.write_text('{"op_code": 99, "worker_id": "a"}\n')
    with pytest.raises(InputError, match=damaged(journal, "")[:40].split("(")[0]):
        open_study()


def test_a_full_disk_is_one_sentence(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = open_study()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InputError, match=r"s\.log: cannot be written \(No space left on device\)"):
        study.claim(5)
    monkeypatch.undo()
    monkeypatch.chdir(project)
    assert open_journal(Path(".search/s.log")).get_all_studies()


def test_cells_are_written_as_yaml_1_1_reads_them() -> None:
    text = as_yaml("x", {"init": "none", "train": {"weight_decay": 1e-05}, "loss_weights": [1.0]})
    assert text == (
        "  x:\n    init: none\n    train: {weight_decay: 1.0e-05}\n    loss_weights: [1.0]\n"
    )
