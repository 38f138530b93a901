"""Read Synapse (BTCV) from its raw volumes: RawData/Training/img/img0001.nii.gz and its label."""

from pathlib import Path

from vmunet.data.nifti import check_same_grid, read_labels, read_volume
from vmunet.data.slices import window_ct
from vmunet.data.synapse.official import BTCV, TEST, TRAIN, WINDOW, organs_of
from vmunet.data.volumes import Case, Pixels
from vmunet.errors import InputError

FOLDERS = ("RawData/Training", "Training", ".")


def raw_cases(folder: Path) -> tuple[list[Case], list[Case]]:
    """The 18 training and the 12 test cases under `folder`, not yet read.

    Args:
        folder: holds RawData/Training/img and label, or is one of the folders between.

    Raises:
        InputError: the folders are not there, or a volume or its label is missing.
    """
    home = next((folder / name for name in FOLDERS if (folder / name / "img").is_dir()), None)
    if home is None:
        raise InputError(
            f"{folder}: holds no RawData/Training/img; give the folder that RawData.zip of "
            "synapse.org's syn3379050 unpacks to"
        )
    return [_case(home, name) for name in TRAIN], [_case(home, name) for name in TEST]


def _case(home: Path, name: str) -> Case:
    number = name.removeprefix("case")
    image = _volume(home / "img", f"img{number}")
    label = _volume(home / "label", f"label{number}")
    return Case(name, lambda: read_raw(image, label))


def _volume(folder: Path, stem: str) -> Path:
    for suffix in (".nii.gz", ".nii"):
        if (folder / f"{stem}{suffix}").is_file():
            return folder / f"{stem}{suffix}"
    raise InputError(
        f"{folder / stem}.nii.gz: not there; all 30 labelled volumes of BTCV are needed "
        "(0001 to 0010 and 0021 to 0040)"
    )


def read_raw(image: Path, label: Path) -> Pixels:
    """A raw volume: 13 labels mapped to the paper's 8, HU windowed to 0..1.

    Raises:
        InputError: a file is broken, a label is outside 0..13, or the two have different grids.
    """
    scan, organs = read_volume(image), read_labels(label, range(len(BTCV) + 1))
    check_same_grid(scan, organs)
    return Pixels(window_ct(scan.voxels, *WINDOW), organs_of(organs.voxels), scan.spacing)
