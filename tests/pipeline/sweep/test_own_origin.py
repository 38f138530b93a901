"""Prefect's server answers its own page and programs of this machine, but no foreign page."""

import asyncio
from typing import Any

import pytest

from pipeline.sweep.prefect.own_origin import NO_FRAME, OwnOrigin

PORT = 4200
OWN = f"127.0.0.1:{PORT}"


def answer(kind: str, **headers: str) -> list[dict[str, Any]]:
    """What a request, or the opening of a WebSocket, gets from an application behind the guard."""
    sent: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        accepted = {"type": "websocket.accept"}
        started = {"type": "http.response.start", "status": 200, "headers": []}
        await send(accepted if kind == "websocket" else started)

    async def send(message: Any) -> None:
        sent.append(message)

    named = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    scope = {"type": kind, "headers": named}
    asyncio.run(OwnOrigin(app, PORT)(scope, lambda: None, send))  # type: ignore[arg-type]
    return sent


@pytest.mark.parametrize(
    "headers",
    [
        {"host": OWN},  # a program, such as a sweep
        {"host": OWN, "origin": f"http://{OWN}"},
        {"host": OWN, "origin": f"http://localhost:{PORT}"},
        {"host": f"localhost:{PORT}", "origin": f"http://{OWN}"},
        {"host": "localhost:8000", "origin": "http://localhost:8000"},  # through a tunnel
        {"host": "LOCALHOST"},
    ],
)
def test_the_own_page_and_programs_are_answered(headers: dict[str, str]) -> None:
    (started,) = answer("http", **headers)
    assert started["status"] == 200
    assert NO_FRAME in started["headers"]
    assert answer("websocket", **headers) == [{"type": "websocket.accept"}]


@pytest.mark.parametrize(
    "headers",
    [
        {"host": OWN, "origin": "http://evil.example"},
        {"host": OWN, "origin": "https://127.0.0.1:4200"},
        {"host": OWN, "origin": "http://127.0.0.1:8888"},  # another program's page
        {"host": OWN, "origin": "http://127.0.0.1:4200.evil.example"},
        {"host": OWN, "origin": "null"},
        {"host": OWN, "origin": ""},
        {"host": "evil.example"},
        {"host": "evil.example:4200", "origin": "http://evil.example:4200"},  # DNS rebinding
        {"host": "127.0.0.1.evil.example"},
        {"host": "127.0.0.1@evil.example"},
        {"host": "[x"},
        {"host": ""},
        {},
    ],
)
def test_foreign_pages_and_hosts_are_refused(headers: dict[str, str]) -> None:
    started, body = answer("http", **headers)
    assert started["status"] == 403
    assert b"only the page" in body["body"]
    assert answer("websocket", **headers) == [{"type": "websocket.close", "code": 1008}]
