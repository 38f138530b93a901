"""DVC stage: write a view's arrays, data/arrays/<view>/<protocol>/, from data/raw/<dataset>/."""

import argparse
from pathlib import Path

from pipeline.config.params import load_params
from pipeline.stage import run_stage
from vmunet.data.preprocess import write_arrays
from vmunet.errors import InputError
from vmunet.protocols import PROTOCOLS


def main(argv: list[str] | None = None) -> None:
    """Write data/arrays/VIEW/ for every protocol that the view lists."""
    parser = argparse.ArgumentParser(prog="python -m stages.preprocess", description=__doc__)
    parser.add_argument("view", help="a view of params.yaml, such as isic17-256")
    name = parser.parse_args(argv).view
    views = load_params().grid.views
    if name not in views:
        raise InputError(f"view {name!r} is not in params.yaml; it has {', '.join(views)}")
    view = views[name]
    write_arrays(
        raw=Path("data/raw") / view.dataset,
        target=Path("data/arrays") / name,
        view=name,
        size=view.size,
        protocols=[PROTOCOLS[protocol] for protocol in view.protocols],
    )


if __name__ == "__main__":
    run_stage(main)
