"""Score one trained run on its view's test images.

    python -m stages.evaluate isic17-256 base paper 42

Reads  runs/<view>/<cell>/<protocol>/<seed>/{weights.safetensors,run.json} and
       data/arrays/<view>/<protocol>/.
Writes metrics/<profile>/<view>/<cell>/<protocol>/<seed>/: metrics.json (the scores of both
       protocols, with their data and checkpoint), per_image.csv (with several classes
       a row for each image and class; with one class also what may make an image hard, and
       whether it is trained on too), contact_sheet.png, predictions.npz (masks, or labels).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.config.params import Params, load_params
from pipeline.config.runs import Run, parse_run
from pipeline.stage import run_stage
from pipeline.tracking.scores import log_scores
from pipeline.tracking.table_names import tables_of
from stages.common.scoring import (
    heading,
    headline,
    read_history,
    read_run,
    write_metrics,
)
from vmunet.classes import classes_of
from vmunet.data.arrays import load_manifest
from vmunet.drawing.sheets.classes import draw as draw_classes
from vmunet.drawing.sheets.images import Pixels
from vmunet.drawing.sheets.images import draw as draw_images
from vmunet.errors import InputError
from vmunet.evaluation.classes import ScoredClasses, score_class_run
from vmunet.evaluation.image_columns import image_columns
from vmunet.evaluation.images import Scored, foreground, load_test_images, score_run
from vmunet.evaluation.stored import write_labels, write_masks
from vmunet.training.processor import use_processor
from vmunet.weights.checkpoints import load_checkpoint


def main(argv: Sequence[str] | None = None) -> None:
    """Parse VIEW CELL PROTOCOL SEED and score that run."""
    evaluate(parse_run(argv, "evaluate", __doc__), load_params())


def evaluate(run: Run, params: Params) -> None:
    """Score `run` and write its metrics folder.

    Raises:
        InputError: the run or its arrays are missing or broken, or the run was trained on other
            sizes or classes.
    """
    weights, provenance = run.folder / "weights.safetensors", read_run(run.folder)
    arrays = Path("data/arrays") / run.view / run.protocol
    model, metadata = load_checkpoint(weights)
    manifest = load_manifest(arrays)
    if metadata["size"] != manifest["size"]:
        raise InputError(
            f"{weights} was trained at {metadata['size']} px and {arrays} holds "
            f"{manifest['size']} px; train the run again"
        )
    classes = classes_of(manifest, arrays / "manifest.json")
    if (trained := classes_of(metadata, weights)) != classes:
        raise InputError(
            f"{weights} was trained for the classes {', '.join(trained)} and {arrays} holds "
            f"{', '.join(classes)}; train the run again"
        )
    settings = params.profile.evaluate
    use_processor(params.profile.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)
    budget = {"batch_size": settings.batch_size, "resamples": settings.bootstrap}
    scored: Scored | ScoredClasses
    if len(classes) == 1:
        scored = score_run(model, arrays, **budget)
    else:
        scored = score_class_run(model, arrays, classes, **budget)
    metrics = {
        **heading(run, params, manifest, provenance),
        "history": read_history(run.folder),
        "paper": scored.paper,
        "sound": scored.sound,
    }
    folder = run.metrics_folder(params.profile_name)
    mean = scored.sound["training_size"]["mean_dice"]
    title = headline(run, params, manifest, len(scored.truth), "image", mean)
    sheet = draw_sheet(scored, arrays, title, classes)
    write_metrics(
        folder,
        metrics,
        "per_image.csv",
        _rows(scored, arrays),
        sheet,
        lambda path: write_predictions(path, scored, arrays),
    )
    sheets = [folder / "contact_sheet.png"]
    tables, source = tables_of(run, params), params.profile.weights.source
    log_scores(run.folder, provenance, tables, metrics, sheets, source)
    print(f"{title}\nwritten to {folder}")


def draw_sheet(
    scored: Scored | ScoredClasses, arrays: Path, title: str, classes: Sequence[str]
) -> Pixels:
    test = load_test_images(arrays)
    if isinstance(scored, ScoredClasses):
        return draw_classes(
            test.images, scored.truth, scored.prediction, classes, test.ids, scored.dice, title
        )
    dice = np.array([row["training_size_dice"] for row in scored.per_image])
    prediction = foreground(scored.probabilities)
    return draw_images(test.images, scored.truth, prediction, test.ids, dice, title)


def _rows(scored: Scored | ScoredClasses, arrays: Path) -> list[dict[str, Any]]:
    """The rows of per_image.csv; those of a lesion tell of the image too, at their end."""
    if isinstance(scored, ScoredClasses):
        return scored.per_image
    columns = image_columns(arrays, load_test_images(arrays).images, scored.truth)
    return [row | more for row, more in zip(scored.per_image, columns, strict=True)]


def write_predictions(path: Path, scored: Scored | ScoredClasses, arrays: Path) -> None:
    ids = load_test_images(arrays).ids
    if isinstance(scored, ScoredClasses):
        write_labels(path, dict(zip(ids, scored.prediction, strict=True)))
    else:
        write_masks(path, ids, foreground(scored.probabilities), scored.truth)


if __name__ == "__main__":
    run_stage(main)
