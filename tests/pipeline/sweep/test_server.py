"""Sweeps with a page: `vmunet ui`, and the data on Prefect's page."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest

from pipeline.tracking import client
from tests.helpers import search as searches
from tests.helpers.browser import dom, needs_browser
from tests.helpers.sweep import NAME, ONE, SWEEP, environment, make_project, ran, start, tool
from tests.helpers.tracking import record, row, tracker

pytestmark = pytest.mark.slow  # both servers start, which takes up to a minute

FAILS_ONCE = (
    f"{ONE} && (echo {{seed}} | grep -qv 2 || [ -f saved ] || (touch saved && kill -9 $$)) && "
    "(echo {seed} | grep -qv 3 || (echo NaN in epoch 3 && exit 1))"
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ui(folder: Path, mlflow: int, prefect: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", SWEEP, "ui"]
    return subprocess.Popen(
        [*command, "--mlflow-port", str(mlflow), "--prefect-port", str(prefect)],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project that was swept while its servers ran; they still run."""
    folder = make_project(tmp_path_factory.mktemp("watched"), seeds=3, train=FAILS_ONCE)
    ports = free_port(), free_port()
    page = folder / "reports/out/index.html"
    page.parent.mkdir(parents=True)
    page.touch()
    process = ui(folder, *ports)
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline().strip() for _ in range(4)]
        assert lines[0].endswith("the first time a minute")
        assert lines[1:] == [
            f"MLflow:  http://127.0.0.1:{ports[0]}",
            f"Prefect: http://127.0.0.1:{ports[1]}",
            f"report: {page.as_uri()}#mlflow=http://127.0.0.1:{ports[0]}",
        ]
        yield folder
    finally:
        process.terminate()
        process.wait(timeout=30)
    assert not (folder / ".sweep/ui.json").exists()


def ask(project: Path, path: str, body: dict | None = None) -> Any:
    """The answer of Prefect's server."""
    api = json.loads((project / ".sweep/ui.json").read_text())["prefect_api"]
    url = f"{api}{path}" if path.startswith("/") else api.removesuffix("api") + path
    data = None if body is None else json.dumps(body).encode()
    request = Request(url, data, {"Content-Type": "application/json"})
    with urlopen(request, timeout=20) as answer:
        return json.load(answer)


def wait_for(condition, seconds: float = 20.0) -> None:
    """Wait for a condition, because Prefect's server learns of task runs with a delay."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.parametrize(
    "foreign", [{"Origin": "http://evil.example"}, {"Host": "10.evil.example"}]
)
@pytest.mark.parametrize(
    ("server", "path"),
    [
        ("prefect_api", "/flow_runs/filter"),
        ("mlflow", "/api/2.0/mlflow/experiments/search"),
    ],
)
def test_a_foreign_page_is_refused(
    project: Path, server: str, path: str, foreign: dict[str, str]
) -> None:
    url = json.loads((project / ".sweep/ui.json").read_text())[server] + path
    plain, body = {"Content-Type": "application/json"}, b'{"max_results": 1}'
    body = b"{}" if server == "prefect_api" else body
    with urlopen(Request(url, body, plain), timeout=20) as own:
        assert own.status == 200
    with pytest.raises(HTTPError, match="403"):
        urlopen(Request(url, body, plain | foreign), timeout=20)


def test_prefect_shows_each_cell_by_its_name(project: Path) -> None:
    process = start(project, "--parallel", "2", "--retries", "1")
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 1, output
    assert ran(project).count(f"{NAME}2") == 2
    assert ran(project).count(f"{NAME}3") == 2
    (flow,) = ask(project, "/flow_runs/filter", {})
    assert flow["name"].endswith("all cells")
    assert flow["state"]["type"] == "FAILED"

    def tasks() -> dict[str, Any]:
        return {task["name"]: task for task in ask(project, "/task_runs/filter", {})}

    wait_for(lambda: all(task["state"]["type"] in ENDED for task in tasks().values()))
    states = {name: task["state"]["type"] for name, task in tasks().items()}
    assert states == {
        "preprocess": "COMPLETED",
        f"train@{NAME}1": "COMPLETED",
        f"evaluate@{NAME}1": "COMPLETED",
        f"train@{NAME}2": "COMPLETED",
        f"evaluate@{NAME}2": "COMPLETED",
        f"train@{NAME}3": "FAILED",
    }
    assert tasks()[f"train@{NAME}2"]["run_count"] == 2
    assert tasks()[f"train@{NAME}2"]["tags"] == ["isic17"]
    artifacts = {artifact["key"]: artifact for artifact in ask(project, "/artifacts/filter", {})}
    assert artifacts["progress"]["data"] == 100
    table = artifacts["cells"]["data"]
    assert f"| train@{NAME}3 | failed: exit status 1 |" in table
    assert f"| evaluate@{NAME}3 | not run: needs train@{NAME}3 |" in table
    wait_for(lambda: any("NaN in epoch 3" in log["message"] for log in logs(project)))


ENDED = ("COMPLETED", "FAILED")


def logs(project: Path) -> list[dict[str, Any]]:
    return ask(project, "/logs/filter", {"limit": 200})


@needs_browser
def test_a_browser_shows_the_sweep(project: Path) -> None:
    api = json.loads((project / ".sweep/ui.json").read_text())["prefect_api"]
    (flow,) = ask(project, "/flow_runs/filter", {})
    page = dom(f"{api.removesuffix('/api')}/runs/flow-run/{flow['id']}")
    assert flow["name"] in page
    assert "Failed" in page
    assert f"train@{NAME}3" in page
    assert "Can't connect to Server API" not in page


@needs_browser
def test_a_browser_shows_and_compares_runs(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = json.loads((project / ".sweep/ui.json").read_text())["mlflow"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
    for seed in (1, 2):
        run = tracker(seed=seed)
        for epoch in (1, 2):
            run.log_epoch(row(epoch))
        run.finish()
    profile = record()["run"]["profile"]
    experiment = client().get_experiment_by_name(profile).experiment_id
    table = dom(f"{url}/#/experiments/{experiment}/runs")
    assert all(f"isic17-32-scratch-paper-{seed}" in table for seed in (1, 2))
    runs = client().search_runs([experiment])
    ids = quote(json.dumps([run.info.run_id for run in runs]))
    compared = dom(f"{url}/#/compare-runs?runs={ids}&experiments={quote(json.dumps([experiment]))}")
    assert "Comparing 2 Runs" in compared
    assert "Parallel Coordinates Plot" in compared


def test_prefects_page_asks_its_own_server(project: Path) -> None:
    api = json.loads((project / ".sweep/ui.json").read_text())["prefect_api"]
    assert ask(project, "ui-settings")["api_url"] == api


def test_a_taken_port_is_reported(project: Path) -> None:
    port = int(json.loads((project / ".sweep/ui.json").read_text())["mlflow"].rpartition(":")[2])
    second = ui(project, port, free_port())
    output, _ = second.communicate(timeout=30)
    assert second.returncode == 2
    assert output.startswith(f"error: port {port}, for MLflow, is taken; choose another: vmunet ui")


def test_a_server_that_stops_costs_no_result(tmp_path: Path) -> None:
    """Only Prefect's server is killed, while the cells run."""
    folder = make_project(tmp_path, seeds=3, train=f"{ONE} && sleep 2")
    with prefect_server(tmp_path) as api:
        process = start(folder, "--parallel", "1", PREFECT_API_URL=api)
        wait_for(lambda: len(ran(folder)) >= 2, 40)
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 0, output
    assert len(ran(folder)) == 4
    assert not any(sign in output for sign in ("Service ", "--- Error", "Traceback", "Event("))
    assert "up to date" in tool(folder, "dvc", "status")


def test_a_sweep_is_cancelled_on_the_page_and_a_dead_one_is_ended(tmp_path: Path) -> None:
    folder = make_project(tmp_path, seeds=1, train="echo $$ > pid && exec sleep 600")
    with prefect_server(tmp_path) as api:

        def post(path: str, body: dict) -> Any:
            content = {"Content-Type": "application/json"}
            with urlopen(
                Request(api + path, json.dumps(body).encode(), content), timeout=20
            ) as got:
                return json.load(got)

        def state() -> tuple[str, str]:
            newest = {"sort": "START_TIME_DESC", "limit": 1}
            (flow,) = post("/flow_runs/filter", newest)
            return flow["id"], flow["state"]["type"]

        def running() -> "subprocess.Popen[str]":
            (folder / "pid").unlink(missing_ok=True)
            process = start(folder, PREFECT_API_URL=api)
            wait_for((folder / "pid").exists, 60)
            return process

        killed = running()
        killed.kill()
        killed.communicate()
        dead, of_dead = state()
        assert of_dead == "RUNNING"
        process = running()
        flow, of_flow = state()
        assert flow != dead
        assert of_flow == "RUNNING"
        cancelling = {"type": "CANCELLING", "name": "Cancelling"}
        began = time.monotonic()
        post(f"/flow_runs/{flow}/set_state", {"state": cancelling})
        pid = int((folder / "pid").read_text())
        wait_for(lambda: is_over(pid), 10)
        output, _ = process.communicate(timeout=20)
        print(f"ended {time.monotonic() - began:.1f} s after Cancel")
        assert process.returncode == 130, output
        assert "cancelled on Prefect's page" in output
        found = {one["id"]: one["state"]["type"] for one in post("/flow_runs/filter", {})}
        assert found == {dead: "CRASHED", flow: "CANCELLED"}
        tasks = post("/task_runs/filter", {})
        assert all(task["state"]["type"] not in ("RUNNING", "PENDING") for task in tasks)


def is_over(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_search_does_not_wait_for_a_server_that_stopped(tmp_path: Path) -> None:
    folder = searches.make_project(tmp_path / "project")
    (folder / "slow").touch()
    with prefect_server(tmp_path) as api:
        arguments = (searches.VIEW, "--trials", "2", "--parallel", "1")
        process = searches.start(folder, *arguments, PREFECT_API_URL=api)
        log = folder / ".search" / f"{searches.VIEW}-scratch-sound" / "logs/trial-0.log"
        wait_for(log.exists, 60)
    (folder / "slow").unlink()
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 0, output
    assert "[2/2]" in output
    assert "warning: Prefect's server no longer answers" in output


@contextmanager
def prefect_server(folder: Path) -> Iterator[str]:
    """The address of a server that is killed at the end."""
    port = free_port()
    command = [sys.executable, "-m", "prefect", "server", "start", "--port", str(port)]
    api = f"http://127.0.0.1:{port}/api"
    database = f"sqlite+aiosqlite:///{folder / 'prefect.db'}"
    server = subprocess.Popen(
        command,
        env=environment(PREFECT_API_DATABASE_CONNECTION_URL=database),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: is_up(api), 200)
        yield api
    finally:
        server.kill()
        server.wait()


def is_up(api: str) -> bool:
    try:
        with urlopen(f"{api}/health", timeout=2):
            return True
    except OSError:
        return False
