"""The raw Synapse volumes from synapse.org, by its own client and a person's access token.

The client is a program of its own: its requirements contradict this project's, so it is installed
apart, and nothing here imports it.
"""

import io
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from filelock import FileLock

from vmunet.data.archives import extract
from vmunet.errors import InputError

ARCHIVE_ID = "syn3379050"  # RawData.zip, in the abdomen part of syn3193805
ARCHIVE = "RawData.zip"
TOKEN = "SYNAPSE_AUTH_TOKEN"  # the client reads it from the environment by itself
KEPT = 1 << 16  # bytes of what the client says; the reason of a failure comes last
INSTALL = (
    "install it apart from this environment (python -m venv ~/synapse; ~/synapse/bin/pip install "
    "synapseclient) and put its bin/ on PATH"
)


def from_synapse(downloads: Path) -> Path:
    """The folder with the raw volumes, downloaded at the first call and unpacked once.

    Args:
        downloads: keeps RawData.zip and the folder RawData/.

    Raises:
        InputError: no token, a token that is refused or may not see the data, no client, or an
            archive that is broken.
    """
    unpacked = downloads / "raw"
    if unpacked.is_dir():
        return unpacked
    downloads.mkdir(parents=True, exist_ok=True)
    with FileLock(downloads / ".synapse.lock"):
        if not unpacked.is_dir():
            archive = downloads / ARCHIVE
            if not archive.is_file():
                _download(archive)
            extract(archive, unpacked)
    return unpacked


def _download(archive: Path) -> None:
    token = os.environ.get(TOKEN, "").strip()
    if not token:
        raise InputError(
            f"{TOKEN} is not set; make an account at synapse.org, accept the terms of syn3193805, "
            "make a personal access token with the scopes view and download, and export it; or "
            "use source: file with a folder that holds RawData/Training"
        )
    client = shutil.which("synapse")
    if client is None:
        raise InputError(f"synapse.org's client, the program 'synapse', is not on PATH: {INSTALL}")
    with tempfile.TemporaryDirectory(dir=archive.parent) as folder:
        status, said = _run([client, "get", ARCHIVE_ID, "--downloadLocation", folder])
        found = sorted(Path(folder).glob("*.zip"))
        if status or not found:
            raise InputError(_refusal(said))
        os.replace(found[0], archive)


def _run(command: list[str]) -> tuple[int, str]:
    """A program's exit status and the end of what it says, which is passed on as it comes."""
    said = b""
    # Without an input: it would ask for a token that it cannot find.
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert isinstance(process.stdout, io.BufferedReader)
        while block := process.stdout.read1():
            said = (said + block)[-KEPT:]
            sys.stderr.write(block.decode(errors="replace"))
            sys.stderr.flush()
    return process.returncode, said.decode(errors="replace")


def _refusal(said: str) -> str:
    """One sentence for what the client says when it fails."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]  # \r ends one too
    last = lines[-1][:300] if lines else "it says nothing"
    low = " ".join(lines[-3:]).lower()  # the error itself, after its traceback
    if "401" in low or "token" in low or "credentials" in low or "not logged in" in low:
        return (
            f"synapse.org refuses the token in {TOKEN} ({last}); it may have expired: make a new "
            "personal access token with the scopes view and download"
        )
    if "403" in low or "permission" in low or "access restriction" in low or "unmet" in low:
        return (
            f"synapse.org does not give out {ARCHIVE_ID} to this account ({last}); open "
            "syn3193805 in a browser, join and accept its terms, then run again"
        )
    return f"synapse.org's client could not download {ARCHIVE_ID} ({last}); run again"
