"""nnU-Net beside this project's models: export a view for it, and score what it predicts.

    python -m stages.nnunet export isic17-256
    python -m stages.nnunet score isic17-256 [--trainer nnUNetTrainer_5epochs]

`vmunet nnunet` runs both; DVC runs neither. The scores are those of stages.evaluate and
stages.evaluate_volumes, of label maps: nnU-Net's probabilities are not read.

Reads  data/arrays/<view>/, .nnunet/<view>/.
Writes .nnunet/<view>/raw/; metrics/<profile>/<view>/nnunet/: metrics.json, per_image.csv or
       per_case.csv, contact_sheet.png, predictions.npz.
"""

import argparse
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config.nnunet import TRAINER, Place, arrays_of, metrics_folder, of_volumes
from pipeline.config.params import Params, load_params
from pipeline.stage import run_stage
from stages.common.scoring import write_metrics
from stages.evaluate import draw_sheet, write_predictions
from stages.train_volumes import training_cases
from vmunet.classes import channels_of, classes_of
from vmunet.data.arrays import load_manifest
from vmunet.data.nnunet import (
    IMAGE,
    VOLUME,
    check_complete,
    check_exported,
    export_images,
    export_volumes,
    read_image_prediction,
    read_volume_prediction,
)
from vmunet.drawing.sheets.organs import draw_cases
from vmunet.errors import InputError
from vmunet.evaluation.classes import ScoredClasses, score_class_batches
from vmunet.evaluation.images import Scored, load_test_images, score_probabilities
from vmunet.evaluation.stored import write_labels
from vmunet.evaluation.volumes import score_cases


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the action and the view, and do it."""
    parser = argparse.ArgumentParser(prog="python -m stages.nnunet", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("action", choices=["export", "score"])
    parser.add_argument("view", help="a view of params.yaml, or your own dataset")
    parser.add_argument("--trainer", default=TRAINER, help="nnU-Net's class that trained")
    arguments = parser.parse_args(argv)
    place, params = Place(arguments.view, arguments.trainer), load_params()
    if arguments.action == "export":
        export(place, params)
    else:
        score(place, params)


def export(place: Place, params: Params) -> None:
    """Write the view in nnU-Net's raw format.

    Raises:
        InputError: the arrays are missing or broken, or an earlier export of other arrays was
            already used.
    """
    volumes, arrays = of_volumes(place.view, params), arrays_of(place.view, params)
    manifest = load_manifest(arrays)
    if place.preprocessed.is_dir():
        try:
            check_exported(place.dataset, manifest)
        except InputError as error:
            raise InputError(
                f"{error}; before that, remove {place.root}, made from these"
            ) from None
    if volumes:
        export_volumes(arrays, place.dataset, manifest, training_cases(manifest))
    else:
        classes = classes_of(manifest, arrays / "manifest.json")
        export_images(arrays, place.dataset, manifest, classes)
    print(f"{arrays} written to {place.dataset}")


def score(place: Place, params: Params) -> None:
    """Score nnU-Net's predictions and write the view's metrics folder.

    Raises:
        InputError: a prediction is missing, of another size, of another image or has other labels;
            the model is missing; the arrays have changed since the export.
    """
    view, arrays = params.view(place.view), arrays_of(place.view, params)
    manifest = load_manifest(arrays)
    check_exported(place.dataset, manifest)
    if not place.checkpoint.is_file():
        raise InputError(f"{place.checkpoint}: no such file; run `vmunet nnunet train` first")
    with place.checkpoint.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    metrics: dict[str, Any] = {
        "run": {
            "profile": params.profile_name,
            "view": place.view,
            "dataset": view.dataset,
            "size": view.size,
            "model": "nnU-Net 2D",
            "trainer": place.trainer,
        },
        "data": {key: manifest[key] for key in manifest if key not in ("cases", "patients")},
        "checkpoint": {"path": place.checkpoint.as_posix(), "sha256": sha256},
    }
    scored = (_volumes if of_volumes(place.view, params) else _images)(
        place, arrays, manifest, params, metrics
    )
    print(f"{scored}\nwritten to {_folder(place, params)}")


def _images(
    place: Place, arrays: Path, manifest: dict[str, Any], params: Params, metrics: dict[str, Any]
) -> str:
    test, classes = load_test_images(arrays), classes_of(manifest, arrays / "manifest.json")
    check_complete(place.predictions, test.ids, IMAGE)
    labels = np.stack(
        [
            read_image_prediction(place.predictions / f"{name}{IMAGE}", test.size, len(classes))
            for name in test.ids
        ]
    )
    resamples = params.profile.evaluate.bootstrap
    scored: Scored | ScoredClasses
    if len(classes) == 1:
        scored = score_probabilities(labels.astype(np.float32), test, resamples=resamples)
    else:
        # a label map as certain probabilities, (1, classes + 1, size, size) for each image
        planes = np.arange(channels_of(classes))[:, None, None]
        each = ((i, (label == planes)[None].astype(np.float32)) for i, label in enumerate(labels))
        scored = score_class_batches(each, test, classes, resamples=resamples)
    # a label map says nothing about calibration
    sound = {name: value for name, value in scored.sound.items() if name != "calibration"}
    title = _title(place, params, manifest, sound["training_size"]["mean_dice"])
    write_metrics(
        _folder(place, params),
        metrics | {"paper": scored.paper, "sound": sound},
        "per_image.csv",
        scored.per_image,
        draw_sheet(scored, arrays, title, classes),
        lambda path: write_predictions(path, scored, arrays),
    )
    return title


def _volumes(
    place: Place, arrays: Path, manifest: dict[str, Any], params: Params, metrics: dict[str, Any]
) -> str:
    cases, images = manifest["test"], place.dataset / "imagesTs"
    check_complete(place.predictions, cases, VOLUME)

    def predict(case: str) -> NDArray[np.uint8]:
        path, exported = place.predictions / f"{case}{VOLUME}", images / f"{case}_0000{VOLUME}"
        return read_volume_prediction(path, exported, len(manifest["classes"]))

    scored = score_cases(predict, arrays, manifest)
    title = _title(place, params, manifest, scored.sound["dice"])
    write_metrics(
        _folder(place, params),
        metrics | {"paper": scored.paper, "sound": scored.sound},
        "per_case.csv",
        scored.rows,
        draw_cases(arrays, manifest, cases, title, scored.predictions),
        lambda path: write_labels(path, scored.predictions),
    )
    return title


def _folder(place: Place, params: Params) -> Path:
    own = place.view in params.own.datasets
    return metrics_folder(place.view, params.profile_name, own)


def _title(place: Place, params: Params, manifest: dict[str, Any], mean: float | None) -> str:
    return (
        f"{place.view} nnU-Net 2D {place.trainer}   profile {params.profile_name}   "
        f"data: {manifest['source']}, {manifest['n_test']} test   "
        f"mean Dice {'undefined' if mean is None else f'{mean:.3f}'}"
    )


if __name__ == "__main__":
    run_stage(main)
