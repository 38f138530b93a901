"""The ImageNet weights that the stage `weights` reads: by path, by address, or from the mirror."""

import os
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pipeline.config.params import IMAGENET
from pipeline.config.sources import ImagenetSource, WeightsSource
from vmunet.data.archives import sha256_of
from vmunet.data.download import Internet, Wanted, fetch_all, mirror_urls
from vmunet.errors import InputError
from vmunet.weights.imagenet.files import FILES

Facts = dict[str, object]  # what manifest.json says of a file
SUFFIXES = (".pth", ".npz", ".safetensors")


def imagenet_files(folder: Path, weights: WeightsSource, downloads: Path) -> dict[str, Facts]:
    """Write the profile's files as safetensors to `folder`/imagenet/; return their facts.

    Raises:
        InputError: a file is missing, cannot be downloaded, has another checksum, or is not the one
            that the profile names.
    """
    from vmunet.weights.imagenet.read import check_is, read_published

    files: dict[str, Facts] = {}
    for name, (path, sha256) in located(weights, downloads).items():
        tensors, taken = read_published(path)
        check_is(name, tensors, path)
        source = weights.imagenet[name]
        url = {"url": source.place} if source.is_address else {}
        files |= written(folder, name, tensors, url | facts(path, sha256, taken))
    if weights.source == "file":
        files |= from_mirror(folder, Path(os.environ["VMUNET_MIRROR"]), weights)
    return files


def located(weights: WeightsSource, downloads: Path) -> dict[str, tuple[Path, str]]:
    """The path and SHA-256 of each file that the profile names; addresses are downloaded."""
    sources = weights.imagenet
    wanted = {name: address(source) for name, source in sources.items() if source.is_address}
    internet = Internet(downloads, mirror_urls(os.environ.get("VMUNET_MIRROR_URLS")))
    sums = dict(zip(wanted, fetch_all(list(wanted.values()), internet), strict=True))
    files: dict[str, tuple[Path, str]] = {}
    for name, source in sources.items():
        if source.is_address:
            path = downloads / wanted[name].place
        else:
            path = Path(source.place).expanduser()
            if not path.is_file():
                raise InputError(
                    f"{path}: no such file; weights.imagenet.{name} of the profile names it: put "
                    f"{FILES[name].file} there"
                )
        sha256 = sums.get(name) or sha256_of(path)
        if not sha256.startswith(source.sha256 or ""):
            raise InputError(
                f"{path}: its sha256 is {sha256}, weights.imagenet.{name} expects {source.sha256}"
            )
        files[name] = path, sha256
    return files


def address(source: ImagenetSource) -> Wanted:
    """What to download for a source that is an address."""
    name = unquote(urlsplit(source.place).path).rpartition("/")[2]
    digits = source.sha256 or ""
    whole = len(digits) == 64
    return Wanted(
        source.place,
        f"weights/{IMAGENET}/{name}",
        sha256=digits if whole else None,
        begins="" if whole else digits,
    )


def from_mirror(folder: Path, mirror: Path, weights: WeightsSource) -> dict[str, Facts]:
    """Write those in the mirror's weights/imagenet/ that the profile does not name.

    Their tensors, not their names, say which they are.
    """
    from vmunet.weights.imagenet.read import read_published, recognise

    files: dict[str, Facts] = {}
    for path in sorted((mirror / "weights" / IMAGENET).glob("*")):
        if path.suffix not in SUFFIXES:
            continue
        tensors, taken = read_published(path)
        name = recognise(tensors)
        if name is None:
            known = ", ".join(published.file for published in FILES.values())
            raise InputError(f"{path}: is none of {known}; take it away")
        if key(name) in files:
            beside = files[key(name)]["file"]
            raise InputError(f"{path}: is {name}, and so is {beside}; keep one of the two")
        if name not in weights.imagenet:
            files |= written(folder, name, tensors, facts(path, sha256_of(path), taken))
    return files


def facts(path: Path, sha256: str, taken: str) -> Facts:
    """What is known of a file; `taken` is the key of its state dict."""
    return {"file": path.name, "sha256": sha256, "state_dict": taken or "the file itself"}


def written(folder: Path, name: str, tensors: dict[str, Any], about: Facts) -> dict[str, Facts]:
    """Write the tensors to `folder`, and return the file's entry in manifest.json."""
    from vmunet.weights.checkpoints import write_tensors

    target = folder / IMAGENET / f"{name}.safetensors"
    target.parent.mkdir(exist_ok=True)
    write_tensors(target, {label: t.contiguous() for label, t in tensors.items()})
    models = list(FILES[name].models)
    print(f"{name} from {about['file']}: {len(tensors)} tensors, for {', '.join(models)}")
    return {key(name): about | {"tensors": len(tensors), "models": models}}


def key(name: str) -> str:
    """A file's name in manifest.json."""
    return f"{IMAGENET}/{name}"
