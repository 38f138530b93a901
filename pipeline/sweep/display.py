"""The live display of a sweep: a bar of all stages, and below it a line for each that runs."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pipeline.sweep import console
from pipeline.sweep.plan import Sweep
from pipeline.sweep.processes import tail
from pipeline.sweep.remaining import Remaining, about
from pipeline.sweep.stage_runner import StageOutcome, log_of
from pipeline.tracking.epochs import Epochs, read_epochs

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

PICTURES_PER_SECOND = 2.0
READ_SECONDS = 1.0  # between two looks into the logs
ROOMY = 74  # columns of a terminal that has room for whole words
MOST_COLUMNS = 90


@contextmanager
def display(sweep: Sweep, width: int, stopping: Callable[[], bool]) -> Iterator[None]:
    """Show the sweep while it runs, if the terminal can; what is said appears above.

    Args:
        width: the number of stages at once.
        stopping: whether the sweep is being stopped.
    """
    if not console.is_live_terminal():
        yield
        return
    shown = LiveDisplay(sweep, width, stopping)
    with shown.live:
        console.display = shown
        try:
            yield
        finally:
            console.display = None


class LiveDisplay:
    """Draws the sweep's present state; a thread of rich calls it.

    Args:
        sweep, width, stopping: see `display`.
    """

    def __init__(self, sweep: Sweep, width: int, stopping: Callable[[], bool]) -> None:
        from rich.console import Console  # slow to import, and not needed in a pipe
        from rich.live import Live

        self._sweep, self._stopping = sweep, stopping
        self._began = time.monotonic()
        self._remaining = Remaining(sweep, width)
        self._read_at, self._epochs, self._left = 0.0, dict[str, Epochs](), ""
        self._console = Console(highlight=False, markup=False, emoji=False)
        self.live = Live(
            console=self._console,
            get_renderable=self.picture,
            refresh_per_second=PICTURES_PER_SECOND,
            transient=True,
        )

    def print(self, text: str) -> None:
        """Print lines above the display; the terminal breaks them, so that paths stay whole."""
        self._console.print(text, end="", soft_wrap=True)

    def picture(self) -> "RenderableType":
        """The bar and the running stages, at most as high as the terminal."""
        from rich.console import Group
        from rich.text import Text

        running = self._sweep.outcomes_in("running", "retrying")
        running.sort(key=lambda outcome: outcome.began)
        self._look(running)
        # The terminal writes ^C behind the last line; if it broke that line, one would remain.
        columns = min(self._console.width - len("^C"), MOST_COLUMNS)
        room = max(1, self._console.height - 3)
        lines = [self._line(outcome, columns) for outcome in running[:room]]
        if len(running) > room:
            lines.append(Text(f"  and {len(running) - room} more", "dim"))
        return Group(self._bar(columns), *lines)

    def _look(self, running: list[StageOutcome]) -> None:
        """Read the progress of the running trainings, and estimate the time that is left."""
        now = time.monotonic()
        if now - self._read_at < READ_SECONDS:
            return
        self._read_at = now
        root = self._sweep.record.root
        logs = {
            outcome.name: tail(log_of(root, outcome.name)).decode(errors="replace")
            for outcome in running
            if outcome.where is not None and outcome.name.startswith("train")
        }
        # Earlier attempts and sweeps stand above in the same log; each starts with such a line.
        here = {name: f"\n{log}".rpartition("\n--- ")[2] for name, log in logs.items()}
        self._epochs = {
            name: epochs for name, log in here.items() if (epochs := read_epochs(log)) is not None
        }
        seconds = self._remaining.seconds(self._epochs)
        self._left = "" if seconds is None else f", about {about(seconds)} left"

    def _bar(self, columns: int) -> "RenderableType":
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        ended, total = self._sweep.ended, len(self._sweep.needs)
        counts = f"{ended} of {total} stages" if columns >= ROOMY else f"{ended}/{total}"
        left = ", stopping" if self._stopping() else self._left
        text = Text(f"{counts}  {clock(time.monotonic() - self._began)}{left}")
        bar = ProgressBar(total, ended, complete_style="green", finished_style="green")
        row = Table.grid(padding=(0, 1), expand=False)
        row.width = columns
        row.add_column(ratio=1)
        row.add_column(no_wrap=True)
        row.add_row(bar, text)
        return row

    def _line(self, outcome: StageOutcome, columns: int) -> "Text":
        from rich.text import Text

        what = self._what(outcome, columns >= ROOMY)
        took = clock(time.monotonic() - outcome.began)
        room = max(12, columns - len(what) - len(took) - 6)
        name = outcome.name if len(outcome.name) <= room else f"…{outcome.name[1 - room :]}"
        name = f"  {name:{room}}  "
        return Text.assemble(name, (what, "cyan"), "  ", (took, "dim"), no_wrap=True)

    def _what(self, outcome: StageOutcome, roomy: bool) -> str:
        """What a stage does now, in words."""
        if outcome.state == "retrying":
            return "waits to try again" if roomy else "waits"
        epochs = self._epochs.get(outcome.name)
        if epochs is None:
            return (outcome.where or "").strip() if roomy else ""
        if roomy:
            return f"epoch {epochs.done} of {epochs.total}, loss {epochs.loss:.4f}"
        return f"{epochs.done}/{epochs.total} {epochs.loss:.3f}"


def clock(seconds: float) -> str:
    """A duration as minutes and seconds, or hours, minutes and seconds: 0:07, 1:02:03."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
