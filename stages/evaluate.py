"""Score one trained run on its view's test images.

    python -m stages.evaluate isic17-256 base paper 42

Reads  runs/<view>/<cell>/<protocol>/<seed>/{weights.safetensors,run.json} and
       data/arrays/<view>/<protocol>/.
Writes metrics/<profile>/<view>/<cell>/<protocol>/<seed>/: metrics.json (the scores of both
       protocols, with what they were measured on and from), per_image.csv, contact_sheet.png.
"""

import argparse
import csv
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.grid import Run
from pipeline.params import Params, load_params
from pipeline.stage import run_stage
from pipeline.tracking import FinalScores
from vmunet import contact_sheet
from vmunet.checkpoints import load_checkpoint
from vmunet.data.arrays import load_manifest
from vmunet.data.files import whole_folder
from vmunet.errors import InputError
from vmunet.evaluation import Scored, foreground, load_test_images, score_run
from vmunet.processor import use_processor
from vmunet.protocols import PROTOCOLS

FROM_RUN = ("epoch", "mlflow_run_id", "data_hash", "code_hash", "git")


def main(argv: Sequence[str] | None = None) -> None:
    """Parse VIEW CELL PROTOCOL SEED and score that run."""
    parser = argparse.ArgumentParser(prog="python -m stages.evaluate", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("view", help="dataset and size, such as isic17-256")
    parser.add_argument("cell", help="a cell of params.yaml, such as base")
    parser.add_argument("protocol", choices=sorted(PROTOCOLS))
    parser.add_argument("seed", type=int)
    args = parser.parse_args(argv)
    evaluate(Run(args.view, args.cell, args.protocol, args.seed), load_params())


def evaluate(run: Run, params: Params) -> None:
    """Score `run` and write its metrics folder.

    Raises:
        InputError: the run or its arrays are missing, broken, or do not belong together.
    """
    view = params.view(run.view)
    weights, provenance = run.folder / "weights.safetensors", _read_run(run.folder)
    arrays = Path("data/arrays") / run.view / run.protocol
    model, metadata = load_checkpoint(weights)
    manifest = load_manifest(arrays)
    if metadata["size"] != manifest["size"]:
        raise InputError(
            f"{weights} was trained at {metadata['size']} px and {arrays} holds "
            f"{manifest['size']} px; train the run again"
        )
    tracker = FinalScores()
    settings = params.profile.evaluate
    use_processor(params.profile.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    scored = score_run(
        model.to(device), arrays, batch_size=settings.batch_size, resamples=settings.bootstrap
    )
    metrics = {
        "run": {
            "profile": params.profile_name,
            "view": run.view,
            "dataset": view.dataset,
            "size": view.size,
            "cell": run.cell,
            "protocol": run.protocol,
            "seed": run.seed,
        },
        "data": manifest,
        "checkpoint": {
            "path": weights.as_posix(),
            "sha256": _sha256(weights),
            **{name: provenance.get(name) for name in FROM_RUN},
        },
        "paper": scored.paper,
        "sound": scored.sound,
    }
    folder = run.metrics_folder(params.profile_name)
    sheet = _draw_sheet(scored, arrays, metrics)
    _write_folder(folder, metrics, scored.per_image, sheet)
    tracker.log(provenance, metrics, [folder / "contact_sheet.png"])


def _read_run(folder: Path) -> dict[str, Any]:
    path = folder / "run.json"
    if not path.is_file() or not (folder / "weights.safetensors").is_file():
        raise InputError(
            f"{folder}: no trained run there (weights.safetensors and run.json); train it first "
            "with the train stage of the same name"
        )
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: not JSON ({error}); train the run again") from None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _draw_sheet(scored: Scored, arrays: Path, metrics: dict[str, Any]) -> contact_sheet.Pixels:
    test = load_test_images(arrays)
    run, data = metrics["run"], metrics["data"]
    title = (
        f"{run['view']} {run['cell']} {run['protocol']} seed {run['seed']}   profile "
        f"{run['profile']}   data: {data['source']}, {len(test.ids)} test images   "
        f"mean Dice {scored.sound['training_size']['mean_dice']:.3f}"
    )
    dice = np.array([row["training_size_dice"] for row in scored.per_image])
    prediction = foreground(scored.probabilities)
    return contact_sheet.draw(test.images, scored.truth, prediction, test.ids, dice, title)


def _write_folder(
    folder: Path,
    metrics: dict[str, Any],
    per_image: list[dict[str, Any]],
    sheet: contact_sheet.Pixels,
) -> None:
    with whole_folder(folder) as part:
        contact_sheet.write(part / "contact_sheet.png", sheet)
        with (part / "per_image.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, per_image[0].keys(), lineterminator="\n")
            writer.writeheader()
            writer.writerows(per_image)
        (part / "metrics.json").write_text(json.dumps(metrics, indent=2, allow_nan=False) + "\n")


if __name__ == "__main__":
    run_stage(main)
