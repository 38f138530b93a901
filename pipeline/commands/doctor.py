"""`vmunet doctor`: what is there, what is missing, and how to get it.

`make doctor` runs this file before the set-up too, with the system's Python: it uses the standard
library and the syntax of old versions alone; what the set-up brings is imported inside functions.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from pipeline.install import (
    ROOT,
    VENV,
    gpus,
    in_git,
    told_without_git,
    without_git,
    wrong_version,
)

HELP = "say what is there, what is missing and how to get it"
ABOUT = """\
Check this machine and this folder: a line for each thing, with the cure for what is missing.
"""
NOTES = "exit status: 0 the profile `demo` can run, 1 it cannot."

GB = 1e9
# The folder's size after the set-up (2 GB with a CPU build of torch) and after the demo.
SETUP_GB, DEMO_GB = 3.0, 1.0
MEMORY_GB = 2.0  # of one training of the demo with its sweep and its data
PORTS = {"mlflow": 5000, "prefect": 4200}  # as in pipeline/commands/ui.py
MIRRORED = ("isic17", "isic18", "synapse", "weights", "prepared", "prepared.zip")
MARKS = {True: "ok", False: "MISSING", None: "note"}
LATEX = "apt-get install texlive-latex-base texlive-latex-recommended lmodern"
# In a process of its own, because a broken driver may end it. The module says why it cannot run.
TRY_GPU = """\
import torch
from vmunet.scan import triton
if torch.version.cuda is None:
    print("this torch is a CPU build")
elif not torch.cuda.is_available():
    print(f"torch, for CUDA {torch.version.cuda}, cannot use it: is the driver older?")
else:
    print(triton.unavailable(torch.device("cuda")))
"""


class Check(NamedTuple):
    """One line of the answer.

    Attributes:
        good: True; False if the demo cannot run without it; None if it only limits something.
    """

    good: bool | None
    subject: str
    text: str
    cure: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `vmunet doctor`."""
    parser.set_defaults(command=doctor)


def doctor(arguments: argparse.Namespace | None = None) -> int:
    """Print all checks; return 0 if the demo can run and 1 if not."""
    checks = [python(), environment(), packages(), folder(), git(), *records()]
    checks += [cores(), memory(), disk(), *graphics(), latex(), chromium(), mirror(), *ports()]
    for good, subject, text, cure in checks:
        print(f"{MARKS[good]:8}{subject:13}{text}{'; ' if cure else ''}{cure}")
    missing = [check.subject for check in checks if check.good is False]
    if missing:
        print(f"\nThe demo cannot run yet: {', '.join(missing)}.")
    else:
        print("\nThe demo can run: make tables")
    return 1 if missing else 0


def python() -> Check:
    """The version of the running Python."""
    wrong = wrong_version()
    shown = f"{platform.python_version()}, {sys.executable}"
    text, _, cure = wrong.partition("; ") if wrong else (shown, "", "")
    return Check(not wrong, "Python", text, cure)


def environment() -> Check:
    """Whether .venv was made, and made in this place."""
    if Path(sys.prefix).resolve() != VENV and installed("vmunet"):
        return Check(True, "environment", sys.prefix)
    script = VENV / "bin" / "vmunet"
    if not script.is_file():
        return Check(False, "environment", f"{VENV} is not set up", "run make setup")
    if str(VENV) not in script.read_text(errors="replace"):  # its first lines name its Python
        cure = "run rm -rf .venv && make setup"
        return Check(False, "environment", f"{VENV} was made in another folder", cure)
    return Check(True, "environment", str(VENV))


def packages() -> Check:
    """The versions of the packages, compared with pyproject.toml."""
    if not installed("vmunet"):
        return Check(False, "packages", "this Python has none of them", "run make setup")
    import tomllib

    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = project["dependencies"] + project["optional-dependencies"]["pipeline"]
    wrong = []
    for needed in map(Requirement, lines):
        there = installed(needed.name)
        if not there:
            wrong.append(f"{needed.name} is not installed")
        elif not needed.specifier.contains(there, prereleases=True):
            wrong.append(f"{needed.name} is {there}, needed is {needed.specifier}")
    if wrong:
        cure = "run rm -f .venv/.installed* && make setup"
        return Check(False, "packages", ", ".join(wrong), cure)
    told = ", ".join(f"{name} {installed(name)}" for name in ("torch", "dvc", "mlflow", "prefect"))
    return Check(True, "packages", f"{len(lines)} as in pyproject.toml; {told}")


def installed(package: str) -> str:
    """The version of a package, '' if it is not installed."""
    from importlib import metadata  # slow, and `vmunet --help` imports this module

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def folder() -> Check:
    """Whether this folder can be written to."""
    if os.access(ROOT, os.W_OK | os.X_OK):
        return Check(True, "folder", str(ROOT))
    return Check(False, "folder", f"{ROOT} cannot be written to", "copy it to a place of your own")


def git() -> Check:
    """Whether this is a git repository; if not, DVC is told so."""
    if not in_git(ROOT):
        if not (ROOT / ".dvc").is_dir():
            cure = "take the project's folder as it is published, with .dvc"
            return Check(False, "git", "not a repository, and .dvc is missing", cure)
        without_git(ROOT)
        return Check(None, "git", "not a repository: results name no commit", "use git clone")
    if told_without_git(ROOT):
        cure = f"remove no_scm from {ROOT}/.dvc/config and config.local"
        return Check(None, "git", "DVC was told that this is no git repository", cure)
    if shutil.which("git"):
        return Check(True, "git", "a repository: each result is recorded with its commit")
    return Check(None, "git", "not installed: results name no commit", "apt-get install git")


def records() -> list[Check]:
    """DVC's records: what a kill damaged is repaired."""
    if not installed("vmunet"):
        return []
    from pipeline.repair.repair import repair

    try:
        lines = repair(ROOT)
    except OSError as error:
        return [Check(None, "records", f"DVC's could not be read: {error}")]
    whole = [Check(True, "records", "DVC's are whole")]
    return [Check(None, "records", line) for line in lines] or whole


def cores() -> Check:
    """How many processor cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    count = len(affinity(0)) if affinity else os.cpu_count() or 1
    return Check(True, "cores", f"{count}: without a GPU as many stages at once, at most 8")


def memory() -> Check:
    """The memory that is free, or that the container may have."""
    amounts = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GB]
    with_limit = Path("/sys/fs/cgroup/memory.max")
    if with_limit.is_file() and with_limit.read_text().strip().isdecimal():
        amounts.append(int(with_limit.read_text()) / GB)
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        rows = (line.split() for line in meminfo.read_text().splitlines())
        amounts += [int(row[1]) * 1024 / GB for row in rows if row[0] == "MemAvailable:"]
    text = f"{min(amounts):.1f} GB"
    if min(amounts) >= MEMORY_GB:
        return Check(True, "memory", text)
    cure = f"close other programs: the demo needs {MEMORY_GB:g} GB"
    return Check(False, "memory", f"only {text}", cure)


def disk() -> Check:
    """The free space of this folder's disk."""
    free = shutil.disk_usage(ROOT).free / GB
    needed = DEMO_GB + (0 if installed("vmunet") else SETUP_GB)
    if free >= needed:
        return Check(True, "disk", f"{free:.0f} GB free")
    cure = f"make room: {needed:g} GB are needed"
    return Check(False, "disk", f"only {free:.1f} GB free", cure)


def graphics() -> list[Check]:
    """The GPUs, and whether the Triton kernels can run on the first one."""
    there = gpus()
    if not there:
        text = "none that nvidia-smi knows: everything runs on the processor"
        return [Check(None, "GPU", text, "the profile paper needs one")]
    names = ", ".join(f"{name} (compute capability {number})" for name, number in there)
    checks = [Check(True, "GPU", names)]
    if not installed("torch"):
        return [*checks, Check(None, "GPU kernels", "torch is not installed", "run make setup")]
    done = subprocess.run(
        [sys.executable, "-c", TRY_GPU], cwd=ROOT, capture_output=True, text=True, check=False
    )
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    if done.returncode == 0 and not lines:
        return [*checks, Check(True, "GPU kernels", "Triton's kernels can run")]
    why = lines[-1] if lines else f"torch ended with status {done.returncode}"
    return [*checks, Check(None, "GPU kernels", why, "see docs/install.md")]


def latex() -> Check:
    """Whether the report's PDF can be made."""
    if shutil.which("pdflatex"):
        return Check(True, "LaTeX", "pdflatex: the report is also a PDF")
    return Check(None, "LaTeX", "no pdflatex: no PDF, all else is made", LATEX)


def chromium() -> Check:
    """Whether the tests can look at the page."""
    if shutil.which("chromium") or shutil.which("chromium-browser"):
        return Check(True, "Chromium", "the tests of the page can run")
    text = "not installed: `make test` skips the tests of the page"
    return Check(None, "Chromium", text, "apt-get install chromium chromium-driver")


def mirror() -> Check:
    """What VMUNET_MIRROR holds."""
    place = os.environ.get("VMUNET_MIRROR", "")
    if not place:
        text = "VMUNET_MIRROR is not set: the profile small cannot run, demo needs no mirror"
        return Check(None, "mirror", text, "see docs/data.md")
    names = [name for name in MIRRORED if Path(place, name).exists()]
    if names:
        return Check(True, "mirror", f"{place} holds {', '.join(names)}")
    text = f"VMUNET_MIRROR={place} holds none of {', '.join(MIRRORED)}"
    return Check(None, "mirror", text, "see docs/data.md")


def ports() -> list[Check]:
    """Whether the ports of `vmunet ui` are free."""
    return [port_free(name, port) for name, port in PORTS.items()]


def port_free(name: str, port: int) -> Check:
    """Whether a port of 127.0.0.1 is free."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            cure = f"if it is not vmunet ui itself, run vmunet ui --{name}-port {port + 1}"
            return Check(None, f"port {port}", "is taken", cure)
    return Check(True, f"port {port}", f"free, for {name}'s page")


if __name__ == "__main__":
    sys.exit(doctor())
