"""Test images that the page offers to try, if the clone has those of the weights' own dataset."""

import json
from pathlib import Path

from vmunet.data.images import is_image
from vmunet.inference.ensemble import find_weights

MOST = 6


def find_examples(weights: Path, raw: Path = Path("data/raw")) -> list[Path]:
    """A few test images of the dataset that a run was trained on, spread over its test split.

    Args:
        weights: as for `vmunet predict`. A run's folder holds run.json, which names the dataset.
        raw: the folder of the prepared datasets (`vmunet.data.isic.raw`).

    Returns:
        At most MOST files; none if the weights are no run's, or its dataset is not in `raw`.
    """
    record = find_weights(weights)[0].with_name("run.json")
    try:
        folder = raw / json.loads(record.read_text())["run"]["dataset"]
        ids = json.loads((folder / "manifest.json").read_text())["test"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    by_id = {path.stem: path for path in (folder / "images").glob("*") if is_image(path)}
    files = [by_id[name] for name in ids if name in by_id]
    return files[:: max(1, len(files) // MOST)][:MOST]
