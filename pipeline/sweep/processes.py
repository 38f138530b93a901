"""Commands of stages as processes, each in its own process group, with its output in a log file.

The whole group is ended, because a command may have started other processes. If this process is
killed, it cannot do that. So a watchdog, one small process for all groups, waits for the end of a
pipe that only this process writes to, and kills the groups that remain.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from pipeline.stage import IO_FAILED, WRONG_INPUT
from pipeline.sweep.warm.client import Warm

GRACE_SECONDS = 10.0
STATUSES = {WRONG_INPUT: "wrong input", IO_FAILED: "input or output failed"}
TAIL_BYTES = 20_000

WATCHDOG = """
import os, signal, sys
groups = set()
for line in sys.stdin:
    (groups.add if line[0] == "+" else groups.discard)(int(line[1:]))
for group in groups:
    try:
        os.killpg(group, signal.SIGKILL)
    except OSError:
        pass
"""


class Watchdog:
    """Kills the remaining process groups when this process has ended, for whatever reason."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-E", "-c", WATCHDOG],
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,  # so that Ctrl-C and a kill of the group do not reach it
            cwd="/",
        )

    def add(self, group: int) -> None:
        self._send(f"+{group}\n")

    def forget(self, group: int) -> None:
        self._send(f"-{group}\n")

    def close(self) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # the commands also run without the watchdog
            self._process.stdin.write(line)
            self._process.stdin.flush()


class Interpreter:
    """A command as a new process with a group of its own.

    Attributes:
        pid: the process and its group.
    """

    def __init__(
        self,
        command: list[str] | str,
        options: Mapping[str, Any],
        log: IO[bytes],
        inherited: Sequence[int],
    ) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=inherited,
            **options,
        )
        self.pid = self._process.pid

    def wait_for_end(self) -> None:
        """Wait for the end of the process; its id stays its own until `status` is called."""
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)

    def status(self) -> int:
        """The exit status; it is negative for a signal."""
        return self._process.wait()


class Processes:
    """Runs commands and can stop all of them.

    Args:
        inherited: file descriptors that every command keeps open. A lock among them stays locked
            until the last command has ended, even if this process ends earlier.
    """

    def __init__(self, inherited: Sequence[int] = ()) -> None:
        self._inherited = tuple(inherited)
        self._warm = Warm(inherited)
        self._running: set[int] = set()
        self._lock = threading.Lock()
        self._stopping = False
        self._watchdog = Watchdog()

    def prepare(self, command: list[str] | str, options: Mapping[str, Any]) -> None:
        """Start to import what a stage with this command needs."""
        self._warm.prepare(command, options)

    def run(
        self, commands: Sequence[list[str] | str], options: Mapping[str, Any], log: IO[bytes]
    ) -> int:
        """Run commands one after the other, until one has an exit status other than 0.

        Returns:
            The exit status; it is negative for a signal.
        """
        for command in commands:
            status = self._run(command, options, log)
            if status:
                return status
        return 0

    def stop(self) -> None:
        """Send SIGTERM to every group and SIGKILL after 10 s. No command starts afterwards."""
        with self._lock:
            self._stopping = True
        deadline = time.monotonic() + GRACE_SECONDS
        self._signal_all(signal.SIGTERM)
        while self._running and time.monotonic() < deadline:
            time.sleep(0.05)
        self._signal_all(signal.SIGKILL)

    def close(self) -> None:
        """End the watchdog and the warm process."""
        self._watchdog.close()
        self._warm.close()

    def _run(self, command: list[str] | str, options: Mapping[str, Any], log: IO[bytes]) -> int:
        with self._lock:
            if self._stopping:
                return -signal.SIGTERM
        process = self._warm.start(command, options, log) or Interpreter(
            command, options, log, self._inherited
        )
        with self._lock:
            self._running.add(process.pid)
            self._watchdog.add(process.pid)
            if self._stopping:  # meanwhile
                send(process.pid, signal.SIGKILL)
        process.wait_for_end()
        with self._lock:
            send(process.pid, signal.SIGKILL)  # the processes that the command left behind
            self._running.discard(process.pid)
            self._watchdog.forget(process.pid)
        return process.status()

    def _signal_all(self, number: signal.Signals) -> None:
        with self._lock:
            for group in self._running:
                send(group, number)


def send(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):  # macOS refuses for a group of zombies
        os.killpg(group, number)


def tail(log: Path) -> bytes:
    """The last bytes of a log; b'' if there is no log."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL_BYTES))
            return file.read()
    except FileNotFoundError:
        return b""


def last_lines(log: Path, count: int = 10) -> list[str]:
    """The last lines that are not empty; of a progress bar only its last state."""
    text = tail(log).decode(errors="replace")
    lines = (line.rstrip().split("\r")[-1] for line in text.split("\n"))
    return list(deque((line for line in lines if line.strip()), maxlen=count))


def reason(status: int) -> str:
    """An exit status in words."""
    if status >= 0:
        meaning = STATUSES.get(status)
        return f"exit status {status}" + (f" ({meaning})" if meaning else "")
    name = signal.Signals(-status).name
    hint = " (out of memory?)" if status == -signal.SIGKILL else ""
    return f"killed by {name}{hint}"
