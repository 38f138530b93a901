"""Lines on the terminal, and the live display that may stand below them."""

import os
import sys
import time
from typing import Protocol


class Say(Protocol):
    """Says a line to the person who watches."""

    def __call__(self, line: str, passing: bool = False) -> None:
        """Say a line, or several.

        Args:
            passing: a live display shows the same in its own way.
        """


class Display(Protocol):
    """Shows the running stages below the lines of the terminal."""

    def print(self, text: str) -> None:
        """Print lines above the display."""


display: Display | None = None  # what the terminal shows at present


def say(line: str, passing: bool = False) -> None:
    """Print a line with the time of day; lines of several threads do not mix."""
    shown = display
    if shown is not None and passing:
        return
    text = "".join(f"{time.strftime('%T')}  {part}\n" for part in line.split("\n"))
    if shown is not None:
        shown.print(text)
        return
    sys.stdout.write(text)
    sys.stdout.flush()


def is_live_terminal() -> bool:
    """Whether a display can be drawn: on a terminal that moves its cursor, outside of CI."""
    in_ci = os.environ.get("CI", "").lower() not in ("", "0", "false")
    able = os.environ.get("TERM", "dumb") not in ("dumb", "unknown")
    return able and not in_ci and sys.stdout.isatty()
