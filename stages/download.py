"""DVC stage: write data/raw/<dataset>/ from the official archives or their replacement.

VMUNET_MIRROR is a folder with the layout of data/downloads; it may also hold the prepared set.
VMUNET_MIRROR_URLS lists addresses with the same layout, which are tried before the publisher.
"""

import argparse
import os
from pathlib import Path

from pipeline.config.params import load_params
from pipeline.stage import run_stage
from vmunet.data.download import Internet, locked, mirror_urls
from vmunet.data.isic.official import dataset_named
from vmunet.data.isic.raw import Phantoms, write_raw
from vmunet.errors import InputError


def main(argv: list[str] | None = None) -> None:
    """Read the profile's source for DATASET and write data/raw/DATASET/."""
    parser = argparse.ArgumentParser(prog="python -m stages.download", description=__doc__)
    parser.add_argument("dataset", help="isic17 or isic18")
    dataset = dataset_named(parser.parse_args(argv).dataset)
    params = load_params()
    if dataset.name not in params.profile.data:
        raise InputError(
            f"profile {params.profile_name!r} names no source for {dataset.name}; "
            f"add it under data: in profiles/{params.profile_name}.yaml"
        )
    data = params.profile.data[dataset.name]
    phantoms = n_train = prepared = None
    if data.source == "phantom":
        phantoms = Phantoms(data.training, data.validation, data.n_train, data.seed)
    if data.source == "sample":
        n_train = data.n_train
    if data.source == "prepared" and data.path:
        prepared = Path(data.path).expanduser()
    with locked(Path(f"data/.{dataset.name}.lock"), dataset.name):
        write_raw(
            dataset,
            target=Path("data/raw") / dataset.name,
            source=data.source,
            internet=Internet(mirrors=mirror_urls(os.environ.get("VMUNET_MIRROR_URLS"))),
            mirror=os.environ.get("VMUNET_MIRROR"),
            phantoms=phantoms,
            n_train=n_train,
            prepared=prepared,
        )


if __name__ == "__main__":
    run_stage(main)
