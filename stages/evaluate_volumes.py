"""Score one trained run on its view's test volumes.

    python -m stages.evaluate_volumes synapse-224 base paper 42

With --medpy it compares every Dice and HD95 with medpy's own, and writes nothing.

Reads  runs/<view>/<cell>/<protocol>/<seed>/{weights.safetensors,run.json} and
       data/arrays/<view>/.
Writes metrics/<profile>/<view>/<cell>/<protocol>/<seed>/: metrics.json (the scores of both
       conventions, with their data and checkpoint), per_case.csv, contact_sheet.png,
       predictions.npz (labels).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from pipeline.config.params import Params, load_params
from pipeline.config.runs import Run, parse_scoring
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
from vmunet.data.arrays import load_manifest
from vmunet.data.slice_dataset import open_case
from vmunet.drawing.sheets.organs import draw_cases
from vmunet.errors import InputError
from vmunet.evaluation.against_medpy import compare_with_medpy
from vmunet.evaluation.stored import write_labels
from vmunet.evaluation.volumes import score_volumes
from vmunet.protocols import PROTOCOLS
from vmunet.training.processor import use_processor
from vmunet.weights.checkpoints import load_checkpoint


def main(argv: Sequence[str] | None = None) -> None:
    """Parse VIEW CELL PROTOCOL SEED and score that run."""
    run, medpy = parse_scoring(argv, "evaluate_volumes", __doc__)
    evaluate(run, load_params(), medpy)


def evaluate(run: Run, params: Params, medpy: bool = False) -> None:
    """Score `run` and write its metrics folder; with `medpy`, compare with medpy instead.

    Raises:
        InputError: the run or its arrays are missing or broken, or the run was trained on another
            size or other classes.
    """
    weights, provenance = run.folder / "weights.safetensors", read_run(run.folder)
    arrays = Path("data/arrays") / run.view
    manifest = load_manifest(arrays)
    model, metadata = load_checkpoint(weights)
    for name, unit in (("size", " px"), ("classes", "")):
        if metadata[name] != manifest[name]:
            raise InputError(
                f"{weights} was trained with the {name} {metadata[name]}{unit} and {arrays} is for "
                f"{manifest[name]}{unit}; train the run again"
            )
    use_processor(params.profile.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    scored = score_volumes(
        model.to(device),
        arrays,
        manifest,
        metadata["size"],
        PROTOCOLS[run.protocol].slice_resize,
        params.profile.evaluate.batch_size,
        metadata.get("patch"),  # of a model of three dimensions
    )
    if medpy:
        cases = {case: manifest["cases"][case]["spacing"] for case in manifest["test"]}
        truths = {case: np.asarray(open_case(arrays, case)[1]) for case in cases}
        count, largest = compare_with_medpy(
            scored.rows, manifest["classes"], scored.predictions, truths, cases
        )
        print(f"{count} organs in {len(cases)} volumes: at most {largest:.3g} from medpy's scores")
        return
    data = {key: value for key, value in manifest.items() if key not in ("cases", "patients")}
    metrics = {
        **heading(run, params, data, provenance),
        "history": read_history(run.folder),
        "paper": scored.paper,
        "sound": scored.sound,
    }
    count, mean = len(manifest["test"]), scored.sound["dice"]
    title = headline(run, params, manifest, count, "volume", mean)
    sheet = draw_cases(arrays, manifest, manifest["test"], title, scored.predictions)
    folder = run.metrics_folder(params.profile_name)
    write_metrics(
        folder,
        metrics,
        "per_case.csv",
        scored.rows,
        sheet,
        lambda path: write_labels(path, scored.predictions),
    )
    sheets = [folder / "contact_sheet.png"]
    tables, source = tables_of(run, params), params.profile.weights.source
    log_scores(run.folder, provenance, tables, metrics, sheets, source)
    print(f"{title}\nwritten to {folder}")


if __name__ == "__main__":
    run_stage(main)
