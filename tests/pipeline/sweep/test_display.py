"""What a person sees while a sweep runs, on a pseudo terminal and elsewhere."""

import fcntl
import io
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from pipeline.sweep import console
from pipeline.sweep.display import LiveDisplay, clock
from pipeline.sweep.options import SweepOptions
from pipeline.sweep.stage_runner import StageOutcome, log_of
from pipeline.tracking.epochs import epoch_line
from tests.helpers.sweep import NAME, SWEEP, environment, make_project, start
from tests.helpers.tracking import row

SHOW, HIDE = "\x1b[?25h", "\x1b[?25l"  # the cursor
EPOCH = f"echo '{epoch_line(row(2), 8)}'"
CELL = f"train@{NAME}1"


@pytest.fixture(autouse=True)
def _no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("CI", "NO_COLOR", "PREFECT_API_URL", "MAKELEVEL"):
        monkeypatch.delenv(name, raising=False)


class Terminal:
    """A sweep of the current folder's project on a pseudo terminal.

    Attributes:
        text: all that was written so far, with the control sequences.
    """

    def __init__(self, *arguments: str, more: Mapping[str, str], columns: int = 80) -> None:
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-c", SWEEP, "sweep", "--gpus", "none", *arguments],
            env=environment(**{"TERM": "xterm-256color"} | more),
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)
        self._master, self._bytes = master, b""
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    @property
    def text(self) -> str:
        return self._bytes.decode(errors="replace").replace("\r\n", "\n")

    @property
    def words(self) -> str:
        """The text without control sequences."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.text)

    def wait_for(self, words: str) -> None:
        deadline = time.monotonic() + 120
        while words not in self.words:
            assert time.monotonic() < deadline, self.text
            time.sleep(0.05)

    def end(self) -> int:
        """The exit status, when the sweep has ended."""
        status = self.process.wait(timeout=120)
        self._thread.join()
        return status

    def _read(self) -> None:
        try:
            while data := os.read(self._master, 4096):
                self._bytes += data
        except OSError:  # Linux's end of a pseudo terminal
            pass
        os.close(self._master)


def test_a_terminal_shows_a_bar_and_the_running_stages(tmp_path: Path) -> None:
    make_project(tmp_path, seeds=2, train=f"{EPOCH} && until [ -f go ]; do sleep 0.1; done")
    terminal = Terminal("--parallel", "2", more={})
    terminal.wait_for("epoch 2 of 8, loss 1.0000")
    terminal.wait_for(" left")
    (tmp_path / "go").touch()
    assert terminal.end() == 0, terminal.text
    assert "1 of 6 stages  0:" in terminal.words
    assert f"  train@{NAME}2 " in terminal.words
    assert "\x1b[32m" in terminal.text  # the bar is green
    assert "done in" not in terminal.words
    assert "Committing" not in terminal.words  # DVC's own progress bars
    assert HIDE in terminal.text
    after = terminal.text.rpartition(SHOW)[2]
    assert HIDE not in after
    assert "  0 stages up to date, 6 done\n" in terminal.words
    assert re.fullmatch(r"\d\d:\d\d:\d\d  took \d+ s", terminal.words.rstrip().splitlines()[-1])


def test_failures_stay_above_the_bar_in_one_line_each(tmp_path: Path) -> None:
    train = "(echo {seed} | grep -qv 2 || (echo error: no disk >&2 && exit 2))"
    make_project(tmp_path, seeds=2, train=train)
    terminal = Terminal("--parallel", "1", more={"NO_COLOR": "1"}, columns=200)
    assert terminal.end() == 1
    cell = f"train@{NAME}2"
    why = "exit status 2 (wrong input): no disk"
    line = f"{cell}  failed after 1 attempt: {why}; log: .sweep/logs/{cell}.log"
    assert terminal.words.count(line) == 1
    assert "\x1b[32m" not in terminal.text  # no colour
    last = terminal.words.rstrip().splitlines()[-1]
    assert last.endswith("; to run what is left: vmunet sweep --parallel 1 --gpus none")


def test_ctrl_c_leaves_the_terminal_as_it_was(tmp_path: Path) -> None:
    make_project(tmp_path, seeds=1, train="sleep 96")
    terminal = Terminal(more={"MAKELEVEL": "1"})
    terminal.wait_for(f"  {CELL} ")
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.end() == 130
    assert terminal.text.rfind(SHOW) > terminal.text.rfind(HIDE)
    assert terminal.words.rstrip().endswith("stopped; to continue: vmunet sweep --gpus none")
    assert "Traceback" not in terminal.words


@pytest.mark.parametrize("more", [{"TERM": "dumb"}, {"CI": "true"}])
def test_ci_and_a_dumb_terminal_get_a_line_for_each_stage(tmp_path: Path, more: dict) -> None:
    make_project(tmp_path, seeds=1)
    terminal = Terminal(more=more)
    assert terminal.end() == 0
    assert "\x1b" not in terminal.text.removesuffix("\x1b[0m")  # colorama's, at the exit
    assert terminal.text.count(CELL) == 1
    assert re.search(rf"  {CELL}  done in \S+ s  \[2/4\]\n", terminal.text)


def test_a_pipe_does_not_pay_for_the_display(tmp_path: Path) -> None:
    make_project(tmp_path, seeds=1)
    assert start(tmp_path).wait(timeout=120) == 0
    shown = "import atexit; atexit.register(lambda: print('rich.live' in sys.modules)); "
    command = [sys.executable, "-c", SWEEP.replace("from", f"{shown}from", 1), "sweep"]
    for options in ([], ["--gpus", "none"]):
        done = subprocess.run(
            [*command, *options], env=environment(), capture_output=True, text=True, timeout=120
        )
        assert done.stdout.splitlines()[0].endswith("  4 stages up to date"), done.stderr
        assert done.stdout.splitlines()[-1] == "False"


def test_make_tables_continues_what_it_started(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.commands.sweep import again

    assert again(SweepOptions()) == "vmunet sweep"
    monkeypatch.setenv("MAKELEVEL", "1")
    assert again(SweepOptions()) == "make tables"
    chosen = SweepOptions(tables=("3", "IV"), cells=("a-*", "b"), seeds=(1, 2), gpus="none")
    assert again(chosen) == (
        "vmunet sweep --tables 3,IV --cells 'a-*' --cells b --seeds 1,2 --gpus none"
    )


def picture(root: Path, columns: int, rows: int, *outcomes: StageOutcome) -> list[str]:
    """The lines of a display of 10 stages on a terminal of this size."""
    sweep = SimpleNamespace(
        needs={f"train@{NAME}{n}": set() for n in range(10)},
        seconds={f"train@{NAME}{n}": 1.0 for n in range(10)},
        outcomes={outcome.name: outcome for outcome in outcomes},
        outcomes_in=lambda *states: [o for o in outcomes if o.state in states],
        in_order=lambda: [f"train@{NAME}{n}" for n in range(10)],
        record=SimpleNamespace(root=root),
        ended=4,
    )
    shown = LiveDisplay(sweep, 8, lambda: False)  # type: ignore[arg-type]
    shown._console = Console(width=columns, height=rows, file=io.StringIO(), force_terminal=True)
    with shown._console.capture() as capture:
        shown._console.print(shown.picture())
    return re.sub(r"\x1b\[[0-9;]*m", "", capture.get()).splitlines()


def running(number: int, **more: object) -> StageOutcome:
    began = time.monotonic() - 83
    return StageOutcome(f"train@{NAME}{number}", "running", began, where="", **more)  # type: ignore[arg-type]


def write_log(root: Path, number: int, text: str) -> None:
    path = log_of(root, f"train@{NAME}{number}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_narrow_or_low_terminal_shows_what_fits(tmp_path: Path) -> None:
    for number in range(5):
        write_log(tmp_path, number, f"--- 2026\n{epoch_line(row(3), 10)}\n")
    cells = [running(number) for number in range(5)]
    lines = picture(tmp_path, 40, 24, *cells)
    assert len(lines) == 6
    assert max(map(len, lines)) <= 38
    assert "4/10  0:00" in lines[0]
    assert lines[1] == "  …7-64-base-paper-0  3/10 1.000  1:23"
    low = picture(tmp_path, 80, 6, *cells)
    assert len(low) == 5
    assert low[-1] == "  and 2 more"


def test_epochs_of_an_earlier_attempt_are_not_shown(tmp_path: Path) -> None:
    earlier = f"--- 2026\n{epoch_line(row(7), 10)}\n--- 2026 (attempt 2)\n"
    write_log(tmp_path, 1, earlier)
    assert "epoch" not in picture(tmp_path, 80, 24, running(1))[1]
    write_log(tmp_path, 1, f"{earlier}{epoch_line(row(8), 10)}\n")
    assert "epoch 8 of 10, loss 1.0000  1:23" in picture(tmp_path, 80, 24, running(1))[1]


def test_a_clock_has_hours_if_it_needs_them() -> None:
    assert [clock(seconds) for seconds in (7.9, 83, 3723)] == ["0:07", "1:23", "1:02:03"]


def test_lines_stand_above_a_display(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    above: list[str] = []
    monkeypatch.setattr(console, "display", SimpleNamespace(print=above.append))
    console.say("a stage ended", passing=True)
    console.say("a stage failed")
    assert len(above) == 1
    assert above[0].endswith("  a stage failed\n")
    assert capsys.readouterr().out == ""
