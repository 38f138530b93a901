"""The page's Cancel and dead flows, with a stand-in for Prefect's server; and `vmunet ui`."""

import contextlib
import json
import stat
import subprocess
import sys
import time
import uuid
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import FlowRunSort, TaskRunSort

from pipeline.commands import ui
from pipeline.owners import HOST, PROCESS, machine, owner
from pipeline.sweep.prefect import ends
from pipeline.sweep.prefect.server import ADDRESSES, mlflow_page, use_server
from pipeline.tracking.store import explain
from vmunet.errors import InputError

DEAD = {HOST: machine(), PROCESS: "999999999 0-0"}


class Server:
    """Flow runs as Prefect's client shows them; each has a task that runs."""

    def __init__(self) -> None:
        self.runs: dict[Any, Any] = {}
        self.tasks: dict[Any, StateType] = {}

    def add(self, labels: dict[str, str], state: StateType = StateType.RUNNING) -> Any:
        run = SimpleNamespace(id=uuid.uuid4(), labels=labels, state_type=state)
        self.runs[run.id], self.tasks[run.id] = run, StateType.RUNNING
        return run

    def read_flow_run(self, run: Any) -> Any:
        return self.runs[run]

    def read_flow_runs(self, flow_run_filter: Any, sort: FlowRunSort, limit: int) -> list[Any]:
        return [r for r in self.runs.values() if r.state_type in flow_run_filter.state.type.any_]

    def read_task_runs(
        self, flow_run_filter: Any, task_run_filter: Any, sort: TaskRunSort, limit: int
    ) -> list[Any]:
        wanted = task_run_filter.state.type.any_
        ids = flow_run_filter.id.any_
        return [SimpleNamespace(id=run) for run in ids if self.tasks[run] in wanted]

    def set_flow_run_state(self, run: Any, state: Any, force: bool) -> None:
        self.runs[run].state_type = state.type

    def set_task_run_state(self, run: Any, state: Any, force: bool) -> None:
        self.tasks[run] = state.type


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    made = Server()
    monkeypatch.setattr(ends, "get_client", lambda **_: contextlib.nullcontext(made))
    monkeypatch.setattr(ends, "LOOK_SECONDS", 0.02)
    return made


def test_the_flows_of_dead_processes_alone_are_ended(server: Server) -> None:
    dead, cancelled = server.add(DEAD), server.add(DEAD, StateType.CANCELLING)
    others = [server.add(owner()), server.add({}), server.add(DEAD | {HOST: "elsewhere"})]
    assert ends.close_dead_flows() == 2
    assert dead.state_type is server.tasks[dead.id] is StateType.CRASHED
    assert cancelled.state_type is server.tasks[cancelled.id] is StateType.CANCELLED
    assert {run.state_type for run in others} == {StateType.RUNNING}
    assert ends.close_dead_flows() == 0


def test_cancel_on_the_page_ends_the_main_thread(server: Server) -> None:
    ui.stop_as_ctrl_c_does()
    run, cancel = server.add(owner()), ends.Cancel()

    def sweep() -> None:
        with cancel.watched(run.id):
            time.sleep(0.1)
            assert not cancel.wanted
            run.state_type = StateType.CANCELLING
            time.sleep(20)

    with pytest.raises(KeyboardInterrupt):
        sweep()
    assert cancel.wanted
    cancel.confirm()
    assert run.state_type is StateType.CANCELLED


def test_a_sweep_that_nobody_cancels_ends_by_itself(server: Server) -> None:
    run, cancel = server.add(owner()), ends.Cancel()
    with cancel.watched(run.id):
        time.sleep(0.1)
    run.state_type = StateType.CANCELLING
    time.sleep(0.1)
    cancel.confirm()
    assert run.state_type is StateType.CANCELLING


def test_a_server_that_ends_leaves_the_other_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    ADDRESSES.parent.mkdir()
    servers = {
        "MLflow": subprocess.Popen(["true"], start_new_session=True),
        "Prefect": subprocess.Popen(["sleep", "60"], start_new_session=True),
    }
    try:
        ui.wait_for_an_end(servers)
        ui.write_addresses(servers, "http://m", "http://p")
        assert list(servers) == ["Prefect"]
        assert servers["Prefect"].poll() is None
    finally:
        ui.stop(servers)
    error = capsys.readouterr().err
    assert error.startswith("warning: MLflow's server ended by itself, see .sweep/logs/mlflow")
    assert error.endswith("; Prefect's page stays\n")
    assert json.loads(ADDRESSES.read_text()) == {"prefect_api": "http://p/api"}


def test_a_server_that_does_not_start_is_a_warning_if_the_other_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pipeline.sweep.prefect.server.answers", lambda url: url == "http://p")
    fails = [sys.executable, "-S", "-c", "print('sqlite://u:secret@x is broken')"]

    def start(command: list[str]) -> "subprocess.Popen[bytes]":
        with ui.open_log(ui.log_of("MLflow")) as log:
            return subprocess.Popen(command, stdout=log, start_new_session=True)

    servers = {"MLflow": start(fails), "Prefect": start(["sleep", "60"])}
    ui.wait_for(servers, {"MLflow": "http://m", "Prefect": "http://p"})
    assert list(servers) == ["Prefect"]
    ui.stop(servers)
    error = capsys.readouterr().err
    assert error.startswith("warning: MLflow's server did not start: sqlite://x is broken")
    assert stat.S_IMODE(ui.log_of("MLflow").stat().st_mode) == 0o600
    with pytest.raises(InputError, match="did not start"):
        ui.wait_for({"MLflow": start(fails)}, {"MLflow": "http://m"})


def test_no_password_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    address = "http://user:secret@127.0.0.1:9"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    said: list[str] = []
    said.append(explain(OSError(f"no answer of {address}/api")))
    said.append(explain(OSError("Max retries exceeded")))
    said.append(mlflow_page("0123"))
    for text in (address, f"{address} x"):
        monkeypatch.setenv("PREFECT_API_URL", text)
        with contextlib.suppress(InputError):
            use_server(said.append)
    with pytest.raises(InputError) as error:
        use_server(said.append)
    said.append(str(error.value))
    assert len(said) == 5
    assert not any("secret" in line or "user" in line for line in said)
    assert all("127.0.0.1:9" in line for line in said)
