"""DVC stage: initial weights: published VMamba v0 (Table III) or a short training on phantoms, and
ImageNet weights of other models.

Writes data/weights/: vmamba-t.safetensors and vmamba-s.safetensors with VMamba v0's names,
imagenet/<name>.safetensors with the published names for each file of `weights.imagenet`, and
manifest.json with their sources and, for published VMamba weights, the tensors that they fill in
VM-UNet. A profile with `weights: {source: none}` and no `imagenet` gets only the manifest.
"""

import argparse
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from pipeline.config.params import Profile, load_params
from pipeline.provenance import write_json
from pipeline.stage import run_stage
from stages.common.imagenet import imagenet_files
from vmunet.data.download import Internet, Wanted, fetch_all, locked, mirror_urls
from vmunet.errors import InputError
from vmunet.files import whole_folder
from vmunet.settings import TrainSettings

FOLDER = Path("data/weights")
DOWNLOADS = Path("data/downloads")


def main(argv: list[str] | None = None) -> None:
    argparse.ArgumentParser(prog="python -m stages.weights", description=__doc__).parse_args(argv)
    params = load_params()
    source = params.profile.weights
    files: dict[str, dict[str, object]] = {}
    with locked(Path("data/.weights.lock"), "weights"), whole_folder(FOLDER) as part:
        if source.source == "phantom":
            files = pretrain_on_phantoms(part, params.profile)
        elif source.source == "http":
            files = download_published(part, params.profile.train)
        elif source.source == "file":
            files = files_of_mirror(part, params.profile.train)
        files |= imagenet_files(part, source, DOWNLOADS)
        write_json(part / "manifest.json", {"source": source.source, "files": files})


def pretrain_on_phantoms(folder: Path, profile: Profile) -> dict[str, dict[str, object]]:
    """Train two small classifiers that recognise which attributes a phantom has."""
    import numpy as np
    import torch
    from torch import Tensor

    from vmunet.data.phantom.lesions import phantom
    from vmunet.data.resize import min_max
    from vmunet.training.processor import use_processor
    from vmunet.weights.checkpoints import write_tensors
    from vmunet.weights.pretraining import VMAMBA_DEPTHS, pretrain

    use_processor(profile.threads)
    steps, size = profile.weights.steps, profile.weights.side
    dims, states = profile.train.dims, profile.train.states

    def batch(step: int, count: int = 8) -> tuple[Tensor, Tensor]:
        phantoms = [phantom(2024, step * count + i, size, size) for i in range(count)]
        images = np.stack([min_max(p.image) for p in phantoms]).transpose(0, 3, 1, 2)
        labels = [[float(value) for _, value in sorted(p.attributes.items())] for p in phantoms]
        return torch.from_numpy(np.ascontiguousarray(images)), torch.tensor(labels)

    files: dict[str, dict[str, object]] = {}
    for name, depths in VMAMBA_DEPTHS.items():
        model = pretrain(depths, dims, states, batch, steps, seed=0, label=f"pre-train {name}")
        write_tensors(folder / f"{name}.safetensors", model.state_dict())
        files[name] = {"made": f"{steps} steps on phantoms at {size} px", "dims": list(dims)}
        files[name]["states"] = states
    return files


def download_published(folder: Path, model: TrainSettings) -> dict[str, dict[str, object]]:
    """Download VMamba-T and -S v0 from the publisher or a mirror, and convert them."""
    from vmunet.weights.initial import VMAMBA_V0

    wanted = [
        Wanted(url, f"weights/{url.rsplit('/', 1)[1]}", sha256)
        for url, sha256 in VMAMBA_V0.values()
    ]
    mirrors = mirror_urls(os.environ.get("VMUNET_MIRROR_URLS"))
    internet = Internet(DOWNLOADS, mirrors)
    sums = fetch_all(wanted, internet)
    paths = [DOWNLOADS / item.place for item in wanted]
    files = convert_all(folder, dict(zip(paths, sums, strict=True)), model)
    urls = {item.place.rsplit("/", 1)[1]: item.url for item in wanted}
    return {name: {"url": urls[str(about["file"])]} | about for name, about in files.items()}


def files_of_mirror(folder: Path, model: TrainSettings) -> dict[str, dict[str, object]]:
    """Convert VMamba-T and -S v0, or one of them, from $VMUNET_MIRROR/weights/*.pth."""
    from vmunet.data.archives import sha256_of

    mirror = os.environ.get("VMUNET_MIRROR")
    paths = sorted(Path(mirror, "weights").glob("*.pth")) if mirror else []
    if not paths:
        where = f"{mirror}/weights holds no .pth file" if mirror else "VMUNET_MIRROR is not set"
        raise InputError(
            f"weights: source is 'file' but {where}; set VMUNET_MIRROR to a folder that holds "
            "weights/*.pth, the v0 release of VMamba-T and VMamba-S"
        )
    return convert_all(folder, {path: sha256_of(path) for path in paths}, model)


def convert_all(
    folder: Path, sources: Mapping[Path, str], model: TrainSettings
) -> dict[str, dict[str, object]]:
    """Convert published files (with SHA-256) to safetensors in `folder`; return their facts."""
    from vmunet.weights.vmamba import convert, coverage_of, describe

    files: dict[str, dict[str, object]] = {}
    for path, sha256 in sources.items():
        converted = convert(path, sha256, DOWNLOADS / "weights" / "converted")
        if converted.name in files:
            raise InputError(
                f"{path}: is {converted.name}, and so is {files[converted.name]['file']} beside "
                "it; keep one of the two"
            )
        coverage = coverage_of(converted, model.dims, model.states)
        print(describe(converted, coverage))
        shutil.copyfile(converted.path, folder / f"{converted.name}.safetensors")
        files[converted.name] = {
            "file": path.name,
            "sha256": sha256,
            "state_dict": converted.taken or "the file itself",
            "filled": {"encoder": len(coverage.encoder), "decoder": len(coverage.decoder)},
            **asdict(coverage),
        }
    return files


if __name__ == "__main__":
    run_stage(main)
