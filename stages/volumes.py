"""DVC stage: write the CT volumes of a view from their source to data/arrays/<view>/.

It also writes a report for people about their content to reports/out/volumes/<view>/.

The source is the active profile's: phantoms, the raw volumes (source: file in a folder, source:
synapse from synapse.org with the token in SYNAPSE_AUTH_TOKEN) or the prepared slices and volumes
(source: prepared). The folder is the profile's path:, or synapse/ in $VMUNET_MIRROR.
"""

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

from pipeline.config.params import PhantomVolumes, SynapseSource, load_params
from pipeline.stage import run_stage
from stages.common.volume_report import write_report
from vmunet.data.phantom.ct import write_btcv
from vmunet.data.synapse.client import from_synapse
from vmunet.data.synapse.official import CLASSES, TEST, TRAIN, TRAIN_SLICES, WINDOW
from vmunet.data.synapse.prepared import prepared_cases
from vmunet.data.synapse.raw import raw_cases
from vmunet.data.volumes import write_volumes
from vmunet.errors import InputError


def main(argv: list[str] | None = None) -> None:
    """Write data/arrays/VIEW/."""
    parser = argparse.ArgumentParser(prog="python -m stages.volumes", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("view", help="a view of params.yaml's grid.volumes, such as synapse-224")
    name = parser.parse_args(argv).view
    params = load_params()
    if name not in params.grid.volumes:
        known = ", ".join(params.grid.volumes) or "none"
        raise InputError(f"{name!r} is not in params.yaml's grid.volumes; it has {known}")
    view, arrays = params.grid.volumes[name], Path("data/arrays") / name
    manifest = provide(params.profile.volumes[view.dataset], arrays, view.size)
    log(manifest)
    write_report(arrays, manifest, Path("reports/out/volumes") / name)


def provide(source: PhantomVolumes | SynapseSource, target: Path, size: int) -> dict[str, Any]:
    """Write the arrays of Synapse, or of its phantoms, and return their manifest.

    The voxels do not depend on `size`, px. The manifest contains it, so that DVC trains again for
    another size.
    """
    facts = {
        "view": target.name,
        "size": size,
        "dataset": "synapse",
        "source": source.source,
        "window": list(WINDOW),
    }
    if isinstance(source, PhantomVolumes):
        numbers = [int(name.removeprefix("case")) for name in (*TRAIN, *TEST)]
        with tempfile.TemporaryDirectory() as temporary:
            low, high = source.slices
            write_btcv(Path(temporary), numbers, source.side, (low, high), source.seed)
            return write_volumes(target, facts, CLASSES, *raw_cases(Path(temporary)))
    if source.source == "synapse":
        folder = from_synapse(Path("data/downloads/synapse"))
    else:
        folder = local_folder(source.path, os.environ.get("VMUNET_MIRROR"))
    cases = prepared_cases(folder) if source.source == "prepared" else raw_cases(folder)
    return write_volumes(target, facts, CLASSES, *cases, slices=TRAIN_SLICES)


def local_folder(path: str | None, mirror: str | None) -> Path:
    """Synapse's folder: the profile's, or the one in VMUNET_MIRROR if the profile names none.

    Raises:
        InputError: neither is given, or the folder does not exist.
    """
    if path is None and not mirror:
        raise InputError(
            "synapse: the profile names no path: for its source, and VMUNET_MIRROR is not set; "
            "name the folder that holds RawData/ or train_npz/ and test_vol_h5/"
        )
    folder = Path(path).expanduser() if path else Path(str(mirror)) / "synapse"
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; it should hold Synapse's volumes")
    return folder


def log(manifest: dict[str, Any]) -> None:
    """Print a line for each case: slices, spacing, every organ's voxels."""
    classes = manifest["classes"]
    widths = [max(8, len(name)) for name in classes]
    heads = "  ".join(f"{name:>{w}}" for name, w in zip(classes, widths, strict=True))
    print(f"{'case':9}{'part':6}{'slices':>6}{'mm (z, y, x)':>20}  {heads}")
    for name, case in manifest["cases"].items():
        part = "train" if name in manifest["train"] else "test"
        spacing = "unknown"
        if case["spacing"]:
            spacing = " ".join(f"{mm:.2f}" for mm in case["spacing"])
        counts = "  ".join(
            f"{case['voxels'][organ]:>{w}}" for organ, w in zip(classes, widths, strict=True)
        )
        print(f"{name:9}{part:6}{case['shape'][0]:>6}{spacing:>20}  {counts}")
    print(f"{manifest['train_slices']} training and {manifest['test_slices']} test slices")


if __name__ == "__main__":
    run_stage(main)
