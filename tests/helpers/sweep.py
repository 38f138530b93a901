"""A DVC project whose trainings are lines of shell, for tests of sweeps."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ruamel.yaml import YAML

from pipeline.sweep.execution import run_sweep
from pipeline.sweep.options import SweepOptions
from tests.helpers.paths import ROOT

NAME = "isic17-64-base-paper-"
SWEEP = "import sys; from pipeline.cli import main; sys.exit(main())"
ONE = "echo {seed} >> ran.txt"


def make_project(folder: Path, seeds: int = 4, train: str = ONE, evaluate: str = "true") -> Path:
    """Make a small project: preprocess, a train and an evaluate stage for each seed, tables.

    `train` and `evaluate` are shell commands, in which {seed} stands for the cell's seed; they run
    before the output is written.
    """
    (folder / "src.txt").write_text("source\n")
    (folder / "params.yaml").write_text("rate: 1\n")
    matrix = {"run": [f"{NAME}{seed}" for seed in range(1, seeds + 1)]}

    def cell(name: str, command: str, out: str, **more: object) -> dict:
        shell = command.replace("{seed}", "${item.run}")
        return {
            "matrix": matrix,
            "cmd": f"{shell} && mkdir -p {name} && echo ${{item.run}} > {out}",
            "outs": [out],
            **more,
        }

    stages = {
        "preprocess": {
            "cmd": "echo preprocess >> ran.txt && cat src.txt > arrays",
            "deps": ["src.txt"],
            "outs": ["arrays"],
        },
        "train": cell("runs", train, "runs/${item.run}", deps=["arrays"], params=["rate"]),
        "evaluate": cell("scores", evaluate, "scores/${item.run}", deps=["runs/${item.run}"]),
        "tables": {"cmd": "cat scores/* > tables.txt", "deps": ["scores"], "outs": ["tables.txt"]},
    }
    with open(folder / "dvc.yaml", "w") as file:
        YAML(typ="safe").dump({"stages": stages}, file)
    for command in ("git init -q", "dvc init -q"):
        tool(folder, *command.split())
    return folder


FINGERPRINTS = """\
import hashlib
from pathlib import Path

with open("code.txt", "a") as file:
    file.write("code\\n")
Path(".fingerprints").mkdir(exist_ok=True)
for name in ("train", "evaluate"):
    lines = Path("lib", f"{name}.py").read_text().splitlines()
    code = "".join(line for line in lines if not line.startswith("#"))
    Path(".fingerprints", name).write_text(hashlib.sha256(code.encode()).hexdigest())
"""


def add_code(project: Path) -> None:
    """Add a stage `code` and Python files to the project. Trainings and evaluations then depend on
    fingerprints, which comments do not change. The stage adds a line to code.txt at each run.
    """
    (project / "lib").mkdir()
    for name, text in {"train": "a = 1\n", "evaluate": "b = 1\n", "code": FINGERPRINTS}.items():
        (project / "lib" / f"{name}.py").write_text(text)
    yaml = YAML()
    content = yaml.load(project / "dvc.yaml")
    for name in ("train", "evaluate"):
        content["stages"][name]["deps"].append(f".fingerprints/{name}")
    outs = [{f".fingerprints/{name}": {"cache": False}} for name in ("evaluate", "train")]
    code = {"cmd": "python lib/code.py", "always_changed": True, "outs": outs}
    content["stages"] = {"code": code} | content["stages"]
    yaml.dump(content, project / "dvc.yaml")


def environment(**more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("DVC", "GIT", "PREFECT"))}
    own = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return kept | {"PATH": own, "PYTHONPATH": str(ROOT), "DVC_NO_ANALYTICS": "1"} | more


def tool(project: Path, *command: str) -> str:
    """Run a command in the project, which must succeed, and return its output."""
    done = subprocess.run(
        command, cwd=project, env=environment(), capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def sweep(
    messages: list[str] | None = None, parallel: int = 8, retries: int = 2, **options
) -> bool:
    """Sweep the current folder's project in this process; return whether a stage failed."""
    lines = [] if messages is None else messages
    chosen = {"gpus": "none", "parallel": parallel, "retries": retries} | options
    return run_sweep(SweepOptions(**chosen), lambda line, passing=False: lines.append(line))


def start(project: Path, *arguments: str, **more: str) -> "subprocess.Popen[str]":
    """Start `vmunet sweep` in a separate process."""
    return subprocess.Popen(
        [sys.executable, "-c", SWEEP, "sweep", "--gpus", "none", *arguments],
        cwd=project,
        env=environment(**more),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ran(project: Path) -> Sequence[str]:
    """The lines that the commands wrote, one for each command, sorted."""
    path = project / "ran.txt"
    return sorted(path.read_text().split()) if path.exists() else []
