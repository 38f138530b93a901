"""The official facts of ISIC 2017 and ISIC 2018 (Task 1), and the rules that read them.

Archives, folder names inside them and counts are the challenge's own (challenge.isic-archive.com);
`n_train` is the paper's (section IV-A: 1,500/650 and 1,886/808). The split is by rule, not by
ratio: the sorted training ids' first `n_train` train; the rest and the validation ids test.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from vmunet.errors import InputError

Name = Literal["isic17", "isic18"]
Part = Literal["training", "validation"]
Kind = Literal["images", "masks"]

BASE_URL = "https://isic-challenge-data.s3.amazonaws.com"
MASK_SUFFIX = "_segmentation.png"
SUPERPIXELS_SUFFIX = "_superpixels.png"
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class Archive:
    """One official zip; its files are in a folder with the zip's name.

    Attributes:
        name: file name, ending in .zip.
        url: the address at which it is published.
        part: whether it holds the challenge's training or validation ids.
        kind: photographs or their masks.
        sha256: the published checksum, None if there is none.
    """

    name: str
    url: str
    part: Part
    kind: Kind
    sha256: str | None = None

    @property
    def folder(self) -> str:
        """The folder inside the archive."""
        return self.name.removesuffix(".zip")


@dataclass(frozen=True)
class IsicDataset:
    """One challenge year: its four archives and its counts of image-mask pairs."""

    name: Name
    title: str
    archives: tuple[Archive, ...]
    n_training: int
    n_validation: int
    n_train: int

    @property
    def n_test(self) -> int:
        """Test images under the paper's split: the images of both parts that do not train."""
        return self.n_training + self.n_validation - self.n_train


@dataclass(frozen=True)
class Pair:
    """A photograph and its mask, as extracted."""

    id: str
    image: Path
    mask: Path


@dataclass(frozen=True)
class Listing:
    """Files of one archive's folder by id, and the numbers of other files, which are ignored."""

    files: dict[str, Path]
    superpixels: int
    other: int


@dataclass(frozen=True)
class Gathered:
    """A dataset's pairs as extracted, not yet checked, and the split.

    Attributes:
        training, validation: pairs of the challenge's two parts, or of the prepared set's.
        train, test: sorted ids.
        listings: the listings of all folders, with the numbers of ignored files.
        archives: name, sha256 and bytes of the archives from which they came.
        soft: whether masks may hold levels of gray, as the published code reads them.
    """

    training: list[Pair]
    validation: list[Pair]
    train: list[str]
    test: list[str]
    listings: list[Listing]
    archives: list[dict[str, str | int]]
    soft: bool = False


def _archive(year: int, name: str, part: Part, kind: Kind, sha256: str | None = None) -> Archive:
    return Archive(name, f"{BASE_URL}/{year}/{name}", part, kind, sha256)


ISIC17 = IsicDataset(
    name="isic17",
    title="ISIC 2017",
    archives=(
        _archive(2017, "ISIC-2017_Training_Data.zip", "training", "images"),
        _archive(2017, "ISIC-2017_Training_Part1_GroundTruth.zip", "training", "masks"),
        _archive(2017, "ISIC-2017_Validation_Data.zip", "validation", "images"),
        _archive(2017, "ISIC-2017_Validation_Part1_GroundTruth.zip", "validation", "masks"),
    ),
    n_training=2000,
    n_validation=150,
    n_train=1500,
)

ISIC18 = IsicDataset(
    name="isic18",
    title="ISIC 2018",
    archives=(
        _archive(
            2018,
            "ISIC2018_Task1-2_Training_Input.zip",
            "training",
            "images",
            "80f98572347a2d7a376227fa9eb2e4f7459d317cb619865b8b9910c81446675f",
        ),
        _archive(
            2018,
            "ISIC2018_Task1_Training_GroundTruth.zip",
            "training",
            "masks",
            "99f8b2bb3c4d6af483362010715f7e7d5d122d9f6c02cac0e0d15bef77c7604c",
        ),
        _archive(
            2018,
            "ISIC2018_Task1-2_Validation_Input.zip",
            "validation",
            "images",
            "0ea920fcfe512d12a6e620b50b50233c059f67b10146e1479c82be58ff15a797",
        ),
        _archive(
            2018,
            "ISIC2018_Task1_Validation_GroundTruth.zip",
            "validation",
            "masks",
            "f6911e9c0a64e6d687dd3ca466ca927dd5e82145cb2163b7a1e5b37d7a716285",
        ),
    ),
    n_training=2594,
    n_validation=100,
    n_train=1886,
)

DATASETS: dict[str, IsicDataset] = {dataset.name: dataset for dataset in (ISIC17, ISIC18)}


def dataset_named(name: str) -> IsicDataset:
    """The dataset called `name`.

    Raises:
        InputError: there is no dataset of that name.
    """
    if name not in DATASETS:
        raise InputError(f"dataset {name!r} is not known; the ISIC datasets are {list(DATASETS)}")
    return DATASETS[name]


def image_id(name: str) -> str | None:
    """The id in a photograph's file name (`<id>.jpg`), None if it is not a photograph."""
    path = PurePosixPath(name)
    if path.suffix.lower() not in IMAGE_SUFFIXES or name.endswith(SUPERPIXELS_SUFFIX):
        return None
    return path.stem


def mask_id(name: str) -> str | None:
    """The id in a mask's file name (`<id>_segmentation.png`), None if it is not a mask."""
    return name.removesuffix(MASK_SUFFIX) if name.endswith(MASK_SUFFIX) else None


def list_files(
    folder: Path, kind: Kind, read_id: Callable[[str], str | None] | None = None
) -> Listing:
    """Photographs or masks under an extracted archive's folder, by id.

    Superpixel maps, licences, attributions, tables and hidden files are ignored and counted.

    Args:
        read_id: a function from a file's name to its id, if the names are not the official ones.

    Raises:
        InputError: two files have the same id, or there are no files.
    """
    read_id = read_id or (image_id if kind == "images" else mask_id)
    files: dict[str, Path] = {}
    superpixels = other = 0
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        hidden = path.name.startswith(".") or "__MACOSX" in path.parts
        key = None if hidden else read_id(path.name)
        if key is None:
            superpixels += path.name.endswith(SUPERPIXELS_SUFFIX)
            other += not path.name.endswith(SUPERPIXELS_SUFFIX)
        elif key in files:
            raise InputError(
                f"{folder.name}: two files of one id, {files[key].name} and {path.name}; "
                "remove one from the archive"
            )
        else:
            files[key] = path
    if not files:
        expected = "<id>.jpg" if kind == "images" else f"<id>{MASK_SUFFIX}"
        raise InputError(f"{folder.name}: no {kind} in this archive; expected files {expected}")
    return Listing(files, superpixels, other)


def pair_up(images: dict[str, Path], masks: dict[str, Path]) -> list[Pair]:
    """Images with their masks, sorted by id.

    Raises:
        InputError: an image has no mask, or a mask has no image.
    """
    _refuse_unpaired(images, masks, "image", f"mask <id>{MASK_SUFFIX}")
    _refuse_unpaired(masks, images, "mask", "image <id>.jpg")
    return [Pair(key, images[key], masks[key]) for key in sorted(images)]


def _refuse_unpaired(
    files: dict[str, Path], partners: dict[str, Path], kind: str, partner: str
) -> None:
    unpaired = sorted(files.keys() - partners.keys())
    if unpaired:
        more = f" (and {len(unpaired) - 1} more)" if len(unpaired) > 1 else ""
        raise InputError(
            f"{files[unpaired[0]].name}: this {kind} has no {partner}{more}; "
            "the two archives of a part must hold the same ids"
        )


def split(
    training: Iterable[str], validation: Iterable[str], n_train: int
) -> tuple[list[str], list[str]]:
    """(train ids, test ids): the sorted training ids' first `n_train`; the rest and validation.

    Both lists are sorted.

    Raises:
        InputError: an id is in both parts, or `n_train` leaves no image to train or to test.
    """
    training, validation = sorted(training), sorted(validation)
    both = sorted(set(training) & set(validation))
    if both:
        raise InputError(f"{both[0]}: this id is in the training and in the validation archives")
    if not 0 < n_train <= len(training) or n_train == len(training) + len(validation):
        raise InputError(
            f"n_train is {n_train}, with {len(training)} training and {len(validation)} validation "
            "images: it must be at least 1, at most the training images, and leave some to test"
        )
    return training[:n_train], sorted(training[n_train:] + validation)


def check_counts(dataset: IsicDataset, n_training: int, n_validation: int) -> None:
    """Refuse sets that are not the full official ones.

    Raises:
        InputError: the archives hold other counts of pairs.
    """
    for part, count, expected in (
        ("training", n_training, dataset.n_training),
        ("validation", n_validation, dataset.n_validation),
    ):
        if count != expected:
            raise InputError(
                f"{dataset.name}: {count} {part} pairs, expected {expected}; "
                f"take the official {part} archives of {dataset.title}"
            )
