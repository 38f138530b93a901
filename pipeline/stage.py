"""How every stage ends if it cannot do its work: one line on stderr, and a status that says why.

2   wrong input: a person's file, parameter or variable, or a training whose loss is no number. The
    same again would end the same way: a sweep does not try again.
74  input or output failed (sysexits' EX_IOERR): the disk is full, a device or a network failed.
    A sweep tries again.
75  out of memory (sysexits' EX_TEMPFAIL): a training stage may be started again with
    VMUNET_MICRO_BATCH, which takes each batch in smaller parts. A sweep does so.

Any other status, 1 with a traceback or a signal's, is a mistake in the code or a kill: a sweep
tries again.
"""

import sys
from collections.abc import Callable
from typing import NoReturn

from vmunet.errors import InputError

WRONG_INPUT = 2
IO_FAILED = 74
OUT_OF_MEMORY = 75
WRONG_PATH = (
    FileNotFoundError,
    FileExistsError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
)


class OutOfMemoryError(Exception):
    """A batch does not fit into memory; the message says what may help."""


def run_stage(main: Callable[[], None]) -> None:
    """Run `main`; an error that this module's statuses tell apart ends in one line and a status."""
    try:
        main()
    except OutOfMemoryError as error:
        end(error, OUT_OF_MEMORY)
    except InputError as error:
        end(error, WRONG_INPUT)
    except OSError as error:
        named = isinstance(error, WRONG_PATH) and error.filename is not None
        end(error, WRONG_INPUT if named else IO_FAILED)


def end(error: Exception, status: int) -> NoReturn:
    """Print the error's message and end the process with this status."""
    print(f"error: {error}", file=sys.stderr)
    raise SystemExit(status) from None
