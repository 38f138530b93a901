"""`vmunet ui`: start the pages of MLflow and Prefect, for this machine only."""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from pipeline.commands.sweep import stop_as_ctrl_c_does
from pipeline.passwords import without_password
from pipeline.sweep.processes import GRACE_SECONDS, Watchdog, last_lines, send
from vmunet.errors import InputError
from vmunet.files import make_private, open_log

HELP = "start the pages of MLflow and Prefect"
ABOUT = """\
Start MLflow's page, to compare runs, and Prefect's, to watch sweeps, on 127.0.0.1. Their stores
are mlflow.db and prefect.db in the repository's root. Ctrl-C stops both. A sweep that starts in the
same clone meanwhile reports to Prefect automatically.
"""
START_SECONDS = 180.0  # on a machine that is busy
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
        InputError: a port is taken, or no server starts, or both have ended. One that does not
            start or ends costs a warning: the other's page stays.
    """
    from pipeline.sweep.prefect.server import ADDRESSES
    from pipeline.tracking.store import explain, warn

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
        for name, start in (("MLflow", start_mlflow), ("Prefect", start_prefect)):
            try:
                servers[name] = start(ports[name])
            except Exception as error:  # of a store that cannot be written
                warn(name, f"its server cannot be started ({explain(error)})")
        for server in servers.values():
            watchdog.add(server.pid)
        wait_for(servers, {"MLflow": mlflow, "Prefect": f"{prefect}/api"})
        write_addresses(servers, mlflow, prefect)
        if "MLflow" in servers:
            print(f"MLflow:  {mlflow}")
        if "Prefect" in servers:
            print(f"Prefect: {prefect}")
        if REPORT_PAGE.is_file():
            print(f"report: {report_address(REPORT_PAGE, mlflow)}")
        print(f"Ctrl-C stops {'both' if len(servers) == 2 else 'it'}.", flush=True)
        close_dead(f"{prefect}/api" if "Prefect" in servers else "")
        while servers:
            wait_for_an_end(servers)
            write_addresses(servers, mlflow, prefect)
        raise InputError(f"no server runs any more; their last lines are in {LOGS}")
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
    from pipeline.tracking.store import STORE, sqlite_uri

    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if not uri:
        client()  # makes the store, under its lock
        uri = sqlite_uri(STORE)
    command = ["-m", "mlflow", "server", "--host", HOST, "--port", str(port)]
    # The setting saves seven processes for jobs that our pages never start.
    environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **own_origin(port)}
    # Not as an argument: every user of the machine sees those, and a password may be in it.
    environment["MLFLOW_BACKEND_STORE_URI"] = uri
    return started([*command, "--workers", "1"], "mlflow", environment)


def start_prefect(port: int) -> "subprocess.Popen[bytes]":
    from pipeline.sweep.prefect.own_origin import origins
    from pipeline.tracking.store import sqlite_uri

    make_private(Path("prefect.db"))
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
    with open_log(log_of(name)) as file:
        return subprocess.Popen(
            [sys.executable, *command],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            start_new_session=True,
        )


def wait_for(servers: "dict[str, subprocess.Popen[bytes]]", urls: dict[str, str]) -> None:
    """Wait until each server answers; one that ends, or takes more than 180 s, is taken out.

    Raises:
        InputError: none answers.
    """
    from pipeline.sweep.prefect.server import answers

    deadline = time.monotonic() + START_SECONDS
    why = "neither server can be started"
    for name, server in list(servers.items()):
        log = log_of(name)
        while not answers(urls[name]):
            if server.poll() is not None or time.monotonic() > deadline:
                last = without_password(" ".join(last_lines(log, 1)))
                why = f"{name}'s server did not start: {last} (complete output: {log})"
                stop({name: servers.pop(name)})
                if servers:
                    print(f"warning: {why}", file=sys.stderr)
                break
            time.sleep(0.2)
    if not servers:
        raise InputError(why)


def wait_for_an_end(servers: "dict[str, subprocess.Popen[bytes]]") -> None:
    """Wait until a server ends by itself, and take it out with a warning."""
    while True:
        for name, server in servers.items():
            if server.poll() is not None:
                stop({name: servers.pop(name)})
                left = "".join(f"; {other}'s page stays" for other in servers)
                warning = f"warning: {name}'s server ended by itself, see {log_of(name)}{left}"
                print(warning, file=sys.stderr)
                return
        time.sleep(0.5)


def write_addresses(servers: Iterable[str], mlflow: str, prefect: str) -> None:
    """Tell the clone's sweeps which servers run, and where."""
    from pipeline.sweep.prefect.server import ADDRESSES

    every = {"MLflow": ("mlflow", mlflow), "Prefect": ("prefect_api", f"{prefect}/api")}
    ADDRESSES.write_text(json.dumps(dict(every[name] for name in servers)))


def close_dead(prefect_api: str) -> None:
    """End the runs on both pages whose processes have died; '' if there is no Prefect."""
    from pipeline.tracking.dead import close_dead_runs_if_any

    close_dead_runs_if_any()
    if prefect_api:
        os.environ["PREFECT_API_URL"] = prefect_api
        with suppress(Exception):  # the pages themselves are there
            from pipeline.sweep.prefect.ends import close_dead_flows

            close_dead_flows()


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
