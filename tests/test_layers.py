"""The laws between the layers, and the time of imports."""

import re
import subprocess
import sys
from pathlib import Path

from pipeline.config.params import read_yaml
from pipeline.provenance import versions
from tests.helpers.paths import ROOT


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_import_contracts() -> None:
    command = [Path(sys.executable).parent / "lint-imports", "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


REPORT = ("tables", "pictures", "pictures_volumes", "figures", "page", "pdf")


def keys_in(content: object) -> set[str]:
    """All keys of nested mappings."""
    if not isinstance(content, dict):
        return set()
    return set(content).union(*map(keys_in, content.values()))


def test_no_parameter_hides_a_key_that_the_run_cache_ignores() -> None:
    """DVC's run-cache ignores a key `size` or `nfiles` within a parameter's value."""
    params = read_yaml(ROOT / "params.yaml")
    params["own"] |= {kind: {"any": {"size": 32}} for kind in ("images", "volumes")}
    profiles = [read_yaml(path) for path in sorted((ROOT / "profiles").glob("*.yaml"))]
    checked = 0
    for name, stage in read_yaml(ROOT / "dvc.yaml")["stages"].items():
        listed = stage.get("do", stage).get("params", [])
        of_params = {entry for entry in listed if isinstance(entry, str)}
        of_profile = [
            key for entry in listed if isinstance(entry, dict) for v in entry.values() for key in v
        ]
        # own_split runs always, the report whenever the metrics of the sizes are others
        if name in ("own_split", "own_volume_split", *REPORT):
            continue
        for path in of_params:
            value: object = params
            for part in re.split(r"\.(?![^{]*})", path):
                assert isinstance(value, dict), f"{name}: {path}"
                value = next(iter(value.values())) if part.startswith("${") else value[part]
            hidden = keys_in(value) & {"size", "nfiles"}
            checked += len(hidden)
            assert {f"{path}.{key}" for key in hidden} <= of_params, f"{name}: {path}"
        for profile in profiles:
            for key in of_profile:
                section = profile.get(key.split(".")[0])
                assert not keys_in(section) & {"size", "nfiles"}, f"{name}: {key}"
    assert checked == 5  # the views of the grid, for speed once more, and of `own`


def test_versions_name_what_augments_images_and_slices() -> None:
    assert {"torch", "albumentations", "scipy"} <= versions().keys()


def test_importing_vmunet_brings_nothing_but_torch_and_numpy() -> None:
    heavy = {
        "numba",
        "triton",
        "albumentations",
        "medpy",
        "mlflow",
        "dvc",
        "cv2",
        "pandas",
        "scipy",
    }
    code = f"import sys; from vmunet import VMUNet; print({heavy} & set(sys.modules))"
    assert python(code) == "set()"


def test_no_project_module_takes_the_lazy_name() -> None:
    """`from vmunet import VMUNet` hides the model from the list of a stage's dependencies."""
    lazy = re.compile(r"^\s*from vmunet import .*VMUNet", re.MULTILINE)
    for package in ("vmunet", "pipeline", "stages"):
        for path in (ROOT / package).rglob("*.py"):
            if path != ROOT / "vmunet" / "__init__.py":
                assert not lazy.search(path.read_text()), path
