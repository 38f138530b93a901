"""How every stage ends when it cannot do its work: one line on stderr, and a status that says why.

2   a person's input is wrong; doing it again changes nothing
75  out of memory (sysexits' EX_TEMPFAIL): a training stage may be started again with
    VMUNET_MICRO_BATCH, which takes each batch in smaller parts
"""

import sys
from collections.abc import Callable

from vmunet.errors import InputError

OUT_OF_MEMORY = 75


class OutOfMemoryError(Exception):
    """A batch does not fit into memory; the message says what may help."""


def run_stage(main: Callable[[], None]) -> None:
    """Run `main`; an InputError, or a file system's refusal, ends in one line and status 2."""
    try:
        main()
    except OutOfMemoryError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(OUT_OF_MEMORY) from None
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
