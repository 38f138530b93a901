"""The sample of ISIC 2017 that a clone of the repository holds (examples/isic17/README.md)."""

from pathlib import Path

from vmunet.data.download import Provided, provided
from vmunet.data.isic.official import IsicDataset
from vmunet.errors import InputError

FOLDER = Path("examples/isic17")  # from the repository's root, where stages run
IMAGES = 240  # training and validation
SHA256 = {  # printed by examples/isic17_sample.py
    "ISIC-2017_Training_Data.zip": (
        "a12dd458585e7f3bbc76ca7fe53aacd25002f5dec967f94a6809e99dbad1f13d"
    ),
    "ISIC-2017_Training_Part1_GroundTruth.zip": (
        "d0e9c3f526afe0a893b3a69302647c687de0b407a43792adce6a8baccf409554"
    ),
    "ISIC-2017_Validation_Data.zip": (
        "85dd85baca4fcda18230f9e717dc9f8e5b51ccd17085b874696ea9a8f68611cc"
    ),
    "ISIC-2017_Validation_Part1_GroundTruth.zip": (
        "eca0a941e2edb6d4b88e65b39712c29958f079cea95f11d53b1df8b0ea4be3d8"
    ),
}


def from_sample(dataset: IsicDataset, folder: Path = FOLDER) -> list[Provided]:
    """The sample's four archives, without copying them.

    Raises:
        InputError: the dataset has no sample, or an archive is missing or was changed.
    """
    if not all(archive.name in SHA256 for archive in dataset.archives):
        raise InputError(
            f"{dataset.name}: source is 'sample', but the repository holds a sample of ISIC 2017 "
            "alone; take the source phantom, file, http or prepared"
        )
    archives = []
    for archive in dataset.archives:
        path = folder / archive.name
        if not path.is_file():
            raise InputError(
                f"{path}: not found; run from the repository's root, or restore the archive with "
                f"`git checkout -- {path}`"
            )
        archives.append(provided(archive, path))
        if archives[-1].sha256 != SHA256[archive.name]:
            raise InputError(
                f"{path}: its sha256 is {archives[-1].sha256}, expected {SHA256[archive.name]}; "
                f"the archive was changed or damaged: restore it with `git checkout -- {path}`"
            )
    return archives
