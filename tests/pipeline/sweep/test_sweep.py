"""Sweeps with the real dvc and commands that take no time: stages run, recorded, tried again."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from ruamel.yaml import YAML

from pipeline import cli
from pipeline.dvc.record import Record
from pipeline.sweep import threads
from pipeline.tracking import client
from tests.helpers.sweep import (
    NAME,
    ONE,
    add_code,
    environment,
    make_project,
    ran,
    start,
    sweep,
    tool,
)
from vmunet.errors import InputError

CLEAN = "Data and pipelines are up to date.\n"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(threads, "FIRST_DELAY", 0.05)
    for name in ("PREFECT_API_URL", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)


def wait_until(condition, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_everything_is_run_once_and_recorded(tmp_path: Path) -> None:
    make_project(tmp_path)
    messages: list[str] = []
    assert not sweep(messages)
    cells = [f"{NAME}{seed}" for seed in (1, 2, 3, 4)]
    assert ran(tmp_path) == [*cells, "preprocess"]
    assert messages[-1] == "0 stages up to date, 10 done"
    assert sorted(line.split()[0] for line in messages[1:-1]) == sorted(Record(tmp_path).stages)
    assert all(re.fullmatch(r"\S+  done in \S+ s  \[\d+/10\]", line) for line in messages[1:-1])
    assert tool(tmp_path, "dvc", "status") == CLEAN
    assert "Running stage" not in tool(tmp_path, "dvc", "repro")
    assert not sweep(messages)
    assert messages[-1] == "10 stages up to date"
    assert len(ran(tmp_path)) == 5


def test_nothing_runs_beside_a_stage_that_measures_time(tmp_path: Path) -> None:
    make_project(tmp_path)
    yaml = YAML()
    content = yaml.load(tmp_path / "dvc.yaml")
    content["stages"]["speed"] = {
        "foreach": ["a", "b"],
        "do": {
            "cmd": "echo begin >> ran.txt && sleep 1 && echo end >> ran.txt && echo 1 > ${item}",
            "outs": ["${item}"],
        },
    }
    yaml.dump(content, tmp_path / "dvc.yaml")
    assert not sweep(parallel=4)
    lines = (tmp_path / "ran.txt").read_text().split()
    assert lines[:5] == ["begin", "end", "begin", "end", "preprocess"]


def test_a_stage_that_measures_time_has_the_whole_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VMUNET_THREADS", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    make_project(tmp_path, seeds=1)
    yaml = YAML()
    content = yaml.load(tmp_path / "dvc.yaml")
    command = "echo $OMP_NUM_THREADS set to:$VMUNET_THREADS > threads"
    content["stages"]["speed"] = {"foreach": ["a"], "do": {"cmd": command, "outs": ["threads"]}}
    yaml.dump(content, tmp_path / "dvc.yaml")
    assert not sweep(parallel=2)
    assert (tmp_path / "threads").read_text().split() == ["7", "set", "to:"]  # as under `dvc repro`


def test_fingerprints_are_made_first_and_are_not_counted(tmp_path: Path) -> None:
    make_project(tmp_path, seeds=2)
    add_code(tmp_path)
    messages: list[str] = []
    assert not sweep(messages)
    assert messages[-1] == "0 stages up to date, 6 done"
    assert not any("code" in line for line in messages)
    ours = (tmp_path / "dvc.lock").read_text()
    assert not sweep(messages)
    assert messages[-1] == "6 stages up to date"
    assert (tmp_path / "code.txt").read_text() == "code\n"  # not again: it is newer than the code
    assert list(json.loads(tool(tmp_path, "dvc", "status", "--json"))) == ["code"]
    repeated = tool(tmp_path, "dvc", "repro")
    assert repeated.count("Running stage") == 1
    tool(tmp_path, "dvc", "commit", "--force")
    assert stages_of(ours) == stages_of((tmp_path / "dvc.lock").read_text())


def stages_of(lock: str) -> list[str]:
    """The entries of a dvc.lock, sorted: `dvc repro` runs stages in another order."""
    return sorted(re.split(r"(?m)^(?=  \S)", lock.partition("stages:\n")[2]))


def test_a_comment_runs_nothing_and_an_edit_its_dependents(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    make_project(tmp_path, seeds=2)
    add_code(tmp_path)
    sweep()
    lock = (tmp_path / "dvc.lock").read_text()
    (tmp_path / "lib/train.py").write_text("# better words\na = 1\n")
    assert dry_run(capsys) == ["6 stages up to date"]
    (tmp_path / "lib/evaluate.py").write_text("b = 2\n")
    later = "  (if the outputs that it needs change)"
    evaluations = [f"evaluate@{NAME}1", f"evaluate@{NAME}2"]
    counts = "3 stages up to date"
    *stages, tables, counted = dry_run(capsys)
    assert (sorted(stages), tables, counted) == (evaluations, f"tables{later}", counts)
    assert (tmp_path / "dvc.lock").read_text() == lock  # a dry run writes none
    messages: list[str] = []
    assert not sweep(messages)
    assert messages[-1] == "3 stages up to date, 2 done, 1 unchanged"
    assert ran(tmp_path) == [f"{NAME}1", f"{NAME}2", "preprocess"]
    assert list(json.loads(tool(tmp_path, "dvc", "status", "--json"))) == ["code"]
    assert not sweep(messages, cells=[f"{NAME}1"])
    assert messages[-1] == "6 stages up to date"


def dry_run(capsys: pytest.CaptureFixture) -> list[str]:
    """The output of `vmunet sweep --dry-run`."""
    capsys.readouterr()
    assert cli.main(["sweep", "--dry-run"]) == 0
    return capsys.readouterr().out.splitlines()


def test_code_that_changes_while_a_cell_runs_fails_it(tmp_path: Path) -> None:
    """A comment does not fail it, although it changes the file."""
    edit = (
        f"{ONE} && (echo {{seed}} | grep -qv 1 || echo '# more' >> lib/train.py) && "
        "(echo {seed} | grep -qv 2 || echo 'c = 1' >> lib/train.py)"
    )
    make_project(tmp_path, seeds=2, train=edit)
    add_code(tmp_path)
    messages: list[str] = []
    assert sweep(messages, parallel=1)
    assert messages[-1] == "0 stages up to date, 3 done, 1 failed, 2 not run"
    changed = f"train@{NAME}2  failed after 1 attempt: .fingerprints/train changed while it ran"
    assert any(changed in line for line in messages)


def test_code_that_fails_is_one_sentence(tmp_path: Path) -> None:
    make_project(tmp_path, seeds=1)
    add_code(tmp_path)
    (tmp_path / "lib/code.py").write_text("raise SystemExit('error: lib/train.py: line 3')")
    with pytest.raises(InputError, match=r"^the stage code failed: lib/train\.py: line 3$"):
        sweep()
    assert ran(tmp_path) == []


@pytest.mark.parametrize(("status", "attempts"), [(2, 1), (74, 3)])
def test_wrong_input_is_not_tried_again(tmp_path: Path, status: int, attempts: int) -> None:
    make_project(tmp_path, seeds=1, train=f"{ONE} && exit {status}")
    messages: list[str] = []
    assert sweep(messages)
    assert ran(tmp_path).count(f"{NAME}1") == attempts
    tries = f"{attempts} attempt{'s' if attempts > 1 else ''}"
    assert f"failed after {tries}: exit status {status} (" in messages[-2]


def test_dvc_writes_the_same_lock(tmp_path: Path) -> None:
    make_project(tmp_path)
    sweep()
    ours = (tmp_path / "dvc.lock").read_text()
    tool(tmp_path, "dvc", "commit", "--force")
    assert (tmp_path / "dvc.lock").read_text() == ours
    (tmp_path / "params.yaml").write_text("rate: 2\n")
    sweep()
    ours = (tmp_path / "dvc.lock").read_text()
    assert ours.count("rate: 2") == 4
    tool(tmp_path, "dvc", "commit", "--force")
    assert (tmp_path / "dvc.lock").read_text() == ours


def test_stages_that_dvc_repro_ran_are_skipped(tmp_path: Path) -> None:
    make_project(tmp_path)
    tool(tmp_path, "dvc", "repro", f"train@{NAME}1")
    before = ran(tmp_path)
    sweep()
    assert len(ran(tmp_path)) == len(before) + 3


def test_going_back_to_earlier_params_runs_nothing(tmp_path: Path) -> None:
    make_project(tmp_path)
    sweep()
    (tmp_path / "params.yaml").write_text("rate: 2\n")
    sweep()
    assert len(ran(tmp_path)) == 9
    (tmp_path / "params.yaml").write_text("rate: 1\n")
    messages: list[str] = []
    sweep(messages)
    assert len(ran(tmp_path)) == 9
    assert messages[-1] == "1 stages up to date, 4 restored, 5 unchanged"
    assert tool(tmp_path, "dvc", "status") == CLEAN


def test_a_second_attempt_does_not_bring_back_an_older_result(tmp_path: Path) -> None:
    """dvc.lock has a result for other params; the first attempt, with the new params, fails."""
    make_project(tmp_path, seeds=1, train=f"{ONE} && [ ! -f fail ] || (rm fail && exit 1)")
    assert not sweep()
    (tmp_path / "params.yaml").write_text("rate: 2\n")
    (tmp_path / "fail").touch()
    assert not sweep()
    assert ran(tmp_path).count(f"{NAME}1") == 3
    assert tool(tmp_path, "dvc", "status") == CLEAN


@pytest.mark.parametrize("blocks", [3, pytest.param(10, marks=pytest.mark.slow)])
def test_eight_cells_that_end_together_are_all_recorded(tmp_path: Path, blocks: int) -> None:
    """300 cells declared; blocks of 8 run, none of which ends before all 8 have started."""
    together = (
        f"{ONE} && mkdir -p started && touch started/{{seed}} && "
        "need=$(( ($(ls started | wc -l) + 7) / 8 * 8 )) && "
        "until [ $(ls started | wc -l) -ge $need ]; do sleep 0.1; done"
    )
    make_project(tmp_path, seeds=300, train=together)
    messages: list[str] = []
    seeds = list(range(1, 8 * blocks + 1))
    names = [f"train@{NAME}{seed}" for seed in seeds]
    assert not sweep(messages, parallel=8, seeds=seeds)
    assert ran(tmp_path) == sorted([*(f"{NAME}{seed}" for seed in seeds), "preprocess"])
    stale = json.loads(tool(tmp_path, "dvc", "status", "--json", *names))
    assert stale == {}
    # a new record, with DVC's own rules: these are up to date and the others are not
    left = Record(tmp_path).changed(Record(tmp_path).stages)
    assert len(left) == 2 * (300 - len(seeds)) + 1
    assert not left & set(names)


def test_inputs_that_change_while_a_cell_runs_fail_it(tmp_path: Path) -> None:
    change = f"{ONE} && (echo {{seed}} | grep -qv 2 || echo more >> arrays)"
    make_project(tmp_path, seeds=3, train=change)
    messages: list[str] = []
    assert sweep(messages, parallel=1)
    why = "arrays changed while it ran; its result is not recorded"
    assert f"train@{NAME}2  failed after 1 attempt: {why}" in "\n".join(messages)
    assert ran(tmp_path).count(f"{NAME}2") == 1
    assert f"train@{NAME}2" in json.loads(tool(tmp_path, "dvc", "status", "--json"))


def test_a_foreign_lock_is_waited_for(tmp_path: Path) -> None:
    make_project(tmp_path, seeds=2, train=f"{ONE} && touch started && sleep 1")
    hold = (
        "import time, zc.lockfile; lock = zc.lockfile.LockFile('.dvc/tmp/lock'); "
        "open('held', 'w').close(); time.sleep(5)"
    )
    process = start(tmp_path, "--parallel", "2")
    wait_until(lambda: (tmp_path / "started").exists())
    with subprocess.Popen([sys.executable, "-c", hold], cwd=tmp_path):
        wait_until(lambda: (tmp_path / "held").exists())
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert "waiting for another dvc process" in output
    assert len(ran(tmp_path)) == 3
    assert tool(tmp_path, "dvc", "status") == CLEAN


def test_dvc_does_not_run_a_cell_that_the_sweep_runs(tmp_path: Path) -> None:
    make_project(tmp_path, seeds=1, train=f"{ONE} && touch started && sleep 3")
    process = start(tmp_path)
    wait_until(lambda: (tmp_path / "started").exists())
    command = ["dvc", "repro", f"train@{NAME}1"]
    foreign = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, text=True
    )
    assert foreign.returncode != 0
    assert "is busy" in foreign.stderr
    assert process.wait(timeout=30) == 0
    assert ran(tmp_path) == [f"{NAME}1", "preprocess"]


def test_a_killed_cell_continues_from_its_checkpoint(tmp_path: Path) -> None:
    train = f"{ONE} && if [ -f saved ]; then cp saved resumed; else touch saved; kill -9 $$; fi"
    make_project(tmp_path, seeds=1, train=train)
    messages: list[str] = []
    assert not sweep(messages)
    assert (tmp_path / "resumed").exists()
    assert any("killed by SIGKILL (out of memory?); trying again" in line for line in messages)
    assert ran(tmp_path).count(f"{NAME}1") == 2
    assert tool(tmp_path, "dvc", "status") == CLEAN


def test_a_cell_that_finally_fails_stops_only_its_dependents(tmp_path: Path) -> None:
    train = f"{ONE} && (echo {{seed}} | grep -qv 2 || (echo NaN in epoch 3 >&2 && exit 1))"
    make_project(tmp_path, seeds=3, train=train)
    messages: list[str] = []
    assert sweep(messages, retries=1)
    assert ran(tmp_path).count(f"{NAME}2") == 2
    cell = f"train@{NAME}2"
    why, log = "exit status 1: NaN in epoch 3", f"log: .sweep/logs/{cell}.log"
    assert f"{cell}  {why}; trying again; {log}" in messages
    assert messages[-2:] == [
        f"{cell}  failed after 2 attempts: {why}; {log}",
        "0 stages up to date, 5 done, 1 failed, 2 not run",
    ]
    stale = json.loads(tool(tmp_path, "dvc", "status", "--json"))
    assert sorted(stale) == [f"evaluate@{NAME}2", "tables", f"train@{NAME}2"]
    sweep(messages, retries=0)
    assert ran(tmp_path).count(f"{NAME}1") == 1


def test_out_of_memory_is_tried_again_with_fewer_samples_at_once(tmp_path: Path) -> None:
    train = (
        f"{ONE} && echo batch $VMUNET_MICRO_BATCH >> batches.txt && "
        '([ "$VMUNET_MICRO_BATCH" = 8 ] || (now=$VMUNET_MICRO_BATCH; [ "$now" ] || now=32; '
        "echo out of memory, VMUNET_MICRO_BATCH=$((now / 2)) >&2; exit 75))"
    )
    make_project(tmp_path, seeds=1, train=train)
    messages: list[str] = []
    assert not sweep(messages)
    batches = (tmp_path / "batches.txt").read_text().splitlines()
    assert [line.strip() for line in batches] == ["batch", "batch 16", "batch 8"]
    assert any("out of memory; 16 samples at once from now on" in line for line in messages)


def test_out_of_memory_with_one_sample_is_final(tmp_path: Path) -> None:
    make_project(tmp_path, seeds=1, train=f"{ONE} && (echo a smaller model >&2; exit 75)")
    messages: list[str] = []
    assert sweep(messages)
    assert ran(tmp_path).count(f"{NAME}1") == 1
    assert "failed after 1 attempt: out of memory, even with one sample at once" in messages[-2]


def test_a_sweep_is_a_run_of_mlflow_above_its_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/store.db")
    make_project(tmp_path, seeds=1, train=f"{ONE} && echo $VMUNET_SWEEP > parent.txt")
    (tmp_path / "params.yaml").write_text("rate: 1\nprofile: demo\n")
    assert not sweep()
    mlflow = client()
    run = mlflow.get_run((tmp_path / "parent.txt").read_text().strip())
    assert run.info.status == "FINISHED"
    assert run.data.tags["kind"] == "sweep"
    assert mlflow.get_experiment(run.info.experiment_id).name == "demo"
    assert "VMUNET_SWEEP" not in os.environ


def test_a_command_without_its_output_fails(tmp_path: Path) -> None:
    make_project(tmp_path, seeds=1, train="exit 0")
    messages: list[str] = []
    assert sweep(messages, retries=0)
    assert f"failed after 1 attempt: its command made no output 'runs/{NAME}1'" in messages[-2]


def test_ctrl_c_stops_and_the_next_start_goes_on(tmp_path: Path) -> None:
    train = f"{ONE} && touch started && ([ -f fast ] || sleep 97)"
    make_project(tmp_path, seeds=3, train=train)
    process = start(tmp_path, "--parallel", "2")
    wait_until(lambda: len(ran(tmp_path)) == 3)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)  # it waits at most half of this for MLflow
    assert process.returncode == 130, output
    lines = [line.partition("  ")[2] for line in output.splitlines()]
    again = "stopped; to continue: vmunet sweep --parallel 2 --gpus none"
    assert lines[-2:] == ["0 stages up to date, 1 done, 7 stopped", again]
    assert running("sleep 97") == []
    (tmp_path / "fast").touch()
    assert not sweep()
    assert tool(tmp_path, "dvc", "status") == CLEAN
    assert ran(tmp_path).count("preprocess") == 1


def test_the_next_sweep_runs_after_a_kill(tmp_path: Path) -> None:
    train = f"{ONE} && ([ -f fast ] || sleep 98 | sleep 98)"
    make_project(tmp_path, seeds=2, train=train)
    process = start(tmp_path, "--parallel", "2")
    wait_until(lambda: len(ran(tmp_path)) == 3)
    process.kill()
    process.communicate(timeout=20)
    (tmp_path / ".dvc/tmp/rwlock").write_text("{")  # killed while DVC wrote it
    (tmp_path / "fast").touch()
    assert not sweep()
    assert running("sleep 98") == []
    assert tool(tmp_path, "dvc", "status") == CLEAN


def test_a_second_sweep_waits_for_the_first(tmp_path: Path) -> None:
    make_project(tmp_path, seeds=2, train=f"{ONE} && sleep 2")
    first = start(tmp_path)
    wait_until(lambda: len(ran(tmp_path)) == 3)
    second = start(tmp_path)
    outputs = [process.communicate(timeout=60)[0] for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), outputs
    assert f"another sweep of this clone runs (process {first.pid}): waiting" in outputs[1]
    assert "6 stages up to date" in outputs[1]
    assert len(ran(tmp_path)) == 3


def test_an_unreachable_prefect_server_costs_a_warning(tmp_path: Path) -> None:
    make_project(tmp_path, seeds=1)
    started = time.monotonic()
    process = start(tmp_path, PREFECT_API_URL="http://127.0.0.1:9/api")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "warning: no Prefect server answers at PREFECT_API_URL=http://127.0.0.1:9" in output
    assert time.monotonic() - started < 15
    process = start(tmp_path, PREFECT_API_URL="localhost:4200")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert output.startswith("error: PREFECT_API_URL=localhost:4200: expected such as http")


def test_only_selected_stages_run(tmp_path: Path) -> None:
    make_project(tmp_path)
    messages: list[str] = []
    assert not sweep(messages, cells=["*-paper-2"])
    assert ran(tmp_path) == [f"{NAME}2", "preprocess"]
    assert "tables and report not made: 6 stages outside this selection" in messages[-1]
    assert not sweep(messages, seeds=[1, 3, 4])
    assert (tmp_path / "tables.txt").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cells": ["isic18-*"]}, "--cells isic18-*: no cell has that name; `vmunet runs` lists"),
        ({"cells": [f"{NAME}9"]}, f"Did you mean {NAME}"),
        ({"seeds": [7]}, "--seeds 7: params.yaml declares 1, 2, 3, 4; add it to grid.seeds"),
        ({"tables": ["3"]}, "--tables 3: no such table; known: none"),
        ({"cells": ["*-1"], "seeds": [2]}, "no cell of the grid matches all options"),
        ({"gpus": "3"}, "--gpus 3: there is no GPU 3"),
    ],
)
def test_a_wrong_option_is_one_sentence(tmp_path: Path, options: dict, message: str) -> None:
    make_project(tmp_path)
    with pytest.raises(InputError, match=r".") as error:
        sweep(**options)
    assert message in str(error.value)
    assert ran(tmp_path) == []


def test_each_cell_has_its_own_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    train = "mkdir gpu$CUDA_VISIBLE_DEVICES && echo $CUDA_VISIBLE_DEVICES >> gpus && sleep 0.3"
    make_project(tmp_path, train=f"{train} && rmdir gpu$CUDA_VISIBLE_DEVICES")
    assert not sweep(parallel=8, gpus="all", retries=0)
    assert set((tmp_path / "gpus").read_text().split()) == {"4", "7"}


def test_cores_are_shared_out(tmp_path: Path) -> None:
    make_project(tmp_path, seeds=1, train="echo $OMP_NUM_THREADS $VMUNET_THREADS > threads")
    cores = len(os.sched_getaffinity(0))
    sweep(parallel=2)
    assert (tmp_path / "threads").read_text().split() == [str(max(1, cores // 2))] * 2


def running(command: str) -> list[str]:
    """The processes with this command line."""
    lines = (" ".join(p.info["cmdline"] or ()) for p in psutil.process_iter(["cmdline"]))
    return [line for line in lines if line.strip() == command]
