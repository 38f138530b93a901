"""From the four archives, or the authors' prepared set, to one folder of checked pairs.

data/raw/<dataset>/images/<id>.<jpg|png>   8-bit RGB when read by `images.read_rgb`
data/raw/<dataset>/masks/<id>.png          8-bit, 0 and 255; of a prepared set levels of gray too
data/raw/<dataset>/manifest.json           source, archives, counts, sizes, the split's ids
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

from vmunet.data.archives import extract
from vmunet.data.download import Internet, Provided, from_internet, from_mirror, provided
from vmunet.data.images import CONVERSIONS, is_soft, read_mask, read_rgb
from vmunet.data.isic.official import (
    Gathered,
    IsicDataset,
    Listing,
    Pair,
    check_counts,
    list_files,
    pair_up,
    split,
)
from vmunet.data.isic.prepared import find_prepared, from_prepared
from vmunet.data.isic.sample import from_sample
from vmunet.data.orientation import orientation_of, upright_pair
from vmunet.errors import InputError
from vmunet.files import whole_folder
from vmunet.threads import in_threads


@dataclass(frozen=True)
class Phantoms:
    """The numbers of phantoms that replace a dataset, how many of them train, and their seed."""

    training: int
    validation: int
    n_train: int
    seed: int


@dataclass(frozen=True)
class _CheckedPair:
    width: int
    height: int
    conversions: list[str]
    mask_rewritten: bool
    mask_empty: bool
    mask_soft: bool


def write_raw(
    dataset: IsicDataset,
    target: Path,
    source: str,
    internet: Internet | None = None,
    mirror: str | None = None,
    phantoms: Phantoms | None = None,
    n_train: int | None = None,
    prepared: Path | None = None,
) -> None:
    """Get the images, check every pair, and write `target`.

    Args:
        dataset: one of the two challenges.
        target: data/raw/<dataset>, written completely or not at all.
        source: `phantom`, `sample` (of ISIC 2017, in the clone), `file` (archives in `mirror`),
            `http` (archives through `internet`) or `prepared` (the authors' 7:3 set).
        internet: how archives are downloaded, and the folder for them.
        mirror: the value of VMUNET_MIRROR.
        phantoms: for the source `phantom`.
        n_train: for the source `sample`: how many of its training ids train.
        prepared: the prepared set's zip or folder, if it is not in `mirror`.

    Raises:
        InputError: an archive, a file or a count is wrong; `target` is unchanged.
    """
    with whole_folder(target) as folder:
        unpacked = folder / "unpacked"
        if source == "phantom":
            archives = _make_phantoms(dataset, folder / "archives", phantoms)
            n_train = phantoms.n_train if phantoms else None
            gathered = from_archives(dataset, archives, unpacked, n_train)
        elif source == "sample":
            gathered = from_archives(dataset, from_sample(dataset), unpacked, n_train)
        elif source == "file":
            gathered = from_archives(dataset, from_mirror(dataset, mirror), unpacked)
        elif source == "http":
            archives = from_internet(dataset, internet or Internet())
            gathered = from_archives(dataset, archives, unpacked)
        elif source == "prepared":
            gathered = from_prepared(dataset, find_prepared(prepared, mirror), unpacked)
        else:
            raise InputError(
                f"{dataset.name}: source {source!r}; expected phantom, sample, file, http or "
                "prepared"
            )
        facts = {"dataset": dataset.name, "source": source, **take_in(dataset, gathered, folder)}
        for name in ("archives", "unpacked"):
            shutil.rmtree(folder / name, ignore_errors=True)
        (folder / "manifest.json").write_text(json.dumps(facts, indent=1) + "\n")


def _make_phantoms(dataset: IsicDataset, folder: Path, phantoms: Phantoms | None) -> list[Provided]:
    from vmunet.data.phantom.lesions import write_archives

    if phantoms is None:
        raise InputError(
            f"{dataset.name}: the source 'phantom' needs training, validation, n_train and seed"
        )
    folder.mkdir()
    write_archives(folder, dataset.name, phantoms.training, phantoms.validation, phantoms.seed)
    return [provided(archive, folder / archive.name) for archive in dataset.archives]


def from_archives(
    dataset: IsicDataset, archives: list[Provided], unpacked: Path, n_train: int | None = None
) -> Gathered:
    """Unpack the four archives, pair their files, and split by the rule.

    Args:
        n_train: how many training ids train; None for the official archives, whose counts are then
            checked.
    """
    listings: dict[tuple[str, str], Listing] = {}
    for item in archives:
        place = unpacked / item.archive.folder
        extract(item.path, place)
        listings[item.archive.part, item.archive.kind] = list_files(place, item.archive.kind)
    training, validation = (
        pair_up(listings[part, "images"].files, listings[part, "masks"].files)
        for part in ("training", "validation")
    )
    if n_train is None:
        check_counts(dataset, len(training), len(validation))
        n_train = dataset.n_train
    train, test = split([p.id for p in training], [p.id for p in validation], n_train)
    about: list[dict[str, str | int]] = [
        {"name": a.archive.name, "sha256": a.sha256, "bytes": a.bytes} for a in archives
    ]
    return Gathered(training, validation, train, test, list(listings.values()), about)


def take_in(dataset: IsicDataset, gathered: Gathered, folder: Path) -> dict[str, Any]:
    """Check every pair and move it into `folder`; return the manifest's facts."""
    for name in ("images", "masks"):
        (folder / name).mkdir()
    checked = in_threads(
        lambda pair: _take_in(pair, folder, gathered.soft),
        gathered.training + gathered.validation,
        f"checking {dataset.name}",
    )
    soft = sum(c.mask_soft for c in checked)
    return {
        "n_training": len(gathered.training),
        "n_validation": len(gathered.validation),
        "n_train": len(gathered.train),
        "n_test": len(gathered.test),
        "native_min": [min(c.width for c in checked), min(c.height for c in checked)],
        "native_max": [max(c.width for c in checked), max(c.height for c in checked)],
        "empty_masks": sum(c.mask_empty for c in checked),
        "masks_rewritten": sum(c.mask_rewritten for c in checked),
        **({"soft_masks": soft} if soft else {}),
        "converted": {name: sum(name in c.conversions for c in checked) for name in CONVERSIONS},
        "passed_over": {
            "superpixels": sum(listing.superpixels for listing in gathered.listings),
            "other": sum(listing.other for listing in gathered.listings),
        },
        "archives": gathered.archives,
        "train": gathered.train,
        "test": gathered.test,
    }


def _take_in(pair: Pair, folder: Path, soft: bool) -> _CheckedPair:
    """Check one pair and move it to its place; it is rewritten as PNG only if it must be."""
    image, conversions = read_rgb(pair.image)
    mask, mask_rewritten = read_mask(pair.mask, soft)
    is_turned = orientation_of(pair.image) != 1
    image, mask = upright_pair(pair.image, pair.mask, image, mask)
    if image.shape[:2] != mask.shape:
        raise InputError(
            f"{pair.image.name} is {image.shape[1]}x{image.shape[0]} pixels but "
            f"{pair.mask.name} is {mask.shape[1]}x{mask.shape[0]}; "
            "a mask must have its image's size"
        )
    if conversions or is_turned:
        _write_png(folder / "images" / f"{pair.id}.png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    else:
        suffix = ".png" if pair.image.suffix.lower() == ".png" else ".jpg"
        os.replace(pair.image, folder / "images" / f"{pair.id}{suffix}")
    if mask_rewritten or is_turned:
        _write_png(folder / "masks" / f"{pair.id}.png", mask)
    else:
        os.replace(pair.mask, folder / "masks" / f"{pair.id}.png")
    height, width = mask.shape
    empty, is_gray = not mask.any(), is_soft(mask)
    return _CheckedPair(width, height, conversions, mask_rewritten, empty, is_gray)


def _write_png(path: Path, pixels: Any) -> None:
    path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
