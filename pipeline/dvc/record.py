"""DVC's record of finished stages, kept by one process while many stages run at once.

`dvc repro` runs one stage after the other. Several `dvc repro` at once wait at most 3 seconds for
DVC's repository lock (a fixed limit), and lose results when many cells end together. Here one
process owns the record and does for each stage what `dvc repro` does, in the same order:

1. `begin` asks whether the stage is up to date (DVC's own `changed`) and whether the run-cache
   holds its outputs. If neither is true, it deletes the stage's outputs, hashes its dependencies,
   and enters its paths in DVC's rwlock, so that no other dvc process runs the stage meanwhile.
2. The caller runs the stage's command, without any lock.
3. `finish` hashes the dependencies again. If one differs, the stage is not recorded. Otherwise the
   outputs go to the cache, the stage to the run-cache and its entry to dvc.lock.

Steps 1 and 3 run under a lock of this process and DVC's repository lock. If another process holds
DVC's lock, they wait until it is free.

DVC rewrites the complete dvc.lock in place for each stage. At 5,000 lines that takes 1.2 to 2.4 s
of processor time (0.8 s in DVC's serialiser), and a kill at this moment leaves an empty file. Here
only the stage's lines change (0.04 s), and a new file replaces the old one in one step, so that a
kill leaves the old file or the new one.

The stage `code` (`CODE`) writes a fingerprint of each stage's code, on which the other stages
depend. A sweep does not plan it: it runs before each question to DVC if a Python file has changed.
"""

import gc
import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.config.names import check_file
from pipeline.dvc.code_stage import CODE, CodeStage, command_of
from pipeline.dvc.lockfile import as_recorded, enter, message_of
from pipeline.dvc.remote import Outputs, Remote
from pipeline.install import without_git
from pipeline.repair.repair import repair
from vmunet.errors import InputError

if TYPE_CHECKING:
    from dvc.stage import PipelineStage

BUSY_SECONDS = 0.5
PROGRESS_BARS = ("dvc.progress", "dvc_data.callbacks")  # loggers that turn DVC's bars on
T = TypeVar("T")


class Verdict(Enum):
    """The answer of `begin` about a stage."""

    UNCHANGED = "unchanged"
    RESTORED = "restored"
    RUN = "run"


class InputsChangedError(Exception):
    """A dependency changed while the stage ran, so its outputs belong to neither state."""


class Record:
    """The stages of a repository and DVC's record of them.

    Args:
        root: the repository's root.
        say: is called once for each wait for another process that holds DVC's lock.
        writes_lock: whether dvc.lock is written. A clone that works for another clone does not
            change the file, because the other clone's dvc.lock is the record.

    Attributes:
        stages: the names of the stages, in the order of their declaration, without `code`.

    Raises:
        InputError: `root` is not a DVC repository, or params.yaml or dvc.yaml has a mistake.
    """

    def __init__(
        self,
        root: Path = Path("."),
        say: Callable[[str], None] = print,
        writes_lock: bool = True,
    ) -> None:
        from dvc.exceptions import DvcException
        from dvc.repo import Repo
        from dvc.repo.reproduce import get_active_graph

        for name in PROGRESS_BARS:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self.root, self._say, self._writes_lock = root.resolve(), say, writes_lock
        self._remote: Remote | None = None
        self._mutex = threading.Lock()
        self._held: dict[str, ExitStack] = {}
        self._inputs: dict[str, dict[str, Any]] = {}
        check_file(root)  # before DVC writes its names into commands
        if without_git(self.root):
            say("this folder is no git repository: .dvc/config.local says so to DVC from now on")
        for line in repair(self.root):
            say(line)
        try:
            self._repo = Repo(str(self.root))
            self._repo.lock._friendly = False  # its progress bar
            with no_collection():
                graph = get_active_graph(self._repo.index.graph)
        except DvcException as error:
            raise InputError(message_of(error)) from None
        names = {stage: stage.addressing for stage in graph}
        self._stages: dict[str, PipelineStage] = {name: stage for stage, name in names.items()}
        self._code = CodeStage(self._stages.pop(CODE, None), self.root)
        self.stages = tuple(self._stages)
        self._needs = {
            name: {names[needed] for needed in graph.successors(stage)} - {CODE}
            for name, stage in self._stages.items()
        }
        self._needed_by: dict[str, set[str]] = {name: set() for name in self.stages}
        for name, needed in self._needs.items():
            for other in needed:
                self._needed_by[other].add(name)

    def needs(self, name: str) -> set[str]:
        """The stages whose outputs this one reads."""
        return self._needs[name]

    def with_ancestors(self, names: Iterable[str]) -> set[str]:
        """These stages and all stages that they need, directly or not."""
        return reachable(names, self._needs)

    def with_dependents(self, names: Iterable[str]) -> set[str]:
        """These stages and all stages that need them, directly or not."""
        return reachable(names, self._needed_by)

    def outputs(self, name: str) -> list[Path]:
        """The paths of the stage's outputs, relative to the root."""
        outs = self._stages[name].outs
        return [Path(out.fs_path).relative_to(self.root) for out in outs if out.is_in_repo]

    def hashes_of_outputs(self, name: str) -> Outputs:
        """The stage's outputs in the form of dvc.lock."""
        return [out.dumpd() for out in self._stages[name].outs]

    def share(self) -> None:
        """Share results through the DVC remote from now on; `begin` searches it too.

        Raises:
            InputError: no remote is configured.
        """
        self._remote = Remote(self._repo)

    def push(self, name: str) -> None:
        """Copy the stage's outputs to the remote, and its entry in the run-cache.

        Raises:
            RemoteError: something could not be copied.
        """
        assert self._remote is not None
        self._remote.push(self._stages[name])

    def bring(self, name: str, outputs: Outputs) -> None:
        """Fetch outputs that another clone made, by their hashes, to the stage's paths.

        Raises:
            RemoteError: the remote did not provide them.
        """
        assert self._remote is not None
        stage = self._stages[name]
        self._remote.fetch(stage, outputs)

        def place() -> None:
            if name in self._held:  # `stage.checkout` would wait for our own rwlock entry
                for out in stage.outs:
                    out.checkout(force=True)
            elif any(out.workspace_status() for out in stage.outs):
                stage.checkout(force=True)

        self._patiently(place)

    def inputs(self, name: str, now: bool = False) -> dict[str, Any]:
        """The hash or the values of each dependency, at `begin` or (`now`) now.

        Raises:
            InputError: a dependency is missing, or the stage `code` fails.
        """
        from dvc.dependency.base import DependencyDoesNotExistError

        def hash_inputs() -> dict[str, Any]:
            try:
                return self._hash_inputs(name)
            except DependencyDoesNotExistError as error:
                raise InputError(f"{name}: {message_of(error)}") from None

        if not now:
            return self._inputs[name]
        self._code.refresh()
        return self._patiently(hash_inputs)

    def changed(self, names: Iterable[str]) -> set[str]:
        """Those of the stages that are not up to date, by DVC's own rules.

        This does the same as `Stage.changed`, but without its rwlock, which writes a file six times
        for each stage, and it checks a dependency that many stages share only once.

        Raises:
            InputError: the stage `code` fails.
        """
        seen: dict[tuple[str, str], bool] = {}

        def dep_changed(dep: Any) -> bool:
            key = (dep.fs_path, f"{dep.hash_info.value} {getattr(dep, 'params', '')}")
            if key not in seen:
                seen[key] = bool(dep.status())
            return seen[key]

        def changed(stage: "PipelineStage") -> bool:
            if stage.changed_stage():
                return True
            if not stage.frozen and (stage.is_callback or stage.always_changed):
                return True
            return any(map(dep_changed, [] if stage.frozen else stage.deps)) or any(
                out.status() for out in stage.outs
            )

        self._code.refresh()
        with no_collection():
            return self._patiently(lambda: {n for n in names if changed(self._stages[n])})

    def begin(self, name: str) -> Verdict:
        """Prepare the stage to run, unless it is up to date; `finish` or `drop` must follow.

        Raises:
            InputError: a dependency is missing, or the stage `code` fails.
            RemoteError: results are shared and the remote does not answer.
        """
        self._code.refresh()
        return self._patiently(lambda: self._begin(name))

    def finish(self, name: str) -> None:
        """Record the stage after its command has ended well.

        Raises:
            InputsChangedError: a dependency changed while the stage ran; nothing is recorded.
            InputError: an output is missing, the disk is full, or the stage `code` fails.
        """
        self._code.refresh()
        self._patiently(lambda: self._finish(name))

    def drop(self, name: str) -> None:
        """Undo `begin` after the stage's command failed or was stopped."""
        if name in self._held:
            self._patiently(lambda: self._release(name))

    def close(self) -> None:
        """Release every stage that was begun and not finished, and copy dvc.lock."""
        for name in list(self._held):
            self.drop(name)
        repair(self.root)
        self._repo.close()

    def command(self, name: str) -> tuple[list[list[str] | str], dict[str, Any]]:
        """The stage's commands and their `Popen` arguments, the same as DVC's."""
        return command_of(self._stages[name])

    def _begin(self, name: str) -> Verdict:
        from dvc.dependency.base import DependencyDoesNotExistError
        from dvc.stage.cache import RunCacheNotFoundError

        stage = self._stages[name]
        try:
            if not stage.changed():
                return Verdict.UNCHANGED
            stage.remove_outs(ignore_remove=False, force=False)
            with as_recorded(stage):
                if self._remote is not None:
                    stage.save_deps()
                    self._remote.fetch_run(stage)
            try:
                with as_recorded(stage):
                    self._repo.stage_cache.restore(stage)
                self._write(name)
                return Verdict.RESTORED
            except RunCacheNotFoundError:
                self._inputs[name] = self._hash_inputs(name)
        except DependencyDoesNotExistError as error:
            raise InputError(f"{name}: {message_of(error)}") from None
        self._hold(name)
        return Verdict.RUN

    def _finish(self, name: str) -> None:
        from dvc.exceptions import DvcException
        from dvc.lock import LockError
        from dvc.output import OutputDoesNotExistError

        before = self._inputs[name]
        self._release(name)
        try:
            after = self._hash_inputs(name)
            changed = [path for path in before if before[path] != after[path]]
            if changed:
                raise InputsChangedError(
                    f"{name}: {', '.join(changed)} changed while it ran; its result is not "
                    "recorded, run it again"
                )
            self._write(name)
        except LockError:
            raise
        except OutputDoesNotExistError as error:
            raise InputError(f"{name}: its command made no {message_of(error)}") from None
        except (DvcException, OSError) as error:
            raise InputError(f"{name}: not recorded: {message_of(error)}") from None

    def _patiently(self, step: Callable[[], T]) -> T:
        """The result of a step that runs under this process's lock and DVC's.

        It waits as long as another dvc process holds the lock, or runs a stage whose paths the step
        needs. After DVC's own limit of 3 s a result would be lost.
        """
        from dvc.lock import LockError

        reported = False
        while True:
            try:
                with self._locked():
                    return step()
            except LockError as error:
                if not reported:
                    self._say(f"waiting for another dvc process: {message_of(error)[:200]}")
                    reported = True
            time.sleep(BUSY_SECONDS)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = self._repo.lock
        with self._mutex:
            lock.lock()  # raises LockError after 3 s
            try:
                with self._repo.scm_context(quiet=True):
                    yield
            finally:
                lock.unlock()

    def _write(self, name: str) -> None:
        """Do the same as `Repo.commit(name, force=True)`, but write dvc.lock in one step."""
        stage = self._stages[name]
        with as_recorded(stage) as keep:
            uncached = any(not (o.use_cache or o.is_metric or o.is_plot) for o in stage.outs)
            stage.save(run_cache=not uncached)
            stage.commit()
            if self._writes_lock:
                self._code.enter()
                enter(stage)
            keep()

    def _hash_inputs(self, name: str) -> dict[str, Any]:
        """The hash or the values of each dependency, now."""
        stage = self._stages[name]
        with as_recorded(stage):
            stage.save_deps()
            return {
                dep.def_path: json.dumps(dep.hash_info.value, default=str) for dep in stage.deps
            }

    def _hold(self, name: str) -> None:
        """Enter the stage's paths in DVC's rwlock, as `dvc repro` does while a command runs."""
        from dvc.rwlock import rwlock

        stage, stack = self._stages[name], ExitStack()
        reads = [dep.fs_path for dep in stage.deps]
        writes = [out.fs_path for out in stage.outs]
        hardlink = self._repo.config["core"].get("hardlink_lock", False)
        # The name makes an entry for this stage only: DVC has one for all stages of a process.
        label = f"vmunet sweep {name}"
        tmp = self._repo.tmp_dir
        stack.enter_context(rwlock(tmp, self._repo.fs, label, reads, writes, hardlink))
        self._held[name] = stack

    def _release(self, name: str) -> None:
        held = self._held.pop(name, None)
        if held is not None:
            held.close()


def reachable(names: Iterable[str], edges: Mapping[str, Iterable[str]]) -> set[str]:
    """These names and all names that their edges lead to, directly or not."""
    reached: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting.extend(edges[name])
    return reached


@contextmanager
def no_collection() -> Iterator[None]:
    """Switch garbage collection off: it takes a third of the time that 2,000 stages need."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
