"""How every stage and command ends when a person's input is wrong: one line, status 2."""

import sys
from collections.abc import Callable

from vmunet.errors import InputError


def run_stage(main: Callable[[], None]) -> None:
    """Run `main`; an InputError becomes one line on stderr and exit status 2."""
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
