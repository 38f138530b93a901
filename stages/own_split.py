"""DVC stage: pair and split the files of your own dataset, and write data/own/<name>.csv.

It reads only file names and the CSV, which is quick. It runs at every `dvc repro`, so it notices a
changed CSV, which DVC does not watch. The stages after it run only if its output has changed.
"""

import argparse
from pathlib import Path

from pipeline.config.own import OwnVolumes
from pipeline.config.params import load_params
from pipeline.stage import run_stage
from vmunet.data.own.files import pair_images, pair_volumes
from vmunet.data.own.split import assign, write_samples
from vmunet.errors import InputError


def main(argv: list[str] | None = None) -> None:
    """Write data/own/NAME.csv."""
    parser = argparse.ArgumentParser(prog="python -m stages.own_split", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("name", help="a dataset of params.yaml's own")
    name = parser.parse_args(argv).name
    datasets = load_params().own.datasets
    if name not in datasets:
        known = ", ".join(datasets) or "none"
        raise InputError(f"{name!r} is not in params.yaml's own; it has {known}")
    data = datasets[name]
    pair = pair_volumes if isinstance(data, OwnVolumes) else pair_images
    pairs = pair(Path(data.images), Path(data.masks))
    table = Path(data.split.csv) if data.split.csv else None
    samples = assign(pairs, data.split.test, table)
    write_samples(Path("data/own") / f"{name}.csv", samples)
    for part in ("train", "test"):
        of_part = [sample for sample in samples if sample.part == part]
        patients = {sample.patient for sample in of_part} - {""}
        print(f"{name}: {len(of_part)} {part}" + (f", {len(patients)} patients" * bool(patients)))


if __name__ == "__main__":
    run_stage(main)
