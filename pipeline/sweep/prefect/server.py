"""The Prefect server that a sweep or a search reports to, if there is one."""

import json
import logging
import os
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, build_opener

from pipeline.passwords import without_password
from vmunet.errors import InputError

ADDRESSES = Path(".sweep") / "ui.json"  # written by `vmunet ui` while its servers run
ANSWER_SECONDS = 3.0


def use_server(say: Callable[[str], None]) -> bool:
    """Choose the server of PREFECT_API_URL, else that of `vmunet ui`; return whether one answers.

    Without a server Prefect would start its own, which takes 8 to 15 s; so a sweep then runs
    without Prefect. Call this before prefect is imported.

    Raises:
        InputError: PREFECT_API_URL is not a web address.
    """
    address = os.environ.get("PREFECT_API_URL", "")
    if address and not is_web_address(address):
        shown = without_password(address)
        raise InputError(f"PREFECT_API_URL={shown}: expected such as http://127.0.0.1:4200/api")
    url = address or addresses().get("prefect_api", "")
    if not url:
        return False
    if not answers(url):
        if address:
            at = f"PREFECT_API_URL={without_password(url)}"
            say(f"warning: no Prefect server answers at {at}: going on without it")
        return False
    os.environ["PREFECT_API_URL"] = url
    # The terminal shows the sweep's own lines; Prefect's lines go only to its server.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    # What a server that stops leaves unsent is not printed: one line says that the page lacks it.
    os.environ.setdefault("PREFECT_INTERNAL_LOGGING_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_LOGGING_INTERNAL_LEVEL", "CRITICAL")
    logging.raiseExceptions = False
    # If the server stops, Prefect tries again for seconds instead of minutes.
    os.environ.setdefault("PREFECT_CLIENT_MAX_RETRIES", "2")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    return True


def is_web_address(text: str) -> bool:
    """Whether this is an http or https address with a host and, if it has one, a valid port."""
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018  (raises a ValueError if the port is invalid)
    except ValueError:
        return False
    plain = text.isascii() and text.isprintable() and " " not in text
    return plain and parts.scheme in ("http", "https") and bool(parts.hostname)


def addresses() -> dict[str, str]:
    """Addresses of the servers that `vmunet ui` has started in this clone."""
    try:
        return dict(json.loads(ADDRESSES.read_text()))
    except (OSError, ValueError):
        return {}


def answers(url: str) -> bool:
    """Whether an HTTP server answers there within 3 s, even if it refuses access."""
    local = "://127.0.0.1" in url or "://localhost" in url
    opener = build_opener(ProxyHandler({})) if local else build_opener()
    try:
        opener.open(f"{url.rstrip('/')}/health", timeout=ANSWER_SECONDS).close()
    except HTTPError as error:
        return error.code in (401, 403)
    except (OSError, HTTPException, ValueError):  # no server, no HTTP, or not an address
        return False
    return True


def still_there() -> bool:
    """Whether the chosen server answers; True if Prefect found its server by itself."""
    url = os.environ.get("PREFECT_API_URL", "")
    return not url or answers(url)


def mlflow_page(run_id: str) -> str:
    """The address of an MLflow run's page; '' if the server's address is not known."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    base = without_password(uri) if uri.startswith("http") else addresses().get("mlflow", "")
    return f"{base.rstrip('/')}/#/runs/{run_id}" if base and run_id else ""
