"""DVC stage: a fingerprint of each stage's code, and of each cell's model, on which stages depend.

    python -m stages.code

Writes .fingerprints/<stage>, a hash for each script in stages/, .fingerprints/models/<cell> for
each cell of params.yaml, and .fingerprints/inits, each cell's model and `init`. It always runs, in
about a second; a stage runs again only if its own hashes have changed (see `pipeline.fingerprint`).
"""

from pathlib import Path

from pipeline.config.params import load_params
from pipeline.fingerprint import write_fingerprints
from pipeline.provenance import write_json
from pipeline.stage import run_stage
from vmunet.models import file_of


def main() -> None:
    """Write the fingerprints."""
    cells = load_params().cells
    write_fingerprints(Path(), {name: file_of(cell.model) for name, cell in cells.items()})
    inits = {name: {"model": cell.model, "init": cell.init} for name, cell in cells.items()}
    write_json(Path(".fingerprints/inits"), inits)


if __name__ == "__main__":
    run_stage(main)
