"""Prefect's server for this machine's own page alone.

    python -m pipeline.sweep.prefect.own_origin PORT

Prefect itself answers each page that a browser on this machine shows: such a page could cancel
flows, or start one where a worker runs. Here a request with another page's origin, or with a host
name that is not this machine's (DNS rebinding), gets the status 403.
"""

import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

HOST = "127.0.0.1"
NAMES = (HOST, "localhost")
NO_FRAME = (b"content-security-policy", b"frame-ancestors 'none'")  # no foreign page around it
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


def origins(port: int) -> list[str]:
    """The origins of the page that a server of this machine shows at `port`."""
    return [f"http://{name}:{port}" for name in NAMES]


class OwnOrigin:
    """An ASGI application in front of `app`, which refuses foreign hosts and origins.

    The port in the host's name is not compared, because a tunnel (ssh -L) may have another one.
    """

    def __init__(self, app: App, port: int) -> None:
        self._app, self._origins = app, origins(port)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
        elif self._is_own(scope["headers"]):
            await self._app(scope, receive, without_frames(send))
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            plain = [(b"content-type", b"text/plain")]
            await send({"type": "http.response.start", "status": 403, "headers": plain})
            text = b"only the page that this server itself shows may ask it\n"
            await send({"type": "http.response.body", "body": text})

    def _is_own(self, headers: list[tuple[bytes, bytes]]) -> bool:
        hosts = [value.decode("latin-1") for name, value in headers if name == b"host"]
        asking = [value.decode("latin-1") for name, value in headers if name == b"origin"]
        if len(hosts) != 1 or name_in(hosts[0]) not in NAMES:
            return False
        return all(origin in (f"http://{hosts[0]}", *self._origins) for origin in asking)


def name_in(host: str) -> str | None:
    """The name in a Host header, without its port; None if there is none."""
    try:
        return urlsplit(f"http://{host}").hostname
    except ValueError:
        return None


def without_frames(send: Send) -> Send:
    """`send`, which also tells the browser to show the page in no frame."""

    async def send_more(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), NO_FRAME]
        await send(message)

    return send_more


def main(port: int) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    import uvicorn
    from prefect.server.api.server import create_app

    uvicorn.run(OwnOrigin(create_app(), port), host=HOST, port=port, log_level="warning")


if __name__ == "__main__":
    main(int(sys.argv[1]))
