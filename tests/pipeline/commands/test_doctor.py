"""`vmunet doctor`: a line for each thing, with the cure for what is missing."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.commands import doctor


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is not a repository and has no .venv."""
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    monkeypatch.setattr(doctor, "VENV", tmp_path / ".venv")
    return tmp_path


def test_this_clone_can_run_the_demo(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.doctor() == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "The demo can run: make tables"
    assert not [line for line in lines if line.startswith("MISSING")]
    assert any("packages" in line and "torch" in line for line in lines)


def test_what_is_missing_gives_status_1(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "MEMORY_GB", 1e6)
    monkeypatch.setattr(doctor, "packages", lambda: doctor.Check(True, "packages", "all"))
    assert doctor.doctor() == 1
    text = capsys.readouterr().out
    assert text.endswith("The demo cannot run yet: git, memory.\n")


def test_it_does_not_load_torch() -> None:
    code = "import sys; from pipeline.commands.doctor import doctor; doctor(); print(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "'torch'" not in done.stdout.splitlines()[-1]


def test_packages_are_compared_with_pyproject(root: Path) -> None:
    text = '[project]\ndependencies = ["numpy>=2", "torch<1"]\n'
    text += '[project.optional-dependencies]\npipeline = ["not-there>=1"]\n'
    (root / "pyproject.toml").write_text(text)
    check = doctor.packages()
    assert check.good is False
    assert "not-there is not installed" in check.text
    assert "needed is <1" in check.text
    assert "numpy" not in check.text


def test_an_environment_of_another_folder_is_seen(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "installed", lambda package: "")
    assert doctor.environment().cure == "run make setup"
    script = root / ".venv/bin/vmunet"
    script.parent.mkdir(parents=True)
    script.write_text(f"#!{root}/.venv/bin/python\n")
    assert doctor.environment().good
    script.write_text("#!/elsewhere/.venv/bin/python\n")
    assert "another folder" in doctor.environment().text


def test_git_or_a_dvc_that_does_without(root: Path) -> None:
    assert doctor.git().good is False
    (root / ".dvc").mkdir()
    assert "name no commit" in doctor.git().text
    assert "no_scm = true" in (root / ".dvc/config.local").read_text()
    (root / ".git").mkdir()
    assert "remove no_scm" in doctor.git().cure


def test_records_that_a_kill_damaged_are_repaired(root: Path) -> None:
    (root / ".dvc/cache/runs/ab/abc").mkdir(parents=True)
    assert [check.good for check in doctor.records()] == [None]
    assert [check.text for check in doctor.records()] == ["DVC's are whole"]


def test_a_gpu_without_a_torch_that_can_use_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "gpus", lambda: [("NVIDIA H200", "9.0")])
    monkeypatch.setattr(doctor, "TRY_GPU", "print('this torch is a CPU build')")
    gpu, kernels = doctor.graphics()
    assert gpu.text == "NVIDIA H200 (compute capability 9.0)"
    assert (kernels.good, kernels.text) == (None, "this torch is a CPU build")
    monkeypatch.setattr(doctor, "TRY_GPU", "raise OSError('libcuda.so.1')")
    assert doctor.graphics()[1].text == "OSError: libcuda.so.1"
    monkeypatch.setattr(doctor, "TRY_GPU", "print('')")
    assert doctor.graphics()[1].good


def test_a_taken_port_names_another() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        assert f"--mlflow-port {port + 1}" in doctor.port_free("mlflow", port).cure
    assert doctor.port_free("mlflow", port).good


def test_the_mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VMUNET_MIRROR", str(tmp_path))
    assert "holds none of" in doctor.mirror().text
    (tmp_path / "isic17").mkdir()
    assert doctor.mirror() == (True, "mirror", f"{tmp_path} holds isic17", "")
    monkeypatch.delenv("VMUNET_MIRROR")
    assert "not set" in doctor.mirror().text
