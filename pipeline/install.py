"""Install the packages of the pipeline into .venv: `python3 pipeline/install.py EXTRAS`.

`make setup` starts this file with the system's Python, so it uses the standard library alone and
the syntax of old versions, which it must refuse in one line. uv installs; pip does it where uv
cannot be had. On Linux the torch of the package index is a CUDA build with 5 GB of libraries that
it cannot be imported without. uv knows PyTorch's own index and takes the build for this machine's
GPU, or a CPU build, from there; if that index does not answer, the package index is used.

constraints.txt pins every package to a version and to the hashes of its files on the package index
(`make lock` renews it). A file with another hash is not installed. Only the builds of torch that
come from elsewhere, PyTorch's own index or an index that you added, are taken without a hash: there
is one for each processor and each CUDA.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
OLDEST, NEWEST = (3, 11), (3, 14)  # as in pyproject.toml
LOCK = "constraints.txt"
# Of these an index beside the package index has other files under the same version.
BUILDS = ("torch==", "triton==", "nvidia-", "cuda-")
# pip's settings and uv's variables for the same
SETTINGS = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "no-index": "UV_NO_INDEX",
    "cert": "SSL_CERT_FILE",
}


def main(extras: str) -> int:
    """Make .venv if it does not exist, install, and return the exit status.

    Args:
        extras: names of pyproject.toml's extras, separated by commas.
    """
    if not PYTHON.exists():
        wrong = wrong_version()
        if wrong:
            return fail(wrong)
        if not make_environment():
            shutil.rmtree(VENV, ignore_errors=True)
            return fail(
                "a virtual environment could not be made: see above; Debian and Ubuntu have the "
                "module venv in the package python3-venv"
            )
    without_git()
    say("installing into .venv, some minutes the first time ...")
    uv = find_uv()
    if uv and run_uv(uv, extras, with_triton="test" in extras.split(",") or bool(gpus())):
        return 0
    say("installing with pip ...")
    # pip checks no hash where a folder is among the packages, so the packages come first: all that
    # are locked, those of the tests too.
    folder = ["--no-deps", "--no-build-isolation", "-e", f".[{extras}]"]
    if run_pip("--require-hashes", "-r", LOCK) and run_pip(*folder):
        return 0
    return fail("the packages could not be installed: see above; then run the same command again")


def wrong_version() -> str:
    """What is wrong with the running Python's version, and what to do; or an empty string."""
    if OLDEST <= sys.version_info[:2] <= NEWEST:
        return ""
    names = [f"python3.{minor}" for minor in range(OLDEST[1], NEWEST[1] + 1)]
    there = [name for name in names if shutil.which(name)] + ["/path/to/python3.11"]
    return (
        f"Python 3.{OLDEST[1]} to 3.{NEWEST[1]} is needed, and {sys.executable} is "
        f"{sys.version.split()[0]}; run make setup PYTHON={there[0]}"
    )


def make_environment() -> bool:
    """Make .venv with the running Python; return whether that worked."""
    if shutil.which("uv"):
        return run(["uv", "venv", "-q", "--clear", "--seed", "--python", sys.executable, str(VENV)])
    return run([sys.executable, "-m", "venv", "--clear", str(VENV)])


def without_git(root: Path | None = None) -> bool:
    """Let DVC work in a folder that is not a git repository, such as an unpacked zip.

    Returns:
        Whether DVC had to be told.
    """
    root = root or ROOT
    if not (root / ".dvc").is_dir() or in_git(root) or told_without_git(root):
        return False
    config = root / ".dvc" / "config.local"
    before = config.read_text(encoding="utf-8") if config.exists() else ""
    lines = [line for line in before.splitlines() if "no_scm" not in line]
    core = next((i for i, line in enumerate(lines) if line.strip() == "[core]"), None)
    if core is None:
        lines.append("[core]")
        core = len(lines) - 1
    lines.insert(core + 1, "    no_scm = true")
    config.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return True


def told_without_git(root: Path) -> bool:
    """Whether DVC's configuration says that the folder is not a git repository."""
    files = [root / ".dvc" / name for name in ("config", "config.local")]
    texts = [file.read_text(errors="replace") for file in files if file.is_file()]
    lines = [line.replace(" ", "").lower() for text in texts for line in text.splitlines()]
    return "no_scm=true" in lines


def in_git(root: Path) -> bool:
    """Whether a folder is a git repository, or a part of one that has its files.

    A zip that was unpacked inside another repository is not: that one's rules on ignored files
    would hold for DVC, and its commits say nothing about this code.
    """
    if (root / ".git").exists():
        return True
    if not any((folder / ".git").exists() for folder in root.resolve().parents):
        return False
    command = ["git", "ls-files", "--error-unmatch", "dvc.yaml"]
    try:
        done = subprocess.run(
            command, cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
        )
    except OSError:
        return False
    return done.returncode == 0


def find_uv() -> str:
    """The path of uv, which is installed into .venv if it is missing; '' if it cannot be had."""
    known = shutil.which("uv") or shutil.which("uv", path=str(PYTHON.parent))
    if known:
        return known
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as only:
        only.write("\n".join(block for block in packages_of(LOCK) if block.startswith("uv==")))
        only.flush()
        run_pip("--require-hashes", "-r", only.name)
    return shutil.which("uv", path=str(PYTHON.parent)) or ""


def run_uv(uv: str, extras: str, with_triton: bool) -> bool:
    """Install with uv, and return whether that worked."""
    environment = {**pip_settings(), **os.environ}
    with tempfile.TemporaryDirectory() as folder:
        free = Path(folder) / "without-hashes-of-torch.txt"
        free.write_text(without_hashes(LOCK, BUILDS))
        command = [uv, "pip", "install", "-q", "--python", str(PYTHON), "-c"]
        packages = ["--build-constraints", LOCK, "-e", f".[{extras}]"]
        # One attempt, without waiting: without PyTorch's index everything works as well.
        # `--reinstall` because the index is not asked for a torch that is there.
        quick = {**environment, "UV_HTTP_RETRIES": "0", "UV_HTTP_TIMEOUT": "10"}
        theirs = [*command, str(free), "--torch-backend=auto"]
        probe = [*theirs, "--dry-run", "--reinstall", "--no-deps", "torch"]
        if run(probe, quick, quiet=True) and run([*theirs, *packages], environment):
            return True
        say("PyTorch's own index gives no build of torch: taking the one of the package index")
        added = {"UV_INDEX", "UV_FIND_LINKS"} & environment.keys()
        command.append(str(free) if added else LOCK)
        if with_triton:
            return run([*command, *packages], environment)
        # The CUDA build asks for 691 MB of Triton, which nothing uses without a GPU.
        unused = Path(folder) / "unused.txt"
        unused.write_text("triton\n")
        return run([*command, "--excludes", str(unused), *packages], environment)


def run_pip(*words: str) -> bool:
    """Run `pip install` in .venv, and return whether that worked."""
    return run([str(PYTHON), "-m", "pip", "install", "-q", "--disable-pip-version-check", *words])


def packages_of(lock: str) -> list[str]:
    """The entries of a lock file in the repository's root: a package's version and its hashes."""
    return re.split(r"\n(?! )", (ROOT / lock).read_text())


def without_hashes(lock: str, names: tuple[str, ...]) -> str:
    """A lock file's text whose entries that begin with one of the names have no hashes."""
    return "\n".join(
        re.sub(r" \\\n +--hash=\S+", "", package) if package.startswith(names) else package
        for package in packages_of(lock)
    )


def pip_settings() -> dict[str, str]:
    """What pip is told about indexes, in variables and in files, as variables of uv."""
    command = [str(PYTHON), "-m", "pip", "config", "list"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    rows = [line.partition("=") for line in done.stdout.decode(errors="replace").splitlines()]
    told = {key: value for key, _, value in rows}
    variables = {}
    for name, variable in SETTINGS.items():
        for section in ("global", "install", ":env:"):  # the later ones are stronger
            if f"{section}.{name}" in told:
                words = str(ast.literal_eval(told[f"{section}.{name}"])).split()
                variables[variable] = ("," if name == "find-links" else " ").join(words)
    if "UV_INDEX" in variables:  # pip takes the newest version of all indexes
        variables["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    return variables


def gpus() -> list[tuple[str, str]]:
    """Name and compute capability ('9.0') of each NVIDIA GPU, as `nvidia-smi` tells them."""
    command = ["nvidia-smi", "--query-gpu=name,compute_cap", "--format=csv,noheader"]
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [line.rpartition(",") for line in done.stdout.decode(errors="replace").splitlines()]
    return [(name.strip(), capability.strip()) for name, _, capability in rows if name]


def run(command: list[str], environment: dict[str, str] | None = None, quiet: bool = False) -> bool:
    """Run a command in the repository's root, and return whether it worked."""
    output = subprocess.DEVNULL if quiet else None
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, stdout=output, stderr=output, check=False
        )
    except OSError:
        return False
    return done.returncode == 0


def say(line: str) -> None:
    """Print a line about the progress."""
    print(line, file=sys.stderr, flush=True)


def fail(message: str) -> int:
    """Print an error's one line, and return the status of a wrong input."""
    say(f"error: {message}")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
