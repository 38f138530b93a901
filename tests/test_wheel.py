"""The contents of `pip install vmunet`: only the library, and only packages that it imports."""

import ast
import os
import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from setuptools import find_packages

from pipeline.cli import COMMANDS
from pipeline.fingerprint import Fingerprints
from pipeline.install import LOCK, without_hashes
from tests.helpers.paths import ROOT
from vmunet import cli

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
# Packages whose module has another name.
DISTRIBUTIONS = {
    "cv2": "opencv-python-headless",
    "PIL": "pillow",
    "mamba_ssm": "mamba-ssm",
    "selective_scan_cuda": "mamba-ssm",
}
# Triton comes with CUDA builds of torch, llvmlite with numba.
BROUGHT = {"triton", "llvmlite"}


def name_of(requirement: str) -> str:
    """The distribution of a requirement, such as numpy of numpy>=2.2."""
    match = re.match(r"[\w.-]+", requirement)
    assert match
    return match[0]


def imported_packages(*scripts: str) -> set[str]:
    """The foreign imports of all modules that a script imports, also inside functions."""
    fingerprints, names = Fingerprints(ROOT), set[str]()
    for path in {module for script in scripts for module in fingerprints.modules(Path(script))}:
        for node in ast.walk(ast.parse((ROOT / path).read_text())):
            if isinstance(node, ast.Import):
                names.update(alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.partition(".")[0])
    names -= sys.stdlib_module_names | {"vmunet", "__future__"}
    return {DISTRIBUTIONS.get(name, name) for name in names - BROUGHT}


def test_the_dependencies_are_the_imports_of_the_library_s_commands():
    scripts = [f"vmunet/commands/{name}.py" for name in cli.COMMANDS]
    used = imported_packages(*scripts, "vmunet/inference/predictor.py")
    project = PROJECT["project"]
    extras = project["optional-dependencies"]
    optional = (entry for name in ("serve", "volumes", "mamba") for entry in extras[name])
    declared = [*project["dependencies"], *optional]
    assert used == {name_of(entry) for entry in declared}


def test_the_wheel_holds_only_the_library():
    find = PROJECT["tool"]["setuptools"]["packages"]["find"]
    packages = find_packages(str(ROOT), include=find["include"])
    assert {package.partition(".")[0] for package in packages} == {"vmunet"}
    folders = {path.parent for path in (ROOT / "vmunet").rglob("*.py")}
    assert {".".join(folder.relative_to(ROOT).parts) for folder in folders} == set(packages)
    assert PROJECT["tool"]["setuptools"]["package-data"] == {
        "vmunet": ["py.typed", "serving/page/*"]
    }
    assert (ROOT / "vmunet" / "py.typed").is_file()


def test_the_commands_of_a_clone_are_named_in_a_wheel(monkeypatch, capsys):
    assert set(cli.PIPELINE) | set(cli.COMMANDS) == set(COMMANDS)
    monkeypatch.setattr(cli, "in_clone", lambda: False)
    assert cli.main(["sweep", "--tables", "3"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: vmunet sweep is a command of the pipeline")
    assert "clone" in line
    assert "pip install -e '.[pipeline]'" in line
    with pytest.raises(SystemExit) as ended:
        cli.main(["--help"])
    assert ended.value.code == 0
    assert "sweep" in capsys.readouterr().out


def test_a_missing_package_is_one_line_and_a_missing_module_of_ours_is_a_mistake():
    raised = ModuleNotFoundError("No module named 'prefect'", name="prefect.client")
    assert "the package prefect is not installed" in cli.missing(raised)
    with pytest.raises(ModuleNotFoundError):
        cli.missing(ModuleNotFoundError("No module named 'vmunet.x'", name="vmunet.x"))


def test_predict_needs_nothing_of_the_pipeline_in_a_clone():
    """Without DVC, MLflow and the others, `vmunet predict` and `vmunet export` still answer."""
    extra = PROJECT["project"]["optional-dependencies"]["pipeline"]
    names = {name_of(entry) for entry in extra} | {"PIL", "ruamel"}
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({sorted(names)}))\n"  # None: not found
        "from vmunet.cli import main\n"
        "assert main(['predict', 'no.safetensors', 'x.png', '--out', 'x']) == 2\n"
        "assert main(['export', 'no.safetensors', '--out', 'x']) == 2\n"
        "sys.exit(main(['runs']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    first, second, third = done.stderr.splitlines()
    assert "no.safetensors" in first
    assert "no.safetensors" in second
    assert re.fullmatch(r"error: the package \w+ is not installed; run pip install .*", third)
    assert done.returncode == 2


TRIAL = """
import sys, vmunet
from vmunet import VMUNet, Predictor
import numpy as np
from vmunet.weights.checkpoints import save_checkpoint
facts = {"normalisation": "minmax", "size": 64, "protocol": "paper"}
save_checkpoint("weights.safetensors", VMUNet(dims=(8, 16, 32, 64)), facts)
image = np.random.default_rng(0).integers(0, 256, (45, 77, 3), dtype=np.uint8)
assert Predictor.from_checkpoint("weights.safetensors")(image).labels.shape == (45, 77)
import cv2
cv2.imwrite("photo.png", image)
"""


@pytest.mark.slow
def test_a_wheel_in_a_fresh_environment(tmp_path):
    """Needs a package index: builds the wheel, installs it and uses it outside the clone."""
    venv.create(tmp_path / "venv", with_pip=True)
    python, vmunet = (tmp_path / "venv" / "bin" / name for name in ("python", "vmunet"))
    outside = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def run(*command: str | Path, status: int = 0) -> str:
        words = list(map(str, command))
        done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=outside)
        assert done.returncode == status, done.stderr
        return done.stdout + done.stderr

    # a copy, because setuptools builds in the folder itself
    source = tmp_path / "source"
    names = "git ls-files -z --cached --others --exclude-standard"
    copy = f"{names} | xargs -0 cp --parents -t {source}"
    source.mkdir()
    subprocess.run(copy, shell=True, check=True, cwd=ROOT)
    run(python, "-m", "pip", "wheel", "-q", "--no-deps", "-w", "wheels", source)
    (wheel,) = (tmp_path / "wheels").iterdir()
    tops = {name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"vmunet"}
    versions = tmp_path / "versions.txt"  # without hashes, which pip would ask of the wheel too
    versions.write_text(without_hashes(LOCK, ("",)))
    run(python, "-m", "pip", "install", "-q", "-c", versions, wheel)

    run(python, "-c", TRIAL)
    assert "1 image" in run(vmunet, "predict", "weights.safetensors", "photo.png", "--out", "masks")
    assert (tmp_path / "masks" / "photo_mask.png").is_file()
    exported = run(vmunet, "export", "weights.safetensors", "--out", "model.onnx", status=2)
    assert "pip install 'vmunet[export]'" in exported
    assert "is a command of the pipeline" in run(vmunet, "sweep", status=2)
    assert run(vmunet, "version").startswith("vmunet 0.")
    loaded = run(python, "-c", "import sys, vmunet; vmunet.VMUNet; print(*sys.modules)").split()
    assert not {"numba", "cv2", "scipy", "nibabel", "safetensors"} & set(loaded)
    places = run(python, "-c", "import vmunet, sysconfig; print(sysconfig.get_path('purelib'))")
    installed = {path.name for path in Path(places.strip()).iterdir()}
    assert not installed & {"pipeline", "stages", "reports", "tests", "benchmarks"}
