"""Lines on the terminal."""

import sys
import time


def say(line: str) -> None:
    """Print a line with the time of day; lines of several threads do not mix."""
    sys.stdout.write("".join(f"{time.strftime('%T')}  {part}\n" for part in line.split("\n")))
    sys.stdout.flush()
