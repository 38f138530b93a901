"""A downloaded zip: no git repository, in a folder whose name has a meaning in addresses."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import install
from tests.helpers.clone import copy_sources
from tests.helpers.paths import ROOT
from tests.test_pipeline import TINY, environment, write_profile

LOG_A_RUN = """
from pathlib import Path
from pipeline.tracking import client, start_sweep
mlflow = client()
run = start_sweep("odd", "a run", {})
mlflow.log_artifact(run, "params.yaml")
print([file.path for file in mlflow.list_artifacts(run)])
"""


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zip") / "a %41 #1?b c"
    folder.mkdir()
    copy_sources(folder)
    shutil.rmtree(folder / ".git")
    write_profile(folder, "tiny", TINY)
    tool(folder, "vmunet", "profile", "tiny")
    return folder


def tool(folder: Path, *command: str, status: int = 0) -> str:
    # the copy's code, not the clone's
    variables = environment() | {"PYTHONPATH": str(folder)}
    done = subprocess.run(
        command, cwd=folder, env=variables, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stderr if status else done.stdout


def test_stages_run_and_are_recorded(unpacked: Path) -> None:
    told = "this folder is no git repository: .dvc/config.local says so to DVC from now on"
    assert told in tool(unpacked, "vmunet", "sweep", "--dry-run")
    tool(unpacked, "dvc", "repro", "preprocess@isic17-32")
    planned = tool(unpacked, "vmunet", "sweep", "--dry-run")
    assert "train@isic17-32-scratch-paper-1" in planned
    assert "preprocess@isic17-32\n" not in planned
    assert told not in planned


def test_a_zip_from_git_says_by_itself_that_it_has_no_git(tmp_path: Path) -> None:
    for name in (".dvc/config", ".gitattributes"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    assert not install.told_without_git(tmp_path)
    who = "-c user.name=a -c user.email=a@example.org"
    shell = (
        f"git init -q; git add -A; git {who} commit -qm a; mkdir z; git archive HEAD | tar -xC z"
    )
    subprocess.run(shell, shell=True, cwd=tmp_path, check=True)
    assert install.told_without_git(tmp_path / "z")


def test_mlflow_keeps_its_store_and_files_in_the_folder(unpacked: Path) -> None:
    assert "params.yaml" in tool(unpacked, sys.executable, "-c", LOG_A_RUN)
    assert (unpacked / "mlflow.db").is_file()
    assert list((unpacked / "mlartifacts").rglob("params.yaml"))
    assert list(unpacked.parent.iterdir()) == [unpacked]
