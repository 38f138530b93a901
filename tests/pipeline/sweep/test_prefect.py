"""The choice of Prefect's server by sweeps and searches, and the parameters on its page."""

import inspect
import socket
import threading
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from prefect.flows import load_flow_from_entrypoint

from pipeline.commands.ui import report_address
from pipeline.config.yaml_file import read_yaml
from pipeline.search.flow import search
from pipeline.search.options import SearchOptions
from pipeline.sweep.options import SweepOptions
from pipeline.sweep.prefect.flow import sweep
from pipeline.sweep.prefect.server import answers, use_server
from tests.helpers.paths import ROOT
from vmunet.errors import InputError


@pytest.fixture
def no_http() -> Iterator[str]:
    """The address of a port that answers like a mail server."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(b"220 mail.example ready\r\n")
                    connection.recv(1000)

        thread = threading.Thread(target=greet, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/api"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_a_port_without_http_is_not_a_server(no_http: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not answers(no_http)
    monkeypatch.setenv("PREFECT_API_URL", no_http)
    messages: list[str] = []
    assert not use_server(messages.append)
    assert messages == [
        f"warning: no Prefect server answers at PREFECT_API_URL={no_http}: going on without it"
    ]


@pytest.mark.parametrize(
    "text",
    [
        "localhost:4200",
        "http://",
        "http:///api",
        "http://127.0.0.1:port/api",
        "http://127.0.0.1:99999/api",
        "http://[::1/api",
        "http://my host/api",
        "ftp://127.0.0.1/api",
        "http://127.0.0.1/a\nb",
    ],
)
def test_an_address_that_is_not_of_the_web_is_one_sentence(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", text)
    with pytest.raises(InputError) as error:
        use_server(print)
    assert str(error.value) == (
        f"PREFECT_API_URL={text}: expected such as http://127.0.0.1:4200/api"
    )


@pytest.mark.parametrize(("flow", "options"), [(sweep, SweepOptions), (search, SearchOptions)])
def test_a_flow_asks_for_the_options_of_the_command(flow, options: type) -> None:
    """The order and the defaults are equal, because the flow passes its parameters by position."""
    parameters = inspect.signature(flow.fn).parameters
    assert list(parameters) == [field.name for field in fields(options)]
    assert [p.default for p in parameters.values()] == [
        p.default for p in inspect.signature(options).parameters.values()
    ]


def test_the_flows_parameters_are_lists_for_its_page() -> None:
    properties = sweep.parameters.model_dump()["properties"]
    assert properties["tables"]["type"] == properties["seeds"]["type"] == "array"
    given = {"tables": ["3", "4"], "seeds": [1], "parallel": 2}
    options = SweepOptions(**sweep.validate_parameters(given))
    assert options == SweepOptions(tables=("3", "4"), seeds=(1,), parallel=2)


def test_the_deployment_names_the_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    (deployment,) = read_yaml(ROOT / "prefect.yaml")["deployments"]
    flow = load_flow_from_entrypoint(deployment["entrypoint"])
    assert flow.name == deployment["name"] == "sweep"
    assert deployment["parameters"].keys() <= flow.parameters.properties.keys()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"parallel": 0}, "--parallel 0: expected at least 1"),
        ({"retries": -1}, "--retries -1: expected at least 0"),
        ({"runner": "ray"}, "--runner ray: expected local or dask"),
        ({"address": "tcp://x:1"}, "--address tcp://x:1: only valid with --runner dask"),
        ({"runner": "dask", "gpus": "0"}, "--gpus 0: a Dask worker has the GPU of its own"),
    ],
)
def test_options_that_make_no_sense_are_one_sentence(given: dict, message: str) -> None:
    with pytest.raises(InputError) as error:
        SweepOptions(**given)
    assert str(error.value).startswith(message)


def test_the_reports_address_is_one_that_a_browser_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "50% of it" / "ä #1"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    address = report_address(Path("reports/out/index.html"), "http://127.0.0.1:5001")
    start = tmp_path.as_uri()
    assert address == (
        f"{start}/50%25%20of%20it/%C3%A4%20%231/reports/out/index.html#mlflow=http://127.0.0.1:5001"
    )
