"""The sample of ISIC 2017 that a clone of the repository holds (examples/isic17/README.md)."""

from pathlib import Path

from vmunet.data.download import Provided, provided
from vmunet.data.isic.official import IsicDataset
from vmunet.errors import InputError

FOLDER = Path("examples/isic17")  # from the repository's root, where stages run
IMAGES = 240  # training and validation
SHA256 = {  # printed by examples/isic17_sample.py
    "ISIC-2017_Training_Data.zip": (
        "8a0c21d91663263657a4caeb8ee890de8a6a3fb7830318204f435f4353574a7a"
    ),
    "ISIC-2017_Training_Part1_GroundTruth.zip": (
        "2a5993a20a0c86f4fe51caffcbadd18ffb5058e12a47d9f67a0ba9775fe76e1f"
    ),
    "ISIC-2017_Validation_Data.zip": (
        "c2b42dc5e13a1f7077847dd64f8c3e5f9d84d5f6b9fd3a4386d7c9b734577eef"
    ),
    "ISIC-2017_Validation_Part1_GroundTruth.zip": (
        "c86822c97c3a6eb63ea3727931504c49b76ec51df6f7e5a8d588172ae0716440"
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
