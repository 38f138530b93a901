"""DVC's record of what is done, kept by one process while many stages run at once.

`dvc repro` runs one stage after the other. Several of them side by side take DVC's repository lock
with a hard-coded patience of 3 seconds, and lose results when many cells end together. Here one
process owns the record and does for each stage what `dvc repro` does, in the same order:

1. `begin`: is the stage up to date (DVC's own `changed`)? Does the run-cache hold its outputs?
   Otherwise its outputs are deleted, its dependencies hashed as they are, and its paths entered in
   DVC's rwlock, so that no other dvc process runs it meanwhile;
2. the stage's own command runs, elsewhere, without any lock;
3. `finish`: the dependencies are hashed again, and where one differs the stage is not recorded;
   else outputs go to the cache, the stage to the run-cache and its entry to dvc.lock.

Steps 1 and 3 run under a lock of this process and DVC's repository lock. Where another process
holds that one, they wait until it is free.

DVC rewrites the whole of dvc.lock for a stage (2 s at 70 stages of this project, most of it the
parser's) and in place. Here the stage's lines are replaced, and the file as a whole: a kill leaves
the old file or the new one.
"""

import gc
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from vmunet.errors import InputError

if TYPE_CHECKING:
    from dvc.stage import PipelineStage

    from pipeline.sweep.dask.exchange import Exchange, Outputs

BUSY_SECONDS = 0.5
T = TypeVar("T")


class Verdict(Enum):
    """What `begin` found."""

    UNCHANGED = "unchanged"
    RESTORED = "restored"
    RUN = "run"


class InputsChangedError(Exception):
    """A dependency changed while the stage ran: its outputs belong to neither state."""


class Record:
    """The stages of a repository and what DVC knows of them.

    Args:
        root: the repository's root.
        say: told, once for each wait, that another process holds DVC's lock.
        writes_lock: whether `finish` enters the stage in dvc.lock. A clone that works for another
            leaves the file as git has it: the other's dvc.lock is the record.

    Raises:
        InputError: not a DVC repository, or dvc.yaml has a mistake.
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

        self.root, self._say, self._writes_lock = root.resolve(), say, writes_lock
        self.exchange: Exchange | None = None
        self._mutex = threading.Lock()
        self._held: dict[str, ExitStack] = {}
        self._inputs: dict[str, dict[str, Any]] = {}
        try:
            self._repo = Repo(str(self.root))
            self._repo.lock._friendly = False  # its progress bar
            with no_collection():
                graph = get_active_graph(self._repo.index.graph)
        except DvcException as error:
            raise InputError(one_line(error)) from None
        stages = {stage: stage.addressing for stage in graph}
        self.stages: dict[str, PipelineStage] = {name: stage for stage, name in stages.items()}
        self._needs = {
            name: {stages[needed] for needed in graph.successors(stage)}
            for stage, name in stages.items()
        }

    def needs(self, name: str) -> set[str]:
        """The stages whose outputs this one reads."""
        return self._needs[name]

    def with_ancestors(self, names: Iterable[str]) -> set[str]:
        """These stages and all that they need, directly or not."""
        found: set[str] = set()
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting.extend(self._needs[name])
        return found

    def outputs(self, name: str) -> list[Path]:
        """Paths of the stage's outputs, from the root."""
        outs = self.stages[name].outs
        return [Path(out.fs_path).relative_to(self.root) for out in outs if out.is_in_repo]

    def share(self) -> "Exchange":
        """Share results through the DVC remote from now on: `begin` looks there too.

        Raises:
            InputError: no remote is configured.
        """
        from pipeline.sweep.dask.exchange import Exchange

        self.exchange = Exchange(self._repo)
        return self.exchange

    def bring(self, name: str, outputs: "Outputs") -> None:
        """Put outputs that another clone made, by their hashes, where the stage has its own.

        Raises:
            RemoteError: the remote did not give them.
        """
        assert self.exchange is not None
        stage = self.stages[name]
        self.exchange.fetch(stage, outputs)

        def place() -> None:
            if name in self._held:  # its rwlock entry is ours, and would keep us out too
                for out in stage.outs:
                    out.checkout(force=True)
            elif any(out.workspace_status() for out in stage.outs):
                stage.checkout(force=True)

        self._patiently(place)

    def inputs(self, name: str, afresh: bool = False) -> dict[str, Any]:
        """Hash or values of each dependency: at `begin`, or as they are now.

        Raises:
            InputError: a dependency is missing.
        """
        from dvc.dependency.base import DependencyDoesNotExistError

        def look() -> dict[str, Any]:
            try:
                return self._look(name)
            except DependencyDoesNotExistError as error:
                raise InputError(f"{name}: {one_line(error)}") from None

        return self._patiently(look) if afresh else self._inputs[name]

    def changed(self, names: Iterable[str]) -> set[str]:
        """Those of the stages that are not up to date, by DVC's own rules.

        As `Stage.changed`, without its rwlock, which writes a file six times for each stage, and
        with one look at a dependency that many stages share.
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

        with no_collection():
            return self._patiently(lambda: {n for n in names if changed(self.stages[n])})

    def begin(self, name: str) -> Verdict:
        """Make the stage ready to run, unless there is nothing to do; `finish` or `drop` follows.

        Raises:
            InputError: a dependency is missing.
            RemoteError: results are shared, and the remote does not answer.
        """
        return self._patiently(lambda: self._begin(name))

    def finish(self, name: str) -> None:
        """Record the stage, whose command has ended well.

        Raises:
            InputsChangedError: a dependency changed while it ran; nothing is recorded.
            InputError: it did not make one of its outputs, or the disk is full.
        """
        self._patiently(lambda: self._finish(name))

    def drop(self, name: str) -> None:
        """Forget that the stage was begun: its command failed or was stopped."""
        if name in self._held:
            self._patiently(lambda: self._release(name))

    def close(self) -> None:
        """Release everything that was begun and not finished."""
        for name in list(self._held):
            self.drop(name)
        self._repo.close()

    def command(self, name: str) -> tuple[list[list[str] | str], dict[str, Any]]:
        """The stage's commands and their `Popen` arguments, as DVC would run them."""
        from dvc.stage.run import _enforce_cmd_list, _make_cmd, get_executable, prepare_kwargs

        stage = self.stages[name]
        shell = get_executable()
        return [_make_cmd(shell, line) for line in _enforce_cmd_list(stage.cmd)], prepare_kwargs(
            stage
        )

    def heal(self) -> None:
        """Remove what a kill at the wrong moment can leave: an rwlock file cut short.

        Its entries need no care: DVC drops those of processes that are gone.
        """
        path = self.root / ".dvc" / "tmp" / "rwlock"

        def remove_if_broken() -> None:
            try:
                json.loads(path.read_text())
            except FileNotFoundError:
                pass
            except ValueError:
                path.unlink()

        self._patiently(remove_if_broken)

    def _begin(self, name: str) -> Verdict:
        from dvc.dependency.base import DependencyDoesNotExistError
        from dvc.stage.cache import RunCacheNotFoundError

        stage = self.stages[name]
        try:
            if not stage.changed():
                return Verdict.UNCHANGED
            stage.remove_outs(ignore_remove=False, force=False)
            with as_recorded(stage):
                if self.exchange is not None:
                    stage.save_deps()
                    self.exchange.fetch_run(stage)
            try:
                with as_recorded(stage):
                    self._repo.stage_cache.restore(stage)
                self._write(name)
                return Verdict.RESTORED
            except RunCacheNotFoundError:
                self._inputs[name] = self._look(name)
        except DependencyDoesNotExistError as error:
            raise InputError(f"{name}: {one_line(error)}") from None
        self._hold(name)
        return Verdict.RUN

    def _finish(self, name: str) -> None:
        from dvc.exceptions import DvcException
        from dvc.lock import LockError
        from dvc.output import OutputDoesNotExistError

        before = self._inputs[name]
        self._release(name)
        try:
            after = self._look(name)
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
            raise InputError(f"{name}: its command made no {one_line(error)}") from None
        except (DvcException, OSError) as error:
            raise InputError(f"{name}: not recorded: {one_line(error)}") from None

    def _patiently(self, step: Callable[[], T]) -> T:
        """The result of a step under this process's lock and DVC's.

        Either may take as long as another dvc process wants it: DVC's own patience of 3 s would
        cost a result. That process may also be running a stage whose paths the step needs.
        """
        from dvc.lock import LockError

        said = False
        while True:
            try:
                with self._locked():
                    return step()
            except LockError as error:
                if not said:
                    self._say(f"waiting for another dvc process: {one_line(error)[:200]}")
                    said = True
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
        """What `Repo.commit(name, force=True)` does, but for the way dvc.lock is written."""
        with as_recorded(self.stages[name]) as keep:
            self._save(name)
            keep()

    def _save(self, name: str) -> None:
        stage = self.stages[name]
        uncached = any(not (o.use_cache or o.is_metric or o.is_plot) for o in stage.outs)
        stage.save(run_cache=not uncached)
        stage.commit()
        if not self._writes_lock:
            return
        from dvc.stage.serialize import to_lockfile

        write_entry(Path(stage.dvcfile._lockfile.path), stage.name, to_lockfile(stage)[stage.name])

    def _look(self, name: str) -> dict[str, Any]:
        """Hash or values of each dependency, as they are now."""
        stage = self.stages[name]
        with as_recorded(stage):
            stage.save_deps()
            return {
                dep.def_path: json.dumps(dep.hash_info.value, default=str) for dep in stage.deps
            }

    def _hold(self, name: str) -> None:
        """Enter the stage's paths in DVC's rwlock, as `dvc repro` does while a command runs."""
        from dvc.rwlock import rwlock

        stage, stack = self.stages[name], ExitStack()
        reads = [dep.fs_path for dep in stage.deps]
        writes = [out.fs_path for out in stage.outs]
        hardlink = self._repo.config["core"].get("hardlink_lock", False)
        # The name makes the entry this stage's own: DVC would share one between all of a process.
        label = f"vmunet sweep {name}"
        tmp = self._repo.tmp_dir
        stack.enter_context(rwlock(tmp, self._repo.fs, label, reads, writes, hardlink))
        self._held[name] = stack

    def _release(self, name: str) -> None:
        held = self._held.pop(name, None)
        if held is not None:
            held.close()


@contextmanager
def as_recorded(stage: "PipelineStage") -> Iterator[Callable[[], None]]:
    """Leave the stage's hashes as its entry in dvc.lock has them, unless the call says to keep.

    The dependencies of now beside the outputs of then would look like a result: DVC would restore
    the old outputs, when the stage is tried again, for the new dependencies.
    """
    names = ("hash_info", "hash_name", "meta", "obj", "files")
    items = [*stage.deps, *stage.outs]
    before = [
        {name: getattr(item, name) for name in names if hasattr(item, name)} for item in items
    ]
    kept: list[bool] = []
    try:
        yield lambda: kept.append(True)
    finally:
        if not kept:
            for item, values in zip(items, before, strict=True):
                for name, value in values.items():
                    setattr(item, name, value)


def write_entry(lock: Path, name: str, entry: Mapping[str, Any]) -> None:
    """Put a stage's entry into dvc.lock, byte for byte where and how DVC would, in one step."""
    from dvc.utils.serialize import dumps_yaml

    head = "schema: '2.0'\nstages:\n"
    new = dumps_yaml({"schema": "2.0", "stages": {name: entry}})
    block = new[new.index("stages:\n") + len("stages:\n") :]
    text = lock.read_text() if lock.exists() else head
    lines = text.splitlines(keepends=True)
    first = block.splitlines(keepends=True)[0]
    if "stages:\n" not in lines or first.startswith("  ?"):
        raise InputError(f"{lock}: not as DVC writes it; run `dvc repro {name}` to mend it")
    top = lines.index("stages:\n") + 1
    end = next((i for i in range(top, len(lines)) if re.match(r"\S", lines[i])), len(lines))
    if first in lines[top:end]:
        start = lines.index(first, top, end)
        names = (i for i in range(start + 1, end) if re.match(r"  [^\s-]", lines[i]))
        after = next(names, end)
    else:
        start = after = end
    lines[start:after] = [block]
    temporary = lock.with_name(f".{lock.name}.{os.getpid()}.part")
    temporary.write_text("".join(lines))
    os.replace(temporary, lock)


@contextmanager
def no_collection() -> Iterator[None]:
    """Without garbage collection, which takes a third of the time that 2,000 stages need."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
