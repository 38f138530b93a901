"""Kill `dvc repro` and `vmunet sweep` at random moments and start them again, until all is done.

    python -m tests.helpers.kills --kills 100 --seed 1 --json FILE        (or: make kill N=100)

A copy of the repository's sources gets a grid of three cells, whose archives come over HTTP from a
server in this process, four epochs at 32 px. One run is undisturbed. Other runs are killed (SIGKILL
of the process group) and started again, by either command, until the tables are there: nothing else
is done between a kill and the next start. Then weights, histories, scores and tables must equal the
undisturbed run's, byte by byte. If kills are left, it begins anew.

Ctrl-C ends the kills; the run that was killed last still goes to its end.

`--lock` keeps the repository's dvc.lock: DVC then needs 1 to 3 s to write its record of a stage,
and kills hit it there more often.
"""

import argparse
import copy
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipeline.repair.dvc_lock import LOCK
from pipeline.repair.lock_text import is_whole
from pipeline.repair.rwlock import RWLOCK
from tests.helpers.clone import copy_sources
from tests.helpers.http_server import Server, serving
from tests.helpers.paths import ROOT

PROFILE: dict[str, Any] = {
    "about": "Phantoms over HTTP, three cells, to be killed.",
    "threads": 1,
    "data": {"isic17": {"source": "http"}},
    "volumes": {},
    "weights": {"source": "phantom", "steps": 2, "side": 32},
    "train": {"dims": [8, 16, 32, 64], "states": 4, "epochs": 4, "t_max": 2, "batch_size": 4},
    "train_volumes": {"dims": [8, 16, 32, 64], "epochs": 4, "t_max": 2, "batch_size": 4},
    "evaluate": {"batch_size": 8, "bootstrap": 100},
    "grid": {
        "datasets": ["isic17"],
        "views": {"isic17-32": {"dataset": "isic17", "size": 32, "protocols": ["paper", "sound"]}},
        "ablation_views": ["isic17-32"],
        "ablations": ["base", "scratch"],
        "rivals": [],
        "protocols": ["paper"],
        "size_views": [],
        "sound_cells": ["base"],
        "volumes": {},
        "volume_protocols": [],
        "volume_rivals": [],
        "seeds": [42],
        "repeats": {"cells": [], "seeds": []},
        "cross": {},
        "profiled": [],
    },
}
COUNTS = {"n_training": 12, "n_validation": 2, "n_train": 8}  # instead of ISIC 2017's
# Stages that take time and make nothing that is compared.
LEFT_OUT = ("figures", "pictures", "pictures_volumes", "page", "pdf", "model_card")
COMMANDS = (("dvc", "repro"), ("vmunet", "sweep", "--parallel", "2", "--gpus", "none"))
COMPARED = ("weights.safetensors", "history.csv", "per_image.csv", "predictions.npz")
TIMED = ("all.tex", "runs.csv")  # tables with a run's seconds, or its number in MLflow
RECORDING = "Updating lock file"
# A kill comes after a text was printed so many times, and then within so many seconds.
MOMENTS = {
    "dvc": [
        ("", 1, 4.0),
        *[("> ", 2, 8.0), ("> ", 2, 8.0), ("> ", 3, 8.0)],  # the first is the stage `code`
        *[(RECORDING, 2, 1.0), (RECORDING, 3, 1.0)],
    ],
    "vmunet": [
        ("", 1, 6.0),
        *[("stages to run", 1, 8.0), (" done in ", 1, 6.0), (" done in ", 2, 6.0)],
    ],
}
LAST_START = 300.0  # s


def make_project(folder: Path, server: Server, keep_lock: bool, one_cell: bool) -> Path:
    """The sources with the tiny grid; its archives are at the server."""
    profile = copy.deepcopy(PROFILE)
    if one_cell:  # without initial weights
        profile["weights"] = {"source": "none"}
        profile["grid"] |= {"ablations": ["scratch"], "sound_cells": []}
    copy_sources(folder)
    if keep_lock:
        shutil.copy(ROOT / LOCK, folder)
    take_compiled(ROOT, folder)
    official = folder / "vmunet/data/isic/official.py"
    text = re.sub(r'BASE_URL = ".*"', f'BASE_URL = "{server.base}"', official.read_text())
    for name, count in COUNTS.items():
        text = re.sub(rf"{name}=\d+", f"{name}={count}", text, count=1)
    official.write_text(text)
    yaml = YAML()
    with open(folder / "profiles/kill.yaml", "w") as file:
        yaml.dump(profile, file)
    stages = yaml.load(folder / "dvc.yaml")
    del stages["metrics"]
    for name in list(stages["stages"]):
        if name in LEFT_OUT or name.startswith("model_card_"):
            del stages["stages"][name]
    yaml.dump(stages, folder / "dvc.yaml")
    run(folder, "vmunet", "profile", "kill")
    return folder


def take_compiled(source: Path, folder: Path) -> None:
    """Copy the compiled kernels of another copy of the same sources: compiling takes 40 s."""
    kernels = Path("vmunet/scan/cpu_kernels.py")
    if (source / kernels).read_bytes() == (folder / kernels).read_bytes():
        (folder / kernels).parent.joinpath("__pycache__").mkdir(exist_ok=True)
        for path in (source / kernels).parent.glob("__pycache__/cpu_kernels.*.nb?"):
            shutil.copy2(path, folder / path.relative_to(source))
        shutil.copystat(source / kernels, folder / kernels)  # Numba compares the time


def serve_archives(server: Server, folder: Path) -> None:
    """Let the server have the four archives of ISIC 2017, made of phantoms."""
    from vmunet.data.phantom.lesions import write_archives

    folder.mkdir()
    write_archives(folder, "isic17", COUNTS["n_training"], COUNTS["n_validation"], 1)
    for path in folder.iterdir():
        server.files[f"/2017/{path.name}"] = path.read_bytes()
    server.pause = 0.05


def environment(folder: Path) -> dict[str, str]:
    names = ("MLFLOW", "DVC", "GIT", "PREFECT", "VMUNET")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(names)}
    return kept | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(folder),
        "OMP_NUM_THREADS": "1",
        "DVC_NO_ANALYTICS": "1",
        "NO_ALBUMENTATIONS_UPDATE": "1",
    }


def run(folder: Path, *command: str) -> str:
    """Run a command, which must succeed, and return its output."""
    done = subprocess.run(
        command, cwd=folder, env=environment(folder), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each file that must not depend on kills, and of each score, by path."""
    paths = [p for top in ("runs", "metrics") for p in sorted((folder / top).rglob("*"))]
    found = {path: path.read_bytes() for path in paths if path.name in COMPARED}
    for path in paths:
        if path.name == "metrics.json":
            content = json.loads(path.read_text())
            kept = {key: content[key] for key in ("paper", "sound") if key in content}
            found[path] = json.dumps(kept).encode()
    tables = [p for p in (folder / "reports/out/tables").iterdir() if p.suffix in (".tex", ".csv")]
    found |= {path: path.read_bytes() for path in tables if path.name not in TIMED}
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(content).hexdigest()
        for path, content in found.items()
    }


class Campaign:
    """Kills and starts in one project.

    Args:
        folder: an empty folder.
        seed: of the moments and of the commands.
        keep_lock: whether the project begins with the repository's dvc.lock.
        one_cell: whether the grid has one cell instead of three, for a short test.

    Attributes:
        kills: what is known of each kill.
        by_hand: the kills after which a start failed, with its last lines.
        runs, compared: the runs that began, and those that ended and were compared.
        different: the files that differ from the undisturbed run's, each with its run's number.
    """

    def __init__(
        self, folder: Path, seed: int, keep_lock: bool = False, one_cell: bool = False
    ) -> None:
        self.kills: list[dict[str, Any]] = []
        self.by_hand: list[dict[str, Any]] = []
        self.different: list[str] = []
        self.runs = self.compared = 0
        self._folder, self._keep_lock, self._one_cell = folder, keep_lock, one_cell
        self._seed, self._random = seed, random.Random(seed)

    def run(self, count: int) -> None:
        """Kill so many times, and compare each run that ends."""
        with serving() as server:
            serve_archives(server, self._folder / "archives")
            clean = make_project(self._folder / "clean", server, self._keep_lock, self._one_cell)
            undisturbed = shutil.copytree(clean, self._folder / "undisturbed", symlinks=True)
            run(undisturbed, *COMMANDS[1])
            take_compiled(undisturbed, clean)
            expected = digests(undisturbed)
            assert any(name.endswith("weights.safetensors") for name in expected)
            while len(self.kills) < count:
                self.runs += 1
                project = self._folder / "killed"
                shutil.rmtree(project, ignore_errors=True)
                shutil.copytree(clean, project, symlinks=True)
                try:
                    while len(self.kills) < count and self._start(project):
                        pass
                except KeyboardInterrupt:  # no more kills; this run still ends and is compared
                    count = len(self.kills)
                command = self._random.choice(COMMANDS)
                log = project / "log"
                if self._status(project, command, log):
                    self._fail(project, log)
                found = digests(project)
                self.compared += 1
                self.different += [
                    f"run {self.runs}: {name}"
                    for name in sorted(expected.keys() | found.keys())
                    if expected.get(name) != found.get(name)
                ]

    def _start(self, project: Path) -> bool:
        """Start a command and kill it; return whether it was killed before its end."""
        command, log = self._random.choice(COMMANDS), project / "log"
        waits_for, times, seconds = self._random.choice(MOMENTS[command[0]])
        delay = self._random.uniform(0, seconds)
        with started(project, command, log) as process:
            while process.poll() is None and log.read_text().count(waits_for) < times:
                time.sleep(0.005)
            ends = time.monotonic() + delay
            while process.poll() is None and time.monotonic() < ends:
                time.sleep(0.005)
            if process.poll() is not None:
                if process.returncode:
                    self._fail(project, log)
                return bool(process.returncode)
            os.killpg(process.pid, signal.SIGKILL)
        kill = {
            "number": len(self.kills) + 1,
            "run": self.runs,
            "command": " ".join(command[:2]),
            "while": moment(project, log),
            "damaged": damaged(project),
            "resumed": True,
        }
        self.kills.append(kill)
        damage = f"  damaged: {', '.join(kill['damaged'])}" if kill["damaged"] else ""
        print("{number:4}  {command:12}  {while}".format(**kill) + damage, flush=True)
        return True

    def _fail(self, project: Path, log: Path) -> None:
        """Note that a start failed after a kill, and repair by hand."""
        last = log.read_text().splitlines()[-5:]
        if self.by_hand and self.by_hand[-1]["kill"] == len(self.kills):
            raise RuntimeError(f"vmunet doctor did not help: {' / '.join(last)}")
        if self.kills:
            self.kills[-1]["resumed"] = False
        self.by_hand.append({"kill": len(self.kills), "last": last})
        print(f"      NOT RESUMED: {' / '.join(last)}", flush=True)
        run(project, "vmunet", "doctor")

    def _status(self, project: Path, command: tuple[str, ...], log: Path) -> int:
        with started(project, command, log) as process:
            return process.wait(LAST_START)

    def write(self, path: Path) -> None:
        """Write everything that happened as JSON."""
        content = {
            "seed": self._seed,
            "lock": self._keep_lock,
            "summary": self.summary(),
            "by_hand": self.by_hand,
            "different": self.different,
            "kills": self.kills,
        }
        path.write_text(json.dumps(content, indent=1) + "\n")

    def summary(self) -> str:
        resumed = sum(kill["resumed"] for kill in self.kills)
        differ = f"{len(self.different)} files differ" if self.different else "no file differs"
        compared = f"{differ} from the undisturbed run's" if self.compared else "none was compared"
        return (
            f"{resumed} of {len(self.kills)} resumed without a hand, in {self.runs} runs, of which "
            f"{self.compared} ended: {compared}"
        )


@contextmanager
def started(
    project: Path, command: tuple[str, ...], log: Path
) -> Iterator["subprocess.Popen[bytes]"]:
    """A command in a process group of its own, which ends with the block."""
    with open(log, "wb") as file:
        process = subprocess.Popen(
            command,
            cwd=project,
            env=environment(project),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def moment(project: Path, log: Path) -> str:
    """What ran when the command was killed, as far as its output and DVC's rwlock tell."""
    lines = log.read_text().splitlines()
    stages = re.findall(r"^Running stage '(.+)':$", "\n".join(lines), re.MULTILINE)
    if stages:
        recording = any(line.startswith(RECORDING) for line in lines[-2:])
        return f"{'recording of ' if recording else ''}{stages[-1]}"
    try:
        names = set(re.findall(r"vmunet sweep ([^\"]+)", (project / RWLOCK).read_text()))
    except FileNotFoundError:
        names = set()
    return " and ".join(sorted(names)) or "start, or between two stages"


def damaged(project: Path) -> list[str]:
    """The records that a kill left damaged."""
    found = []
    if (project / LOCK).is_file() and not is_whole((project / LOCK).read_text(errors="replace")):
        found.append("dvc.lock")
    try:
        json.loads((project / RWLOCK).read_text())
    except FileNotFoundError:
        pass
    except ValueError:
        found.append("rwlock")
    entries = (project / ".dvc/cache/runs").glob("??/*")
    if any(not list(folder.iterdir()) or list(folder.glob("*.tmp")) for folder in entries):
        found.append("run-cache")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.helpers.kills",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--kills", type=int, default=100, metavar="N")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lock", action="store_true", help="begin with the repository's dvc.lock")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what happened to FILE")
    parser.add_argument("--folder", type=Path, metavar="FOLDER", help="an empty one, to be kept")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        campaign = Campaign(arguments.folder or Path(temporary), arguments.seed, arguments.lock)
        try:
            campaign.run(arguments.kills)
        finally:  # after Ctrl-C too
            print(campaign.summary())
            if arguments.json:
                campaign.write(arguments.json)
    return 1 if campaign.by_hand or campaign.different else 0


if __name__ == "__main__":
    sys.exit(main())
