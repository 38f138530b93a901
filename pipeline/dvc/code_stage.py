"""The stage `code`, which writes the fingerprints that the other stages depend on."""

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.dvc.lockfile import enter
from pipeline.fingerprint import last_change, watched_files
from pipeline.repair.guard import RECORDED
from vmunet.errors import InputError

if TYPE_CHECKING:
    from dvc.stage import PipelineStage

CODE = "code"


class CodeError(InputError):
    """The stage `code` failed: a Python file may be half written at this moment."""


class CodeStage:
    """Runs the stage `code`, if the repository has one, whenever what it reads has changed.

    DVC would delete its outputs first. This does not, because running stages may be hashing them.
    Its entry of dvc.lock is written together with the next stage's entry, so that a mere question,
    such as a dry run, does not change the file.
    """

    def __init__(self, stage: "PipelineStage | None", root: Path) -> None:
        self._stage, self._root = stage, root
        self._mutex = threading.Lock()
        self._is_entered = True
        self._fingerprinted: dict[Path, tuple[int, int]] | None = None

    def refresh(self) -> None:
        """Write the fingerprints, if a Python file or params.yaml has changed since the last call.

        Raises:
            CodeError: the stage's command fails.
        """
        if self._stage is None:
            return
        with self._mutex:
            files = watched_files(self._root)
            if files == self._fingerprinted:
                return
            if self._fingerprinted is None and self._is_newer_than_code():
                self._fingerprinted, self._is_entered = files, False
                return
            commands, options = command_of(self._stage)
            for command in commands:
                done = subprocess.run(
                    command, stdin=subprocess.DEVNULL, capture_output=True, text=True, **options
                )
                if done.returncode:
                    last = (done.stderr or done.stdout).strip().rpartition("\n")[2]
                    why = last.removeprefix("error: ") or f"exit status {done.returncode}"
                    raise CodeError(f"the stage {CODE} failed: {why}")
            self._fingerprinted, self._is_entered = files, False

    def _is_newer_than_code(self) -> bool:
        """Whether an earlier process wrote the fingerprints after the last change of the code.

        A file's time of change cannot be set back, and a folder's shows what was removed from it.
        """
        assert self._stage is not None
        try:
            oldest = min(Path(out.fs_path).stat().st_mtime_ns for out in self._stage.outs)
        except FileNotFoundError:
            return False
        return last_change(self._root) < oldest

    def enter(self) -> None:
        """Write the stage's entry of dvc.lock, if it has run since the last call."""
        if self._stage is not None and not self._is_entered:
            self._stage.save(run_cache=False)
            self._is_entered = True
            enter(self._stage)


def command_of(stage: "PipelineStage") -> tuple[list[list[str] | str], dict[str, Any]]:
    """A stage's commands and their `Popen` arguments, the same as DVC's.

    The command `python` is this process's Python, also if its environment is not activated.
    """
    from dvc.stage.run import _enforce_cmd_list, _make_cmd, get_executable, prepare_kwargs

    shell = get_executable()
    commands = [_make_cmd(shell, line) for line in _enforce_cmd_list(stage.cmd)]
    options = prepare_kwargs(stage)
    path = f"{Path(sys.executable).parent}{os.pathsep}{options['env'].get('PATH', os.defpath)}"
    options["env"] = {**options["env"], "PATH": path, RECORDED: "1"}
    return commands, options
