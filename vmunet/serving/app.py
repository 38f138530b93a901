"""The page's server: its files, the facts about the weights, and `POST /segment`.

An upload is the request's body itself, so that `curl --data-binary @photo.jpg` can send one too:

POST /segment?name=photo.jpg&threshold=0.5   ->   200, the fields of `Answer`
                                                  400, 403, 413, 500: {"error": one sentence}
"""

import socket
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from vmunet.data.images import SUFFIXES
from vmunet.data.limits import most_pixels
from vmunet.errors import InputError
from vmunet.serving import uploads
from vmunet.serving.segmenter import Segmenter, count_models

HOST = "127.0.0.1"
PAGE = Path(__file__).with_name("page")
# The browser itself refuses whatever does not come from this server.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = [
    ("Content-Security-Policy", POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-store"),
]
GRACE_SECONDS = 3  # for an answer that is being made when Ctrl-C comes


def make_app(segmenter: Segmenter, weights: str, examples: Sequence[Path] = ()) -> Starlette:
    """The page's application.

    Args:
        segmenter: segments the uploads.
        weights: what the page calls the weights.
        examples: image files that the page offers to try.
    """
    about = {
        "weights": weights,
        "models": count_models(segmenter.sizes),
        "classes": segmenter.classes,
        "has_threshold": segmenter.has_threshold,
        "suffixes": SUFFIXES,
        "most_bytes": uploads.MOST_BYTES,
        "most_megapixels": most_pixels() // 10**6,
        "examples": [path.name for path in examples],
    }

    async def tell(request: Request) -> Response:
        return JSONResponse(about)

    async def example(request: Request) -> Response:
        index = request.path_params["index"]
        if index >= len(examples):
            raise HTTPException(404, f"example {index}: there are {len(examples)}")
        return FileResponse(examples[index])

    async def segment(request: Request) -> Response:
        _check_origin(request)
        query = request.query_params
        content = await _content(request)
        try:
            threshold = _number(query["threshold"]) if "threshold" in query else None
            name = query.get("name", "image")
            answer = await run_in_threadpool(segmenter, name, content, threshold)
        except InputError as error:
            raise HTTPException(400, str(error)) from None
        return JSONResponse(asdict(answer))

    return Starlette(
        routes=[
            Route("/about", tell),
            Route("/examples/{index:int}", example),
            Route("/segment", segment, methods=["POST"]),
            Mount("/", StaticFiles(directory=PAGE, html=True)),
        ],
        # another site's name may be made to point to this machine
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])],
        exception_handlers={
            HTTPException: _refused,
            ClientDisconnect: _gone,
            Exception: _failed,
        },
    )


def listen(port: int) -> socket.socket:
    """A listening socket of this machine; port 0 takes a free one.

    Raises:
        InputError: the port is taken, needs an administrator, or is no port number.
    """
    listener = socket.socket()
    # a port that was in use until a moment ago is free; a listening one stays taken
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen()
    except (OSError, OverflowError) as error:
        listener.close()
        if isinstance(error, OverflowError):
            raise InputError(f"--port {port}: expected a number from 0 to 65535") from None
        why = "may not be used" if isinstance(error, PermissionError) else "is taken"
        raise InputError(
            f"--port {port}: the port {why}; choose another, such as --port {max(port, 1024) + 1}, "
            "or --port 0 for any free one"
        ) from None
    return listener


def make_server(app: Starlette) -> uvicorn.Server:
    """The server of the page; `server.run(sockets=[listen(port)])` serves until Ctrl-C."""
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="off",  # unused, and a second Ctrl-C would print its traceback
        headers=HEADERS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    return uvicorn.Server(config)


def _check_origin(request: Request) -> None:
    """Refuse another site's page, which could otherwise keep this machine busy."""
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        raise HTTPException(403, f"a page of {origin} cannot use this server")


async def _content(request: Request) -> bytes:
    """The request's body; refused as soon as it is known to be too large."""
    limit = uploads.MOST_BYTES
    refusal = HTTPException(
        413, f"the file is larger than {limit / 2**20:.0f} MB; segment it with vmunet predict"
    )
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > limit:
        raise refusal
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > limit:
            raise refusal
    return bytes(content)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"threshold {text[:40]}: expected a number between 0 and 1") from None


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code)


def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=400)  # nobody reads it


def _failed(request: Request, error: Exception) -> Response:
    if isinstance(error, MemoryError):
        print("error: not enough memory for an image", file=sys.stderr)
        return JSONResponse({"error": "not enough memory for this image; make it smaller"}, 500)
    message = "the server failed on this file; its terminal says where"
    return JSONResponse({"error": message}, 500)
