"""Download the raw Synapse volumes from synapse.org with its client and an access token.

The client is a separate program: its requirements contradict this project's, so it has its own
environment, and nothing here imports it.
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
KEPT = 1 << 16  # bytes of the client's output; the reason of a failure comes last
INSTALL = (
    "install it outside this environment (python -m venv ~/synapse; ~/synapse/bin/pip install "
    "synapseclient) and put its bin/ on PATH"
)


def from_synapse(downloads: Path) -> Path:
    """The folder with the raw volumes, downloaded at the first call and unpacked once.

    Args:
        downloads: keeps RawData.zip and the folder RawData/.

    Raises:
        InputError: there is no token, the token is refused or may not read the data, there is no
            client, or the archive is broken.
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
        status, output = _run([client, "get", ARCHIVE_ID, "--downloadLocation", folder])
        archives = sorted(Path(folder).glob("*.zip"))
        if status or not archives:
            raise InputError(_refusal(output))
        os.replace(archives[0], archive)


def _run(command: list[str]) -> tuple[int, str]:
    """A program's exit status and the end of its output, which is also shown as it comes."""
    output = b""
    # It gets no input, because it would ask for a token that it cannot find.
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert isinstance(process.stdout, io.BufferedReader)
        while block := process.stdout.read1():
            output = (output + block)[-KEPT:]
            sys.stderr.write(block.decode(errors="replace"))
            sys.stderr.flush()
    return process.returncode, output.decode(errors="replace")


def _refusal(output: str) -> str:
    """One sentence for the output of a client that failed."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]  # \r ends one too
    last = lines[-1][:300] if lines else "it says nothing"
    low = " ".join(lines[-3:]).lower()  # the error itself, after its traceback
    if "401" in low or "token" in low or "credentials" in low or "not logged in" in low:
        return (
            f"synapse.org refuses the token in {TOKEN} ({last}); it may have expired: make a new "
            "personal access token with the scopes view and download"
        )
    if "403" in low or "permission" in low or "access restriction" in low or "unmet" in low:
        return (
            f"synapse.org does not give {ARCHIVE_ID} to this account ({last}); open "
            "syn3193805 in a browser, join and accept its terms, then run again"
        )
    return f"synapse.org's client could not download {ARCHIVE_ID} ({last}); run again"
