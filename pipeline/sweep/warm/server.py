"""The warm process: it imports the stages' packages once, and forks a process for each stage.

Imports take 4 to 5 s of each stage that a new interpreter runs. A fork has them at once. It then
does what `python -m stages.train ...` would do: the same outputs, messages and exit status.

`client.py` starts this module with one end of a socket. Each message from there is a stage: its
command in JSON, and file descriptors. The fork tells its process id; when the stage has ended,
this process sends the exit status, and reaps the process only when the client has closed its end.
So the id belongs to no other process while the client may still send signals to its group.

A fork copies only the thread that forks, so this process starts no thread, and never touches CUDA.
If a source file has changed since the imports, it ends: its forks would run the old code.
"""

import gc
import importlib
import json
import os
import random
import runpy
import selectors
import signal
import socket
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from pipeline.fingerprint import ROOT, python_files

# What trainings, evaluations and reports import, in the order of their use.
IMPORTS = (
    "torch.utils.data",
    "torch._dynamo",  # torch imports it when it makes an optimizer
    "cv2",
    "albumentations",
    "pandas",
    "scipy.ndimage",
    "nibabel",
    "matplotlib.figure",
    "mlflow.tracking",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.pyfunc",
    "jinja2",
    "stages.common.training",
    "stages.common.scoring",
    "stages.common.volume_report",
    "vmunet.training.loop",
    "vmunet.evaluation.images",
    "vmunet.evaluation.volumes",
    "vmunet.inference.predictor",
    "pipeline.tracking.live",
    "pipeline.tracking.scores",
    "reports.make.report",
    "reports.make.figures.scores",
)
# Arrow's allocator would start a thread at its import. (That of OpenBLAS ends before a fork.)
NO_THREADS = {"JE_ARROW_MALLOC_CONF": "background_thread:false"}
MESSAGE_BYTES = 1 << 17
MOST_DESCRIPTORS = 16


@dataclass(frozen=True)
class Request:
    """A stage to run: its module's name and arguments, as after `python -m`."""

    module: str
    arguments: list[str]
    cwd: str
    environment: dict[str, str]


def main() -> None:
    """Serve on the socket whose number is the argument, and become a stage in each fork."""
    control = socket.socket(fileno=int(sys.argv[1]))
    os.environ.update(NO_THREADS)
    sources = python_files(ROOT)  # before the imports: a later change is noticed
    import_all()
    request = Server(control, sources).serve()
    if request is not None:
        run(request)


def import_all() -> None:
    """Import what stages import, and load the compiled scan of the CPU."""
    for name in IMPORTS:
        importlib.import_module(name)
    importlib.import_module("vmunet.scan.cpu").warm_up()
    gc.collect()
    gc.freeze()  # a collection in a fork then leaves these objects' memory shared


class Server:
    """Forks for each message on `control`, until the other end is closed.

    Args:
        control: from it come the messages.
        sources: the state of the source files that were imported.
    """

    def __init__(self, control: socket.socket, sources: dict[Path, tuple[int, int]]) -> None:
        self._control, self._sources = control, sources
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ)

    def serve(self) -> Request | None:
        """Serve; return None at the end of the process, and in each fork the stage to run."""
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is not self._control:
                    self._selector.unregister(key.fileobj)
                    key.data()
                    continue
                message, descriptors, _, _ = socket.recv_fds(
                    self._control, MESSAGE_BYTES, MOST_DESCRIPTORS
                )
                if not message:
                    return None
                request = self._fork(message, *descriptors)
                if request is not None:
                    return request

    def _fork(self, message: bytes, answer: int, log: int, *kept: int) -> Request | None:
        reply = socket.socket(fileno=answer)
        is_stale = python_files(ROOT) != self._sources
        process = -1 if is_stale else os.fork()
        if process == 0:
            os.setsid()
            reply.send(str(os.getpid()).encode())
            reply.close()
            self._close()
            become(log, kept)
            return Request(**json.loads(message))
        for descriptor in (log, *kept):
            os.close(descriptor)
        if is_stale:
            reply.close()  # without an answer: the client starts another warm process
        else:
            child = Child(process, reply)
            self._selector.register(child.ending, selectors.EVENT_READ, child.has_ended)
            self._selector.register(reply, selectors.EVENT_READ, child.is_forgotten)
        return None

    def _close(self) -> None:
        """Close what belongs to the warm process, in a fork of it."""
        for key in self._selector.get_map().values():
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
            else:
                os.close(key.fd)
        self._selector.close()


class Child:
    """A fork, as the warm process sees it.

    Attributes:
        ending: a file descriptor that becomes readable when the process has ended.
    """

    def __init__(self, process: int, reply: socket.socket) -> None:
        self._process, self._reply = process, reply
        self._left = 2  # both ends must be seen before the process id may belong to another
        self.ending = os.pidfd_open(process)

    def has_ended(self) -> None:
        """Kill the processes that it left behind, and send its exit status."""
        state = os.waitid(os.P_PID, self._process, os.WEXITED | os.WNOWAIT)
        assert state is not None
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process, signal.SIGKILL)
        exited = state.si_code == os.CLD_EXITED
        with suppress(OSError):  # the client may have ended
            self._reply.send(str(state.si_status if exited else -state.si_status).encode())
        os.close(self.ending)
        self._reap()

    def is_forgotten(self) -> None:
        """The client sends no more signals to the process's group."""
        self._reap()

    def _reap(self) -> None:
        self._left -= 1
        if not self._left:
            os.waitpid(self._process, 0)
            self._reply.close()


def become(log: int, kept: Iterable[int]) -> None:
    """Give a fork the open files of a new process: no input, its log, and those to keep."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    for descriptor, standard in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(descriptor, standard)
    os.close(nothing)
    os.close(log)
    for descriptor in kept:
        os.set_inheritable(descriptor, True)


def run(request: Request) -> None:
    """Run the stage's module in this fork, as `python -m` does."""
    os.chdir(request.cwd)
    for name in os.environ.keys() - request.environment.keys():
        del os.environ[name]
    os.environ.update(request.environment)
    random.seed()
    importlib.import_module("numpy").random.seed()
    sys.argv = [request.module, *request.arguments]
    sys.excepthook = report
    runpy.run_module(request.module, run_name="__main__", alter_sys=True)


def report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an error with its traceback from the stage's script on."""
    start = step = trace
    while step is not None:
        if step.tb_frame.f_code.co_filename == runpy.run_module.__code__.co_filename:
            start = step.tb_next
        step = step.tb_next
    sys.__excepthook__(kind, error.with_traceback(start), start)


if __name__ == "__main__":
    main()
