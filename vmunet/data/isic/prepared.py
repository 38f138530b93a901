"""The authors' prepared ISIC sets: images and masks already split 7:3 into folders.

A zip or a folder, as the published code's README describes it:

isic2017/{train,val}/images/<id>.png
isic2017/{train,val}/masks/<id>_segmentation.png     or <id>.png
isic2018/...                                          the same

The folders are the split: train/ trains, and the paper tests on val/. The published code divides a
mask by 255 whatever it holds, so masks may be levels of gray: soft targets, and truth at >= 0.5.
"""

import hashlib
import shutil
from pathlib import Path

from vmunet.data.archives import extract, sha256_of
from vmunet.data.isic.official import (
    Gathered,
    IsicDataset,
    Kind,
    Listing,
    image_id,
    list_files,
    pair_up,
    split,
)
from vmunet.errors import InputError

PARTS = ("train", "val")
KINDS: tuple[Kind, Kind] = ("images", "masks")
NAMES = {"isic17": ("isic2017", "isic17"), "isic18": ("isic2018", "isic18")}


def find_prepared(path: Path | None, mirror: str | None) -> Path:
    """The prepared set: `path`, or `<mirror>/prepared.zip` or `<mirror>/prepared/` if it is None.

    Args:
        path: the path in the profile, None if it names none.
        mirror: the value of VMUNET_MIRROR, None if it is not set.

    Raises:
        InputError: there is no prepared set.
    """
    places = [Path(mirror) / name for name in ("prepared.zip", "prepared")] if mirror else []
    if path is not None:
        places = [path]
    for place in places:
        if place.exists():
            return place
    searched = " and ".join(map(str, places)) or "VMUNET_MIRROR, which is not set"
    raise InputError(
        f"the prepared set is not there (looked for {searched}); name its zip or folder as path: "
        "beside source: prepared in the profile, or put it into VMUNET_MIRROR as prepared.zip"
    )


def prepared_mask_id(name: str) -> str | None:
    """The id in a mask's file name, `<id>_segmentation.png` or `<id>.png`."""
    stem = image_id(name)
    return stem.removesuffix("_segmentation") if stem else None


def from_prepared(dataset: IsicDataset, source: Path, unpacked: Path) -> Gathered:
    """Unpack or copy one dataset of the prepared set, and pair its files.

    Args:
        dataset: one of the two datasets of the set.
        source: the zip or folder; it is not changed.
        unpacked: the folder for the files of the set.

    Raises:
        InputError: the zip is bad, the folders are not there, a file has no partner, an id is in
            both parts, or the counts are not the paper's.
    """
    root = source
    if not source.is_dir():
        root = unpacked / "zip"
        extract(source, root)
    home = _home(dataset, root, source)
    for part in PARTS:
        for kind in KINDS:
            if not (home / part / kind).is_dir():
                raise InputError(
                    f"{source}: {home.name}/{part}/{kind}/ is not in it; the prepared set has "
                    "train/ and val/, each with images/ and masks/"
                )
    if source.is_dir():
        home = Path(shutil.copytree(home, unpacked / home.name))  # later steps move the files
        about = _hash_folder(source, home)  # of the copy, in which links are files
    else:
        about = {
            "name": source.name,
            "sha256": sha256_of(source),
            "bytes": source.stat().st_size,
        }
    listings: dict[tuple[str, str], Listing] = {}
    for part in PARTS:
        listings[part, "images"] = list_files(home / part / "images", "images")
        listings[part, "masks"] = list_files(home / part / "masks", "masks", prepared_mask_id)
    training, validation = (
        pair_up(listings[part, "images"].files, listings[part, "masks"].files) for part in PARTS
    )
    counts = zip(PARTS, (training, validation), (dataset.n_train, dataset.n_test), strict=True)
    for part, pairs, expected in counts:
        if len(pairs) != expected:
            raise InputError(
                f"{source}: {home.name}/{part} holds {len(pairs)} pairs, expected {expected}; take "
                f"the authors' prepared set of {dataset.title}, or the official archives"
            )
    train, test = split([p.id for p in training], [p.id for p in validation], len(training))
    return Gathered(training, validation, train, test, list(listings.values()), [about], soft=True)


def _home(dataset: IsicDataset, root: Path, source: Path) -> Path:
    """The dataset's folder in the set, at the top or one level below."""
    names = NAMES[dataset.name]
    inner = sorted(path for path in root.iterdir() if path.is_dir() and path.name != "__MACOSX")
    homes = [base / name for base in (root, *inner) for name in names if (base / name).is_dir()]
    if len(homes) != 1:
        seen = ", ".join(path.name for path in inner) or "no folder"
        raise InputError(
            f"{source}: expected one folder {names[0]}/ in it, with train/ and val/, but found "
            f"{len(homes)} (it holds {seen})"
        )
    return homes[0]


def _hash_folder(source: Path, home: Path) -> dict[str, str | int]:
    """One SHA-256 over the names and contents of a dataset's files, and their bytes."""
    files = sorted(path for path in home.rglob("*") if path.is_file())
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        digest.update(f"{content}  {path.relative_to(home).as_posix()}\n".encode())
    total = sum(path.stat().st_size for path in files)
    return {"name": f"{source.name}/{home.name}", "sha256": digest.hexdigest(), "bytes": total}
