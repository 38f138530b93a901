"""Copies of the repository's sources, so that no test sees what a person's clone has produced."""

import atexit
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

from ruamel.yaml import YAML

from pipeline.config.profiles import switch_profile
from tests.helpers.paths import ROOT


def copy_sources(folder: Path) -> Path:
    """The sources as a git repository without a commit, with the profile `demo` as it is written.

    The sources are git's tracked and new files, without tests, benchmarks and dvc.lock.
    """
    command = ["git", "ls-files", "-co", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, done.stdout.split("\n")):
        if name.startswith(("tests/", "benchmarks/")) or not (ROOT / name).is_file():
            continue
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / "dvc.lock").unlink(missing_ok=True)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    activate_demo(folder)
    return folder


def activate_demo(folder: Path) -> None:
    """Take a person's own choices out of params.yaml: another profile, edits, own datasets."""
    yaml = YAML()
    content = yaml.load(folder / "params.yaml")
    if content["own"]["images"] or content["own"]["volumes"]:
        content["own"] |= {"images": {}, "volumes": {}}
        yaml.dump(content, folder / "params.yaml")
    switch_profile("small", replace=True, root=folder)
    switch_profile("demo", replace=True, root=folder)


@functools.cache
def demo_root() -> Path:
    """A folder with params.yaml and the profiles, `demo` being active; for reading only."""
    folder = Path(tempfile.mkdtemp(prefix="demo-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    shutil.copy(ROOT / "params.yaml", folder)
    shutil.copytree(ROOT / "profiles", folder / "profiles")
    activate_demo(folder)
    return folder
