"""Starts the warm process and lets it run stages; `server.py` says what it is and the messages.

Only Linux has what it needs (a process's end as a file descriptor), and macOS's system libraries do
not survive a fork. Elsewhere, and if the warm process fails, stages run in new interpreters.
"""

import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from vmunet.files import open_log

LOG = Path(".sweep") / "logs" / "warm.log"
# A stage's command as dvc.yaml writes it, without anything that only a shell understands.
COMMAND = re.compile(r"python -m stages\.\w+( [\w./@=+-]+)*")
# Variables that a program reads while it runs. Others, such as OMP_NUM_THREADS, are read when a
# library is loaded, so that they must be those of the warm process.
READ_LATE = re.compile(r"(DVC|MLFLOW|VMUNET)_\w+|CUDA_VISIBLE_DEVICES")
STARTS = 2  # a warm process whose code has changed is replaced by one other


class WarmChild:
    """A stage that the warm process runs.

    Attributes:
        pid: the process and its group.
    """

    def __init__(self, pid: int, reply: socket.socket) -> None:
        self.pid, self._reply, self._status = pid, reply, b""

    def wait_for_end(self) -> None:
        """Wait for the end of the process; its id stays its own until `status` is called."""
        self._status = self._reply.recv(100)

    def status(self) -> int:
        """The exit status; it is negative for a signal. The warm process killed: SIGKILL's."""
        self._reply.close()
        return int(self._status or -9)


class Warm:
    """Runs stages as forks of a warm process, which starts at the first stage.

    Args:
        inherited: file descriptors that every stage keeps open.
    """

    def __init__(self, inherited: Sequence[int] = ()) -> None:
        self._inherited = tuple(inherited)
        self._lock = threading.Lock()
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._environment: dict[str, str] = {}
        self._failed = sys.platform != "linux" or not hasattr(os, "pidfd_open")

    def prepare(self, command: list[str] | str, options: Mapping[str, Any]) -> None:
        """Start the warm process, if it can run such a command; it imports meanwhile."""
        if not COMMAND.fullmatch(line_of(command)):
            return
        with self._lock:
            if self._control is None and not self._failed:
                self._begin(str(options["cwd"]), dict(options["env"]))

    def start(
        self, command: list[str] | str, options: Mapping[str, Any], log: IO[bytes]
    ) -> WarmChild | None:
        """Start a command; None if it has to be started in the ordinary way.

        Args:
            command: a shell's argument list, such as [/bin/sh, -c, python -m stages.train ...].
            options: the arguments of `Popen` for it: `cwd` and `env`.
            log: receives its output.
        """
        line = line_of(command)
        if not COMMAND.fullmatch(line):
            return None
        module, *arguments = line.split()[2:]
        cwd, environment = str(options["cwd"]), dict(options["env"])
        request = {
            "module": module,
            "arguments": arguments,
            "cwd": cwd,
            "environment": environment,
        }
        for _ in range(STARTS):
            self.prepare(command, options)
            with self._lock:
                if self._control is None or read_early(environment) != self._environment:
                    return None
                child = self._fork(json.dumps(request).encode(), log)
                if child is not None:
                    return child
                self._end()
        self._failed = True  # it does not start here: do not try again
        return None

    def close(self) -> None:
        """End the warm process; the stages that it started go on."""
        with self._lock:
            self._end()

    def _begin(self, cwd: str, environment: dict[str, str]) -> None:
        own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other, open_log(Path(cwd) / LOG, "wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "pipeline.sweep.warm.server", str(other.fileno())],
                cwd=cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[other.fileno()],
                start_new_session=True,  # so that Ctrl-C does not reach it
            )
        self._control, self._environment = own, read_early(environment)

    def _end(self) -> None:
        if self._control is not None and self._process is not None:
            self._control.close()
            self._control = None
            self._process.wait()

    def _fork(self, message: bytes, log: IO[bytes]) -> WarmChild | None:
        assert self._control is not None
        reply, answer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        files = [answer.fileno(), log.fileno(), *self._inherited]
        with answer, suppress(OSError):  # it has ended
            socket.send_fds(self._control, [message], files)
        pid = reply.recv(100)
        if not pid:
            reply.close()
            return None
        return WarmChild(int(pid), reply)


def line_of(command: list[str] | str) -> str:
    """The line of a shell's argument list."""
    return command if isinstance(command, str) else command[-1]


def read_early(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that must be those of the warm process."""
    return {name: environment[name] for name in environment if not READ_LATE.fullmatch(name)}
