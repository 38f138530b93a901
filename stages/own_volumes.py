"""DVC stage: write data/arrays/<name>/ from your own NIfTI volumes and label maps.

It also writes a report for people about their content to reports/out/volumes/<name>/.
"""

import argparse
from pathlib import Path
from typing import Any

from pipeline.config.params import load_params
from pipeline.stage import run_stage
from stages.common.volume_report import write_report
from vmunet.classes import classes_of
from vmunet.data.own.split import read_samples
from vmunet.data.own.volumes import own_cases
from vmunet.data.volumes import write_volumes
from vmunet.errors import InputError


def main(argv: list[str] | None = None) -> None:
    """Write data/arrays/NAME/."""
    parser = argparse.ArgumentParser(prog="python -m stages.own_volumes", description=__doc__)
    parser.add_argument("name", help="a dataset of params.yaml's own.volumes")
    name = parser.parse_args(argv).name
    volumes = load_params().own.volumes
    if name not in volumes:
        known = ", ".join(volumes) or "none"
        raise InputError(f"{name!r} is not in params.yaml's own.volumes; it has {known}")
    data = volumes[name]
    classes = classes_of({"classes": data.classes}, f"own.volumes.{name}")
    parts = read_samples(Path("data/own") / f"{name}.csv")
    patients = {sample.id: sample.patient for part in parts for sample in part}
    facts: dict[str, Any] = {
        "view": name,
        "size": data.size,  # of the training slices, so that DVC trains again for another size
        "dataset": name,
        "source": "own",
        "window": data.window,
        "patients": patients if all(patients.values()) else None,
    }
    train, test = (own_cases(part, len(classes), data.window) for part in parts)
    arrays = Path("data/arrays") / name
    manifest = write_volumes(arrays, facts, classes, train, test)
    write_report(arrays, manifest, Path("reports/out/volumes") / name)
    print(
        f"{name}: {manifest['train_slices']} training slices of {manifest['n_train']} cases, "
        f"{manifest['test_slices']} test slices of {manifest['n_test']}"
    )
    for label, cases in manifest["absent"].items():
        print(f"{label}: absent from {cases} cases")


if __name__ == "__main__":
    run_stage(main)
