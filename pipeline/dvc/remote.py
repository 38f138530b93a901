"""Results of stages through the DVC remote that several clones of the repository share."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.dvc.lockfile import message_of
from vmunet.errors import InputError

if TYPE_CHECKING:
    from dvc.output import Output
    from dvc.repo import Repo
    from dvc.stage import Stage

NO_REMOTE = (
    "no default DVC remote, through which the clones share results; add one with "
    "`dvc remote add -d NAME URL`: URL is a folder that all clones see, or s3://bucket/folder"
)
Outputs = Sequence[Mapping[str, Any]]  # as in dvc.lock: path, hash, size


class RemoteError(Exception):
    """A transfer from or to the remote failed; the next attempt may succeed."""


class Remote:
    """The default remote of a repository, through which several clones share results.

    `dvc push` and `dvc pull` read the hashes of a stage's outputs from the clone's dvc.lock. Here
    the clone that ran the stage, or that needs it, sends the hashes. So no clone has to commit its
    dvc.lock before another can continue.

    Raises:
        InputError: the repository has no default remote, or it cannot be used.
    """

    def __init__(self, repo: "Repo") -> None:
        from dvc.config import ConfigError

        self._repo = repo
        if not repo.config["core"].get("remote"):
            raise InputError(NO_REMOTE)
        try:
            self._files = repo.cloud.get_remote_odb()
            self._runs = repo.cloud.get_remote_odb(hash_name="md5-dos2unix")
        except (ConfigError, ImportError, OSError) as error:
            raise InputError(f"the DVC remote cannot be used: {message_of(error)[:300]}") from None

    def push(self, stage: "Stage") -> None:
        """Copy the stage's outputs to the remote, and its entry in the run-cache.

        Raises:
            RemoteError: something could not be copied.
        """
        with remote_errors("push", stage):
            self._transfer(self._repo.cloud.push, self._files, stage)
            self._push_run(stage)  # last, so that an entry never appears before its outputs

    def fetch(self, stage: "Stage", outputs: Outputs) -> None:
        """Copy outputs of the stage to this clone's cache; the caller then checks them out.

        Raises:
            RemoteError: the remote does not answer, or lacks a file.
        """
        with remote_errors("pull", stage):
            for out, known in zip(stage.outs, outputs, strict=True):
                fill(out, known)
            cached = [out for out in stage.outs if out.use_cache]
            if any(out.changed_cache() for out in cached):
                self._transfer(self._repo.cloud.pull, self._files, stage)
            missing = [str(out) for out in cached if out.changed_cache()]
            if missing:
                raise RemoteError(f"the remote lacks {', '.join(missing)}")

    def fetch_run(self, stage: "Stage") -> None:
        """Fetch the remote's run-cache entries for the stage, whose dependencies are saved."""
        from dvc.stage.cache import _can_hash, _get_stage_hash

        if not _can_hash(stage):
            return
        with remote_errors("pull", stage):
            key = _get_stage_hash(stage)
            cache = self._repo.stage_cache
            for value in self._copy_runs(key, self._runs, self._repo.cache.legacy):
                entry = cache._load_cache(key, value)
                if entry:
                    cached_stage = cache._create_stage(entry, wdir=stage.wdir)
                    self._transfer(self._repo.cloud.pull, self._files, cached_stage)

    def _push_run(self, stage: "Stage") -> None:
        from dvc.stage.cache import _can_hash, _get_stage_hash

        if _can_hash(stage):
            for _ in self._copy_runs(_get_stage_hash(stage), self._repo.cache.legacy, self._runs):
                pass

    def _copy_runs(self, key: str, source: Any, target: Any) -> Iterator[str]:
        """Copy the entries of a key that the target lacks, and yield their names."""
        from dvc.fs import generic

        folder = source.fs.join(source.path, "runs", key[:2], key)
        if not source.fs.exists(folder):
            return
        for path in source.fs.find(folder):
            value = source.fs.name(path)
            there = target.fs.join(target.path, "runs", key[:2], key, value)
            if not target.fs.exists(there):
                target.fs.makedirs(target.fs.parent(there), exist_ok=True)
                generic.copy(source.fs, path, target.fs, there)
                yield value

    def _transfer(self, send: Callable[..., Any], odb: Any, stage: "Stage") -> None:
        objects = {item for items in stage.get_used_objs().values() for item in items}
        if objects:
            failed = send(objects, odb=odb).failed
            if failed:
                raise RemoteError(f"{len(failed)} files were not copied")


def has_remote(root: Path) -> bool:
    """Whether the repository has a default remote."""
    from dvc.config import Config

    return bool(Config(str(root / ".dvc"))["core"].get("remote"))


def fill(out: "Output", known: Mapping[str, Any]) -> None:
    """Set an output's hash to the one that another clone sent."""
    from dvc_data.hashfile.meta import Meta

    out.meta = Meta.from_dict(dict(known))
    out.hash_name, out.hash_info = out._compute_hash_info_from_meta(known.get("hash"))
    out._compute_meta_hash_info_from_files()
    out.obj = None


@contextmanager
def remote_errors(verb: str, stage: "Stage") -> Iterator[None]:
    """Turn any error of the remote's library into a RemoteError of one line."""
    try:
        yield
    except Exception as error:
        raise RemoteError(
            f"dvc {verb} of {stage.addressing} failed: {message_of(error)[:300]}"
        ) from error
