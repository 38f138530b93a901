"""The set-up: which installer is taken, from which index, and what is refused."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from pipeline import install


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty clone; .venv is this environment."""
    monkeypatch.setattr(install, "ROOT", tmp_path)
    monkeypatch.setattr(install, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(install, "PYTHON", Path(sys.executable))
    return tmp_path


@pytest.fixture
def uv(root: Path) -> Path:
    """A program that writes down how it was called; PyTorch's index fails if `offline` exists."""
    (root / "offline").touch()
    program = root / "uv"
    program.write_text(
        "#!/bin/sh\n"
        'echo "$@ retries=$UV_HTTP_RETRIES links=$UV_FIND_LINKS" >> calls\n'
        'case "$*" in *--excludes*) cat "$9" >> excluded;; esac\n'
        'cat "$7" > constraints-given\n'
        'case "$*" in *torch-backend*) ! test -e offline;; esac\n'
    )
    program.chmod(0o755)
    (root / "constraints.txt").write_text(LOCK)
    return program


LOCK = (
    "# made by make lock\n"
    "numpy==2.4 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n"
    "nvidia-cublas==13.1 ; sys_platform == 'linux' \\\n    --hash=sha256:cc\n"
    "torch==2.13 \\\n    --hash=sha256:dd\ntorchvision==0.29 \\\n    --hash=sha256:ee\n"
)
FREE = LOCK.replace(" \\\n    --hash=sha256:cc", "").replace(" \\\n    --hash=sha256:dd", "")


def test_only_torchs_builds_are_freed_of_their_hashes(root: Path) -> None:
    (root / "lock.txt").write_text(LOCK)
    assert install.without_hashes("lock.txt", install.BUILDS) == FREE
    assert install.without_hashes("lock.txt", ("none==",)) == LOCK


def test_uv_is_installed_by_its_hash(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uv = "uv==0.13 \\\n    --hash=sha256:ff"
    (root / "constraints.txt").write_text(f"torch==2.13 \\\n    --hash=sha256:dd\n{uv}")
    asked: list[str] = []
    monkeypatch.setattr(install.shutil, "which", lambda *_, **__: None)
    monkeypatch.setattr(
        install,
        "run_pip",
        lambda required, option, path: asked.extend([required, option, Path(path).read_text()]),
    )
    assert install.find_uv() == ""
    assert asked == ["--require-hashes", "-r", uv]


def test_every_package_of_the_lock_has_a_version_and_hashes() -> None:
    """Also: a version that pyproject.toml allows, for everything that it names."""
    from packaging.requirements import Requirement

    root = Path(__file__).resolve().parents[2]
    blocks = [block for block in install.packages_of(root / "constraints.txt") if "==" in block]
    pinned = {}
    for block in blocks:
        requirement = Requirement(re.split(r" \\\n", block)[0])
        assert "--hash=sha256:" in block, requirement.name
        pinned[requirement.name] = str(requirement.specifier).removeprefix("==")
    declared = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    extras = declared["optional-dependencies"]
    named = [*declared["dependencies"], *(line for name in extras for line in extras[name])]
    for line in named:
        requirement = Requirement(line)
        if requirement.name not in ("vmunet", "mamba-ssm", "nnunetv2"):
            version = pinned[re.sub(r"[-_.]+", "-", requirement.name.lower())]
            assert requirement.specifier.contains(version), line


def calls(root: Path) -> list[str]:
    return (root / "calls").read_text().splitlines()


def test_torch_comes_from_its_own_index(uv: Path, root: Path) -> None:
    (root / "offline").unlink()
    assert install.run_uv(str(uv), "EXTRAS", with_triton=False)
    probe, installation = calls(root)
    assert "--dry-run" in probe
    assert "retries=0" in probe
    assert "--torch-backend=auto" in installation
    assert installation.split(" retries=")[0].endswith("-e .[EXTRAS]")
    assert (root / "constraints-given").read_text() == FREE


@pytest.mark.parametrize("with_triton", [True, False])
def test_without_that_index_the_package_index_is_taken(
    uv: Path, root: Path, with_triton: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", "/wheels /more")
    assert install.run_uv(str(uv), "EXTRAS", with_triton)
    installation = calls(root)[1]
    assert "torch-backend" not in installation
    assert ".[EXTRAS]" in installation
    assert (root / "constraints-given").read_text() == FREE  # their torch may be another build
    assert "links=/wheels,/more" in installation
    assert ("--excludes" in installation) == (not with_triton)
    if not with_triton:
        assert (root / "excluded").read_text() == "triton\n"


def test_every_hash_is_checked_if_there_is_one_index(
    uv: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "pip_settings", dict)
    for name in ("UV_INDEX", "UV_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    assert install.run_uv(str(uv), "EXTRAS", with_triton=False)
    assert (root / "constraints-given").read_text() == LOCK


@pytest.mark.parametrize("uv_works", [True, False, None])
def test_pip_installs_where_uv_cannot(
    root: Path, uv_works: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(install, "find_uv", lambda: "" if uv_works is None else "uv")
    monkeypatch.setattr(install, "run_uv", lambda *_, **__: uv_works)
    monkeypatch.setattr(install, "run", lambda command: not commands.append(command))
    assert install.main("pipeline") == 0
    if uv_works:
        assert commands == []
        return
    packages, folder = commands
    assert packages[-3:] == ["--require-hashes", "-r", "constraints.txt"]
    assert folder[-4:] == ["--no-deps", "--no-build-isolation", "-e", ".[pipeline]"]


@pytest.mark.parametrize("version", [(3, 10, 13), (3, 15, 0)])
def test_an_unsuitable_python_is_refused_in_one_line(
    root: Path,
    version: tuple[int, int, int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(install, "PYTHON", root / "none")
    monkeypatch.setattr(sys, "version_info", version)
    assert install.main("pipeline") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: Python 3.11 to 3.14 is needed")
    assert error.count("\n") == 1
    assert not (root / ".venv").exists()


def test_a_half_made_environment_is_removed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "PYTHON", root / "none")
    monkeypatch.setattr(install, "make_environment", lambda: (root / ".venv").mkdir())
    assert install.main("pipeline") == 2
    assert not (root / ".venv").exists()


def test_dvc_is_told_only_if_there_is_no_repository(root: Path) -> None:
    inner = root / "outer/inner"
    (inner / ".dvc").mkdir(parents=True)
    (inner / "dvc.yaml").touch()
    config = inner / ".dvc/config.local"

    def git(*command: str) -> None:
        subprocess.run(["git", *command], cwd=root / "outer", check=True)

    git("init", "-q")
    git("add", "inner/dvc.yaml")
    assert not install.without_git(inner)  # a part of a person's own repository
    git("rm", "-q", "--cached", "inner/dvc.yaml")
    assert install.without_git(inner)  # unpacked inside another repository
    assert config.read_text() == "[core]\n    no_scm = true\n"
    assert not install.without_git(inner)
    config.write_text("[cache]\n    type = copy\n[core]\n    no_scm = false\n    autostage = true")
    assert install.without_git(inner)
    assert config.read_text() == (
        "[cache]\n    type = copy\n[core]\n    no_scm = true\n    autostage = true\n"
    )
    config.unlink()
    (inner / ".git").mkdir()
    assert not install.without_git(inner)
    assert not config.exists()


def test_gpus_are_what_nvidia_smi_tells(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{root}:/usr/bin:/bin")
    program = root / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA H200, 9.0'\necho 'Tesla T4, 7.5'\n")
    program.chmod(0o755)
    assert install.gpus() == [("NVIDIA H200", "9.0"), ("Tesla T4", "7.5")]
    program.write_text("#!/bin/sh\necho 'No devices were found'; exit 6\n")
    assert install.gpus() == []
