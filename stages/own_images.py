"""DVC stage: write data/arrays/<name>/<protocol>/ from your own images and masks."""

import argparse
from pathlib import Path

from pipeline.config.params import load_params
from pipeline.stage import run_stage
from vmunet.classes import classes_of
from vmunet.data.own.images import write_own_images
from vmunet.data.own.split import read_samples
from vmunet.errors import InputError
from vmunet.protocols import PROTOCOLS


def main(argv: list[str] | None = None) -> None:
    """Write data/arrays/NAME/ for every protocol of own.protocols."""
    parser = argparse.ArgumentParser(prog="python -m stages.own_images", description=__doc__)
    parser.add_argument("name", help="a dataset of params.yaml's own.images")
    name = parser.parse_args(argv).name
    own = load_params().own
    if name not in own.images:
        known = ", ".join(own.images) or "none"
        raise InputError(f"{name!r} is not in params.yaml's own.images; it has {known}")
    classes = classes_of({"classes": own.images[name].classes}, f"own.images.{name}")
    train, test = read_samples(Path("data/own") / f"{name}.csv")
    manifest = write_own_images(
        Path("data/arrays") / name,
        name,
        train,
        test,
        classes,
        own.images[name].size,
        [PROTOCOLS[protocol] for protocol in own.protocols],
    )
    print(f"{name}: {len(train)} training and {len(test)} test images")
    for label in manifest["classes"]:
        shown = {part: manifest["images_with"][part][label] for part in ("train", "test")}
        print(f"{label}: in {shown['train']} training and {shown['test']} test images")


if __name__ == "__main__":
    run_stage(main)
