"""The packages that `make` installs, and the files that it makes and removes."""

import re
import shutil
import subprocess
import sys
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
    assert re.findall(r"install\.py (\S+)", make(clone, "-n", target)) == [extras]
    # an existing environment is used, and its packages stay until the list changes
    stamps = [clone / ".venv" / name for name in (".installed", ".installed-test")]
    stamps[0].parent.mkdir()
    for stamp in stamps:
        stamp.touch()
    assert "install.py" not in make(clone, "-n", target)
    (clone / "constraints.txt").touch()
    assert "install.py" in make(clone, "-n", target, "-W", "constraints.txt")


@pytest.mark.parametrize("target", ["tables", "sweep"])
def test_several_stages_run_at_once_after_a_switch(clone: Path, target: str) -> None:
    commands = make(clone, "-n", target, "PROFILE=small").splitlines()
    first = commands.index(".venv/bin/vmunet profile small")
    assert commands[first + 1] == ".venv/bin/vmunet sweep"
    assert "vmunet profile" not in make(clone, "-n", target)


def test_doctor_answers_before_the_set_up(clone: Path) -> None:
    for name in ("__init__.py", "install.py", "commands/__init__.py", "commands/doctor.py"):
        (clone / "pipeline" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "pipeline" / name, clone / "pipeline" / name)
    bare = f"PYTHON={sys._base_executable}"  # without this environment's packages
    command = ["make", "doctor", bare]
    done = subprocess.run(command, cwd=clone, capture_output=True, text=True, check=False)
    assert done.returncode
    assert f"{clone}/.venv is not set up; run make setup" in done.stdout
    assert "Traceback" not in done.stderr


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
    own = {"help", "setup-test"}  # other targets need these
    assert set(re.findall(r"^make ([\w-]+)", text, re.MULTILINE)) == set(phony.split()) - own
    assert ".resume/" in text
