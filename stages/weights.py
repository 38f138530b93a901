"""Initial weights (Table III): the published VMamba v0, or a short pre-training on phantoms.

Writes data/weights/: vmamba-t.safetensors and vmamba-s.safetensors in VMamba v0's names, and
manifest.json that says where they came from. A profile with `weights: {source: none}` gets the
manifest alone.
"""

import argparse
from pathlib import Path

from pipeline.params import Profile, load_params
from pipeline.provenance import write_json
from pipeline.stage import run_stage
from vmunet.data.files import whole_folder

FOLDER = Path("data/weights")


def main(argv: list[str] | None = None) -> None:
    argparse.ArgumentParser(prog="python -m stages.weights", description=__doc__).parse_args(argv)
    params = load_params()
    source = params.profile.weights
    files: dict[str, dict[str, object]] = {}
    with whole_folder(FOLDER) as part:
        if source.source == "phantom":
            files = pretrain_on_phantoms(part, params.profile)
        elif source.source == "http":
            files = download_published(part)
        write_json(part / "manifest.json", {"source": source.source, "files": files})


def pretrain_on_phantoms(folder: Path, profile: Profile) -> dict[str, dict[str, object]]:
    """Two small classifiers that tell which of a phantom's attributes are present."""
    import numpy as np
    import torch
    from safetensors.torch import save_file
    from torch import Tensor

    from vmunet.data.phantom import phantom
    from vmunet.data.resize import min_max
    from vmunet.pretraining import VMAMBA_DEPTHS, pretrain
    from vmunet.processor import use_processor

    use_processor(profile.threads)
    steps, size, dims = profile.weights.steps, profile.weights.size, profile.train.dims

    def batch(step: int, count: int = 8) -> tuple[Tensor, Tensor]:
        made = [phantom(2024, step * count + i, size, size) for i in range(count)]
        images = np.stack([min_max(p.image) for p in made]).transpose(0, 3, 1, 2)
        labels = [[float(value) for _, value in sorted(p.attributes.items())] for p in made]
        return torch.from_numpy(np.ascontiguousarray(images)), torch.tensor(labels)

    files: dict[str, dict[str, object]] = {}
    for name, depths in VMAMBA_DEPTHS.items():
        model = pretrain(depths, dims, batch, steps, seed=0, label=f"pre-train {name}")
        save_file(model.state_dict(), folder / f"{name}.safetensors")
        files[name] = {"made": f"{steps} steps on phantoms at {size} px", "dims": list(dims)}
    return files


def download_published(folder: Path) -> dict[str, dict[str, object]]:
    """VMamba-T and -S v0, from the publisher, converted once from pickle to safetensors."""
    from safetensors.torch import save_file

    from vmunet.checkpoints import read_tensors
    from vmunet.data.download import fetch
    from vmunet.initial_weights import VMAMBA_V0

    files: dict[str, dict[str, object]] = {}
    for name, (url, sha256) in VMAMBA_V0.items():
        path = Path("data/downloads/weights") / url.rsplit("/", 1)[1]
        digest = fetch(url, path, sha256)
        tensors, _ = read_tensors(path)
        tensors = {key: t.contiguous() for key, t in tensors.items()}
        save_file(tensors, folder / f"{name}.safetensors")
        files[name] = {"url": url, "sha256": digest}
    return files


if __name__ == "__main__":
    run_stage(main)
