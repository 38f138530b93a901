"""The end of a stage that fails: one line on stderr, and an exit status that says why.

2   wrong input: a person's file, parameter or variable, or a training whose loss became NaN or
    infinite. A second attempt would fail in the same way, so a sweep does not try again.
74  input or output failed (sysexits' EX_IOERR): the disk is full, or a device or a network failed.
    A sweep tries again.
75  out of memory (sysexits' EX_TEMPFAIL): a training stage may be started again with
    VMUNET_MICRO_BATCH, which divides each batch into smaller parts. A sweep does so.
130 Ctrl-C or SIGTERM stopped it.
124 the time that --seconds gave a training is over (the status of timeout(1)); the same command
    goes on from the epoch that was reached.

Any other status (1 with a traceback, or a signal's) means a mistake in the code or a kill. A sweep
tries again.
"""

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from pipeline.fingerprint import CHANGED, MODELS, ROOT, checked_fingerprint
from pipeline.install import in_git
from pipeline.repair.guard import guard_stage
from vmunet.errors import InputError
from vmunet.utf8 import use_utf8

WRONG_INPUT = 2
IO_FAILED = 74
OUT_OF_MEMORY = 75
TIME_OVER = 124
STOPPED = 130
WRONG_PATH = (
    FileNotFoundError,
    FileExistsError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
)


class OutOfMemoryError(Exception):
    """A batch does not fit into memory; the message says what may help."""


class StoppedError(Exception):
    """Ctrl-C or SIGTERM ended the stage."""


class TimeOverError(Exception):
    """A training has used the time that it was given; its state is saved."""


def run_stage(main: Callable[[], None]) -> None:
    """Run `main`; an error with one of this module's statuses ends in one line and this status."""
    use_utf8()
    if not in_git(ROOT):  # `git` would tell the commit of a repository around this folder
        os.environ["GIT_CEILING_DIRECTORIES"] = str(ROOT.parent)
    try:
        guard_stage()
        with same_code():
            main()
    except OutOfMemoryError as error:
        end(error, OUT_OF_MEMORY)
    except TimeOverError as error:
        end(error, TIME_OVER)
    except InputError as error:
        end(error, WRONG_INPUT)
    except OSError as error:
        named = isinstance(error, WRONG_PATH) and error.filename is not None
        end(full(error) or error, WRONG_INPUT if named else IO_FAILED)
    except KeyboardInterrupt:
        end(StoppedError("stopped; the same command starts it again"), STOPPED)


@contextmanager
def same_code() -> Iterator[None]:
    """Refuse, in a stage that DVC runs, code that changes between its fingerprint and the end.

    DVC hashes the fingerprint after the stage: the result would be recorded for other code.
    """
    names = []
    if os.environ.get("DVC_STAGE"):
        names.append(Path(sys.argv[0]).stem)
        if len(sys.argv) == len(("script", "view", "cell", "protocol", "seed")):
            names.append(f"{MODELS}/{sys.argv[2]}")
    before = [checked_fingerprint(name) for name in names]
    yield
    for name, then in zip(names, before, strict=True):
        if checked_fingerprint(name) != then:
            raise InputError(CHANGED.format(then.partition(" ")[0]))


def full(error: OSError) -> Exception | None:
    """The error of a full disk with its remedy; None for another error."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return None
    place = f"{error.filename}: " if error.filename else ""
    return OSError(f"{place}{error.strerror}; make room, then start the same command again")


def end(error: Exception, status: int) -> NoReturn:
    """Print the error's message and end the process with this status."""
    print(f"error: {error}", file=sys.stderr)
    raise SystemExit(status) from None
