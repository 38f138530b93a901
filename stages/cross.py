"""DVC stage: score the runs of one dataset on another dataset's test images.

    python -m stages.cross isic17-to-isic18

NAME is one of params.yaml's grid.cross: {train: view, test: view}. The stage scores the main
cell's runs (base, or the first of grid.ablations) on the train view under each of their protocols,
with all seeds. It leaves out test images that the training dataset also contains, in its train or
its test part (`vmunet.measure.shared_images`). Ids are not compared if one of the datasets consists
of phantoms.

Reads  runs/<train view>/<cell>/<protocol>/<seed>/{weights.safetensors,run.json},
       data/arrays/<train view>/<protocol>/ and data/arrays/<test view>/<protocol>/.
Writes metrics/<profile>/cross/<NAME>/: metrics.json (the scores of both protocols for each run),
       per_image.csv (a row for each run and image). If every test image is shared, `tested` is 0,
       the scores are null and the table has no rows.
"""

import argparse
import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pipeline.config.params import CROSS, Params, known, load_params
from pipeline.config.runs import Run
from pipeline.stage import run_stage
from stages.common.scoring import heading, read_run
from vmunet.csv_cells import UnixLines, to_row
from vmunet.data.arrays import load_manifest
from vmunet.errors import InputError
from vmunet.evaluation.images import (
    TestImages,
    load_test_images,
    predict_probabilities,
    score_probabilities,
)
from vmunet.evaluation.metrics import PER_IMAGE, POOLED
from vmunet.files import whole_folder
from vmunet.measure.shared_images import Shared, shared_images
from vmunet.training.processor import use_processor
from vmunet.weights.checkpoints import load_checkpoint

ARRAYS = Path("data/arrays")
PHANTOM = "phantom"

UNDEFINED: dict[str, Any] = dict.fromkeys(POOLED)
MEANS: dict[str, Any] = dict.fromkeys(
    [*(f"mean_{name}" for name in PER_IMAGE), "thresholded_jaccard"]
)
NO_SCORES = {  # the scores if no test image remains
    "paper": UNDEFINED,
    "sound": {
        name: {**UNDEFINED, **MEANS, "images": 0} for name in ("training_size", "native_size")
    },
}


def main(argv: Sequence[str] | None = None) -> None:
    """Score the runs of NAME and write its folder."""
    parser = argparse.ArgumentParser(prog="python -m stages.cross", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "name", help="an entry of params.yaml's grid.cross, such as isic17-to-isic18"
    )
    name, params = parser.parse_args(argv).name, load_params()
    if name not in params.grid.cross:
        raise InputError(
            f"params.yaml: grid.cross has no {name!r}; "
            + (known(params.grid.cross) if params.grid.cross else "it is empty")
        )
    cross(name, params)


def cross(name: str, params: Params) -> None:
    """Score and write metrics/<profile>/cross/<name>/, completely or not at all.

    Raises:
        InputError: runs or arrays are missing, broken, or do not match.
    """
    use_processor(params.profile.threads)
    crossing = params.grid.cross[name]
    runs = [Run(*run) for run in params.grid.main_runs(crossing.train)]
    protocols = list(dict.fromkeys(run.protocol for run in runs))
    manifests = [load_manifest(ARRAYS / v / protocols[0]) for v in (crossing.train, crossing.test)]
    sources = [manifest["source"] for manifest in manifests]
    shared_by_protocol = [
        shared_images(
            ARRAYS / crossing.test / protocol,
            ARRAYS / crossing.train / protocol,
            same_ids=PHANTOM not in sources,
        )
        for protocol in protocols
    ]
    shared = Shared(
        *(
            sorted({name for part in shared_by_protocol for name in getattr(part, kind)})
            for kind in ("by_id", "by_picture")
        )
    )
    left_out = sorted({*shared.by_id, *shared.by_picture})
    tests = {
        protocol: without(load_test_images(ARRAYS / crossing.test / protocol), left_out)
        for protocol in protocols
    }
    if len({tuple(test.ids) for test in tests.values()}) > 1:
        raise InputError(
            f"{ARRAYS / crossing.test}: the arrays of {' and '.join(protocols)} do not hold the "
            "same test images; run the preprocess stage again"
        )
    scores: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    for run in runs:
        label = f"{run.cell}-{run.protocol}-{run.seed}"
        scores[label], image_rows = score(run, tests[run.protocol], params)
        rows += [{"run": label, **row} for row in image_rows]
    content = {
        "train": crossing.train,
        "test": crossing.test,
        "sources": dict(zip(("train", "test"), sources, strict=True)),
        "tested": len(tests[protocols[0]].ids),
        "shared": left_out,
        "shared_by": {"id": len(shared.by_id), "picture": len(shared.by_picture)},
        "runs": scores,
    }
    folder = Path("metrics", params.profile_name, CROSS, name)
    with whole_folder(folder) as part:
        with (part / "per_image.csv").open("w", newline="") as file:
            writer = csv.DictWriter(UnixLines(file), rows[0] if rows else ["run", "id"])
            writer.writeheader()
            writer.writerows(map(to_row, rows))
        (part / "metrics.json").write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
    print(
        f"{name}: {len(runs)} runs on {content['tested']} images, {len(left_out)} left out as "
        f"shared; written to {folder}"
    )


def without(test: TestImages, left_out: Sequence[str]) -> TestImages:
    """The test images that are not left out."""
    removed = set(left_out)
    kept = [i for i, name in enumerate(test.ids) if name not in removed]
    return replace(test, ids=[test.ids[i] for i in kept], images=test.images[kept])


def score(
    run: Run, test: TestImages, params: Params
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The run's entry in metrics.json, and its rows of per_image.csv.

    Raises:
        InputError: the run is missing, or was trained at another size than that of the images.
    """
    provenance, weights = read_run(run.folder), run.folder / "weights.safetensors"
    checkpoint = heading(run, params, {}, provenance)["checkpoint"]
    if not test.ids:
        return {**NO_SCORES, "checkpoint": checkpoint}, []
    model, metadata = load_checkpoint(weights)
    if metadata["size"] != test.size:
        raise InputError(
            f"{weights} was trained at {metadata['size']} px and the test images have "
            f"{test.size} px; train the run again"
        )
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    settings = params.profile.evaluate
    probabilities = predict_probabilities(model, test.images, settings.batch_size)
    scored = score_probabilities(probabilities, test, resamples=settings.bootstrap)
    entry = {"paper": scored.paper, "sound": scored.sound, "checkpoint": checkpoint}
    return entry, scored.per_image


if __name__ == "__main__":
    run_stage(main)
