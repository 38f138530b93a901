"""How every stage and command ends when a person's input is wrong: one line, status 2."""

import sys
from collections.abc import Callable

from vmunet.errors import InputError


def run_stage(main: Callable[[], None]) -> None:
    """Run `main`; an InputError, or a file system's refusal, ends in one line and status 2."""
    try:
        main()
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
