"""The subcommand `vmunet publish`: a run's model as a folder that others can load.

The functions import heavy modules themselves, so that `--help` answers at once.
"""

import argparse
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.config.runs import Run

HELP = "write a run's model as a folder for Hugging Face's hub and for MLflow"
ABOUT = """\
Write a run's model as a folder: model.safetensors, config.json, README.md (the model card with the
run's scores), example.py, and the files with which MLflow loads it. Nothing is sent anywhere. Run
it in the repository's root.

RUN is a run that `vmunet runs` lists, or its folder.
"""
NOTES = """\
examples:
  vmunet publish isic17-64-base-paper-42 --to model
  vmunet publish runs/isic17-64/base/paper/42 --to model

Afterwards:
  python model/example.py photo.jpg
  mlflow models predict -m model --env-manager local -i input.json -o masks.json
  hf upload NAME/MODEL model            (Hugging Face's own program)
"""
NAME = "model.safetensors"
USAGE = """\
```python
from vmunet import Predictor

predictor = Predictor.from_checkpoint("model.safetensors")  # or this folder, or its address
result = predictor("{example}", overlay=True)
result.mask, result.labels, result.overlay
```"""
EXAMPLE = '''\
"""Segment a file with the weights beside this script.

    python example.py {example}

Prints the share that is segmented and writes overlay.png. Needs the package vmunet.
"""

import sys
from pathlib import Path

import cv2

from vmunet import Predictor

predictor = Predictor.from_checkpoint(Path(__file__).parent)
result = predictor(sys.argv[1], overlay=True)
share = result.mask.mean()
print(f"{{', '.join(result.classes)}}: {{share:.1%}} of {{sys.argv[1]}}")
cv2.imwrite("overlay.png", result.overlay[..., ::-1])  # OpenCV wants BGR
'''


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `vmunet publish`."""
    parser.set_defaults(command=publish)
    parser.add_argument("run", metavar="RUN", help="a run's name or folder")
    parser.add_argument(
        "--to", metavar="FOLDER", type=Path, required=True, help="the new folder to write"
    )


def publish(arguments: argparse.Namespace) -> None:
    """Run the subcommand.

    Raises:
        InputError: there is no such trained run, its files are broken, or the folder is not empty.
    """
    from pipeline.tracking.models import hash_of
    from vmunet.errors import InputError
    from vmunet.files import whole_folder

    target: Path = arguments.to
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise InputError(f"{target}: is there already; give the name of a new folder")
    folder, metrics_file = _find(arguments.run)
    record = _read(folder / "run.json")
    weights = folder / "weights.safetensors"
    metrics = _read(metrics_file) if metrics_file.is_file() else None
    if metrics is not None and metrics["checkpoint"].get("sha256") != hash_of(weights):
        raise InputError(
            f"{metrics_file}: scores of other weights than {weights}; score them again"
        )
    with whole_folder(target) as part:
        _write(part, weights, record, metrics)
    scores = "with its scores" if metrics else "without scores: the run has none yet"
    print(f"{target}: {NAME} and its card, {scores}")


def _find(word: str) -> tuple[Path, Path]:
    """The folder of the run, and the place of its metrics.json.

    Raises:
        InputError: params.yaml declares no such run, or it is not trained.
    """
    from pipeline.config.params import load_params
    from pipeline.config.runs import own_runs, runs
    from vmunet.errors import InputError

    params = load_params()
    declared: list[Run] = runs(params) + own_runs(params)
    here = Path(word).resolve()
    for run in declared:
        if word == run.name or here == run.folder.resolve():
            if not (run.folder / "weights.safetensors").is_file():
                raise InputError(
                    f"{run.folder}: no weights.safetensors; train the run first (`vmunet runs` "
                    "lists what is trained)"
                )
            return run.folder, run.metrics_folder(params.profile_name) / "metrics.json"
    raise InputError(f"{word}: no run that params.yaml declares; `vmunet runs` lists them")


def _read(path: Path) -> dict[str, Any]:
    from vmunet.errors import InputError

    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; train the run again") from None
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}); make the run again") from None


def _write(
    part: Path, weights: Path, record: Mapping[str, Any], metrics: Mapping[str, Any] | None
) -> None:
    from pipeline.config.params import load_profile
    from pipeline.config.runs import own_names
    from pipeline.tracking.models import hash_of, write_model
    from reports.make.model_card import model_card, unscored
    from vmunet.weights.checkpoints import load_checkpoint

    model, facts = load_checkpoint(weights)
    run = record["run"]
    profile = load_profile(run["profile"])
    if metrics is None:
        sources: dict[str, str] = {name: one.source for name, one in profile.data.items()}
        sources |= {name: one.source for name, one in profile.volumes.items()}
        source = "own" if run["view"] in own_names() else sources[run["dataset"]]
        metrics = unscored({**record, "sha256": hash_of(weights)}, source, facts)
    _write_mlflow(part, weights, write_model)
    shutil.copyfile(weights, part / NAME)
    config = {"model_type": "vmunet", "architecture": model.config, "run": facts}
    (part / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    example = "ct.nii.gz" if facts["normalisation"] != "minmax" else "photo.jpg"
    (part / "example.py").write_text(EXAMPLE.format(example=example))
    card = model_card(metrics, record, profile.weights.source, USAGE)
    (part / "README.md").write_text(card, encoding="utf-8", newline="\n")


def _write_mlflow(part: Path, weights: Path, write_model: Any) -> None:
    """MLflow's files, which take the weights beside them and name no place on this machine."""
    from mlflow.models import Model

    folder = part / "mlflow"
    write_model(folder, weights)
    shutil.rmtree(folder / "artifacts")
    for file in folder.iterdir():
        file.rename(part / file.name)
    folder.rmdir()
    described = Model.load(str(part))
    flavour = described.flavors["python_function"]
    flavour["artifacts"] = {"weights": {"path": NAME, "uri": NAME}}
    flavour["model_code_path"] = "pyfunc_model.py"
    described.model_size_bytes = (described.model_size_bytes or 0) + weights.stat().st_size
    described.save(str(part / "MLmodel"))
