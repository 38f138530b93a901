"""DVC stage: for each cell the files that it starts from, on which its training depends.

    python -m stages.initial

So a file that is added to data/weights/ later runs again only the cells that start from it.

Reads  params.yaml: the cells; data/weights/.
Writes data/initial/<cell>.json: the SHA-256 of each file of the cell's initial weights, by name;
       null if it is not there, {} if the cell starts at random.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from pipeline.config.initial import initial_paths
from pipeline.config.params import load_params
from pipeline.provenance import write_json
from pipeline.stage import run_stage
from vmunet.data.archives import sha256_of
from vmunet.files import whole_folder

FOLDER = Path("data/initial")


def main(argv: Sequence[str] | None = None) -> None:
    """Write the records."""
    parser = argparse.ArgumentParser(prog="python -m stages.initial", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.parse_args(argv)
    with whole_folder(FOLDER) as part:
        for name, cell in load_params().cells.items():
            paths = initial_paths(cell)
            sums = {key: sha256_of(path) if path.is_file() else None for key, path in paths.items()}
            write_json(part / f"{name}.json", sums)


if __name__ == "__main__":
    run_stage(main)
