"""The packages that `make` installs, and the files that it makes and removes."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder with the Makefile and its dependencies, without an installation."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def make(clone: Path, *arguments: str) -> str:
    command = ["make", *arguments]
    done = subprocess.run(command, cwd=clone, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize(
    ("target", "extras"),
    [("tables", "pipeline"), ("sweep", "pipeline"), ("ui", "pipeline")]
    + [(target, "pipeline,test") for target in ("test", "lint", "gpu")],
)
def test_a_target_installs_what_it_needs_once(clone: Path, target: str, extras: str) -> None:
    assert re.findall(r"-e '\.\[(.*)\]'", make(clone, "-n", target)) == [extras]
    # an existing environment is used, and its packages stay until the list changes
    stamps = [clone / ".venv" / name for name in (".installed", ".installed-test")]
    stamps[0].parent.mkdir()
    for stamp in stamps:
        stamp.touch()
    assert "pip install" not in make(clone, "-n", target)
    (clone / "constraints.txt").touch()
    assert "pip install" in make(clone, "-n", target, "-W", "constraints.txt")


@pytest.mark.parametrize("target", ["tables", "sweep"])
def test_kernels_for_the_cpu_are_compiled_once_and_not_for_a_gpu(clone: Path, target: str) -> None:
    (warm_up,) = re.findall(r".*warm_up.*", make(clone, "-n", target))
    assert "cuda.is_available() or cpu.warm_up()" in warm_up


def test_clean_removes_only_caches_and_resume_points(clone: Path) -> None:
    code = ("vmunet", "pipeline", "stages", "reports", "tests", "benchmarks", "examples")
    removed = [".resume", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".import_linter_cache"]
    removed += [f"{name}/room/__pycache__" for name in code]
    kept = ["data", "runs", ".venv/__pycache__", ".dvc/cache", "metrics", "reports/out", ".search"]
    for name in (*removed, *kept):
        (clone / name).mkdir(parents=True)
    make(clone, "clean")
    assert not [name for name in removed if (clone / name).exists()]
    assert not [name for name in kept if not (clone / name).exists()]


def test_help_names_every_target(clone: Path) -> None:
    (phony,) = re.findall(r"\.PHONY: (.*)", (clone / "Makefile").read_text())
    text = make(clone)
    own = {"help", "setup-test", "ready"}  # other targets need these
    assert set(re.findall(r"^make (\w+)", text, re.MULTILINE)) == set(phony.split()) - own
    assert ".resume/" in text
