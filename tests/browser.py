"""Pages as a browser shows them: headless Chromium, where it is installed."""

import shutil
import subprocess
import tempfile

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1400,1000",
)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


def dom(url: str, milliseconds: int = 20_000) -> str:
    """The page's HTML after its scripts had so much (virtual) time."""
    assert CHROMIUM is not None
    with tempfile.TemporaryDirectory() as profile:
        command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}"]
        command += [f"--virtual-time-budget={milliseconds}", "--dump-dom", url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout
