"""The processes of a run on several GPUs: started together, and ended together."""

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack

LAUNCHED = "VMUNET_LAUNCHED"  # set for the processes of `launch`
POLL_SECONDS = 0.1
STOP_SECONDS = 10.0  # from SIGTERM to SIGKILL


def launch(module: str, arguments: Sequence[str], size: int) -> int:
    """Run `python -m module arguments` in `size` processes; return the first exit status that is
    not 0, else 0.

    As soon as one ends so, the others are stopped. Process 0 writes to this process's streams. Of
    the others, only what one that failed first wrote to stderr is shown.
    """
    environment = os.environ | {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": str(size),
        LAUNCHED: "1",
    }
    command = [sys.executable, "-m", module, *arguments]
    processes: list[subprocess.Popen[bytes]] = []
    with ExitStack() as files:
        errors = [files.enter_context(tempfile.TemporaryFile()) for _ in range(size)]
        try:
            for rank in range(size):
                silent = rank > 0
                processes.append(
                    subprocess.Popen(
                        command,
                        stdin=subprocess.PIPE,
                        stdout=subprocess.DEVNULL if silent else None,
                        stderr=errors[rank] if silent else None,
                        env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                    )
                )
            rank, status = first_failure(processes)
        finally:
            stop(processes)
        if status and rank:
            errors[rank].seek(0)
            sys.stderr.write(errors[rank].read().decode(errors="replace"))
    if status < 0:
        print(
            f"process {rank} of {size} was ended by signal {-status}, so the others were stopped; "
            "start the run again: it goes on from its last saved epoch",
            file=sys.stderr,
        )
        return 128 - status
    return status


def first_failure(processes: Sequence[subprocess.Popen[bytes]]) -> tuple[int, int]:
    """Wait for a process that fails, and return its place and status; (0, 0) if all end well."""
    while True:
        statuses = [process.poll() for process in processes]
        for rank, status in enumerate(statuses):
            if status:
                return rank, status
        if all(status == 0 for status in statuses):
            return 0, 0
        time.sleep(POLL_SECONDS)


def stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End the processes that still run."""
    for process in processes:
        if process.poll() is None:
            process.terminate()
    deadline = time.monotonic() + STOP_SECONDS
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdin:
            process.stdin.close()


def end_with_parent() -> None:
    """End this process when the one that launched it ends, whatever ended it.

    That one holds the other end of stdin and writes nothing, so reading ends with it.
    """

    def watch() -> None:
        os.read(sys.stdin.fileno(), 1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def free_port() -> int:
    """A port of this machine that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
