"""`vmunet ui`: start the pages of MLflow and Prefect, for this machine only."""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from pipeline.commands.sweep import stop_as_ctrl_c_does
from pipeline.sweep.processes import GRACE_SECONDS, Watchdog, last_lines, send
from vmunet.errors import InputError

HELP = "start the pages of MLflow and Prefect"
ABOUT = """\
Start MLflow's page, to compare runs, and Prefect's, to watch sweeps, on 127.0.0.1. Their stores
are mlflow.db and prefect.db in the repository's root. Ctrl-C stops both. A sweep that starts in the
same clone meanwhile reports to Prefect automatically.
"""
START_SECONDS = 90.0
LOGS = Path(".sweep") / "logs"
REPORT_PAGE = Path("reports/out/index.html")
HOST = "127.0.0.1"
OWN_ORIGIN = "pipeline.sweep.prefect.own_origin"  # Prefect's server, started as a module


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `vmunet ui`."""
    parser.set_defaults(command=ui)
    parser.add_argument("--mlflow-port", metavar="PORT", type=int, default=5000, help="(5000)")
    parser.add_argument("--prefect-port", metavar="PORT", type=int, default=4200, help="(4200)")


def ui(arguments: argparse.Namespace) -> int:
    """Start both servers and stay until Ctrl-C.

    Raises:
        InputError: a port is taken, or a server does not start.
    """
    from pipeline.sweep.prefect.server import ADDRESSES

    ports = {"MLflow": arguments.mlflow_port, "Prefect": arguments.prefect_port}
    for name, port in ports.items():
        check_free(name, port)
    stop_as_ctrl_c_does()
    mlflow, prefect = (f"http://{HOST}:{port}" for port in ports.values())
    servers: dict[str, subprocess.Popen[bytes]] = {}
    watchdog = Watchdog()
    ADDRESSES.parent.mkdir(exist_ok=True)
    print("starting both servers: this takes some seconds, the first time a minute", flush=True)
    try:
        servers["MLflow"] = start_mlflow(ports["MLflow"])
        servers["Prefect"] = start_prefect(ports["Prefect"])
        for server in servers.values():
            watchdog.add(server.pid)
        wait_for(servers, {"MLflow": mlflow, "Prefect": f"{prefect}/api"})
        ADDRESSES.write_text(json.dumps({"mlflow": mlflow, "prefect_api": f"{prefect}/api"}))
        print(f"MLflow:  {mlflow}\nPrefect: {prefect}")
        if REPORT_PAGE.is_file():
            print(f"report: {report_address(REPORT_PAGE, mlflow)}")
        print("Ctrl-C stops both.", flush=True)
        wait_for_the_end(servers)
    finally:
        ADDRESSES.unlink(missing_ok=True)
        stop(servers)
        watchdog.close()
    return 0


def report_address(page: Path, mlflow: str) -> str:
    """The address of the report's page; it contains the address of MLflow's server."""
    return f"{page.absolute().as_uri()}#mlflow={mlflow}"


def check_free(name: str, port: int) -> None:
    """Refuse a port that another program uses.

    Raises:
        InputError: the port is taken, or it is not a port number.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            option = f"--{name.lower()}-port"
            why = "is taken" if isinstance(error, OSError) else "is not a port number"
            raise InputError(
                f"port {port}, for {name}, {why}; choose another: vmunet ui {option} {port + 1}"
            ) from None


def start_mlflow(port: int) -> "subprocess.Popen[bytes]":
    from pipeline.tracking import client
    from pipeline.tracking.store import sqlite_uri

    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if not uri:
        client()  # makes the store, under its lock
        uri = sqlite_uri(Path("mlflow.db"))
    command = ["-m", "mlflow", "server", "--host", HOST, "--port", str(port)]
    # The setting saves seven processes for jobs that our pages never start.
    environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **own_origin(port)}
    return started([*command, "--backend-store-uri", uri, "--workers", "1"], "mlflow", environment)


def start_prefect(port: int) -> "subprocess.Popen[bytes]":
    from pipeline.sweep.prefect.own_origin import origins
    from pipeline.tracking.store import sqlite_uri

    environment = {
        "PREFECT_API_DATABASE_CONNECTION_URL": sqlite_uri(Path("prefect.db"), "sqlite+aiosqlite"),
        # Without it the page asks port 4200, even if the server has another port.
        "PREFECT_SERVER_UI_API_URL": f"http://{HOST}:{port}/api",
        "PREFECT_API_URL": "",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": ",".join(origins(port)),
        "DO_NOT_TRACK": "1",
    }
    return started(["-m", OWN_ORIGIN, str(port)], "prefect", environment)


def own_origin(port: int) -> dict[str, str]:
    """MLflow's own settings for what `pipeline.sweep.prefect.own_origin` does for Prefect."""
    from pipeline.sweep.prefect.own_origin import NAMES, origins

    hosts = [host for name in NAMES for host in (name, f"{name}:*")]
    return {
        "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join(hosts),
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": ",".join(origins(port)),
    }


def started(
    command: list[str], name: str, environment: dict[str, str]
) -> "subprocess.Popen[bytes]":
    """Start a server in its own process group, with its output in .sweep/logs/."""
    log = log_of(name)
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as file:
        return subprocess.Popen(
            [sys.executable, *command],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            start_new_session=True,
        )


def wait_for(servers: "dict[str, subprocess.Popen[bytes]]", urls: dict[str, str]) -> None:
    """Wait until each server answers.

    Raises:
        InputError: a server ended, or does not answer within 90 s.
    """
    from pipeline.sweep.prefect.server import answers

    deadline = time.monotonic() + START_SECONDS
    for name, server in servers.items():
        log = log_of(name)
        while not answers(urls[name]):
            if server.poll() is not None or time.monotonic() > deadline:
                last = " ".join(last_lines(log, 1))
                raise InputError(f"{name}'s server did not start: {last} (complete output: {log})")
            time.sleep(0.2)


def wait_for_the_end(servers: "dict[str, subprocess.Popen[bytes]]") -> None:
    """Wait until Ctrl-C.

    Raises:
        InputError: a server ended by itself.
    """
    while True:
        for name, server in servers.items():
            if server.poll() is not None:
                raise InputError(
                    f"{name}'s server ended by itself; its last lines are in {log_of(name)}"
                )
        time.sleep(0.5)


def log_of(name: str) -> Path:
    """The file with a server's output."""
    return LOGS / f"{name.lower()}-server.log"


def stop(servers: "dict[str, subprocess.Popen[bytes]]") -> None:
    """Send SIGTERM to each group, and SIGKILL to the remaining processes after 10 s."""
    for server in servers.values():
        send(server.pid, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    for server in servers.values():
        with suppress(subprocess.TimeoutExpired):
            server.wait(max(0.1, deadline - time.monotonic()))
        send(server.pid, signal.SIGKILL)
        server.wait()
