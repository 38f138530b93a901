"""The files of a segmentation: find the inputs, segment them one by one, write the results."""

import errno
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from vmunet.data import nifti
from vmunet.data.image_size import check_file
from vmunet.data.images import NOT_IMAGES, SUFFIXES, is_image, read_rgb
from vmunet.errors import InputError
from vmunet.files import whole_file
from vmunet.inference.tables import TABLE, Row, append_rows

OVERLAY_COLOUR = (86, 180, 233)  # sky blue of Okabe and Ito's colour-blind safe palette
OVERLAY_OPACITY = 0.15
# Ours, and the usual names of label maps: BTCV calls them label0001.nii.gz.
LABELS = re.compile(r"(.*_(labels?|seg|segmentation|mask)|label\d+)", re.IGNORECASE)

Segmented = TypeVar("Segmented")
AnyRow = TypeVar("AnyRow", bound=Row)


@dataclass(frozen=True)
class Kind:
    """How the files of one kind are named.

    Attributes:
        suffixes: how their names end.
        is_one: whether a path's name is that of such a file.
        stem: a file's name without its suffix.
        is_output: whether a stem marks a mask, a label map or another file that belongs to an
            input.
        name, one, several: "volume", and "a CT volume", "CT volumes" as messages say it.
        outputs: what `is_output` recognises, for messages.
        written: what follows the stem in the name of a segmentation.
        segmentations: what the written files are called, for messages.
    """

    suffixes: Sequence[str]
    is_one: Callable[[Path], bool]
    stem: Callable[[Path], str]
    is_output: Callable[[str], bool]
    name: str
    one: str
    several: str
    outputs: str
    written: str
    segmentations: str


def stem_of(path: Path) -> str:
    """The file's name without .nii or .nii.gz."""
    return re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE)


IMAGES = Kind(
    suffixes=SUFFIXES,
    is_one=is_image,
    stem=lambda path: path.stem,
    is_output=lambda stem: stem.lower().endswith(NOT_IMAGES),
    name="image",
    one="an image",
    several="images",
    outputs="masks or overlays",
    written="_mask.png",
    segmentations="masks",
)
VOLUMES = Kind(
    suffixes=nifti.SUFFIXES,
    is_one=nifti.is_nifti,
    stem=stem_of,
    is_output=lambda stem: LABELS.fullmatch(stem) is not None,
    name="volume",
    one="a CT volume",
    several="CT volumes",
    outputs="label maps",
    written="_labels.nii.gz",
    segmentations="labels",
)


def find_inputs(paths: Sequence[Path], kind: Kind) -> tuple[list[Path], list[Path]]:
    """The images, or the CT volumes, that `paths` name, and the files left out.

    A folder gives its own files, sorted, but not those of its subfolders. Files are left out if
    their names mark them as masks, label maps, superpixels or results of an earlier segmentation,
    so that a second run over the same folder sees the same inputs.

    Raises:
        InputError: a path is missing or is of another kind by its suffix, nothing is left, or two
            inputs share a stem, because both would write the same file.
    """
    candidates: dict[Path, Path] = {}  # by folder and name: a file named twice counts once
    for path in map(Path, paths):
        if path.is_dir():
            files = [file for file in sorted(path.iterdir()) if kind.is_one(file)]
            files = [file for file in files if file.is_file()]
        elif not path.is_file():
            raise InputError(f"{path}: no such {kind.name} or folder")
        elif not kind.is_one(path):
            raise InputError(f"{path}: not {kind.one}; expected {', '.join(kind.suffixes)}")
        else:
            files = [path]
        candidates.update((file.parent.resolve() / file.name, file) for file in files)
    inputs: list[Path] = []
    skipped: list[Path] = []
    for file in candidates.values():
        (skipped if kind.is_output(kind.stem(file)) else inputs).append(file)
    if not inputs:
        left_out = f" ({len(skipped)} left out as {kind.outputs})" if skipped else ""
        given_paths = ", ".join(str(path) for path in paths)
        raise InputError(
            f"{given_paths}: no {kind.several}{left_out}; expected {', '.join(kind.suffixes)} files"
        )
    by_stem: dict[str, Path] = {}
    for file in inputs:
        stem = kind.stem(file)
        if (other := by_stem.setdefault(stem, file)) is not file:
            raise InputError(
                f"{other} and {file} would both write {stem}{kind.written}; rename one, or "
                "segment them into different folders"
            )
    return inputs, skipped


def check_out(out: Path, files: Sequence[Path], kind: Kind) -> None:
    """Raise InputError if the folder `out` is a file, or holds the inputs themselves."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; give a folder for the output")
    if any(file.parent.resolve() == out.resolve() for file in files):
        raise InputError(
            f"{out}: holds the {kind.name}s themselves; give another folder for the "
            f"{kind.segmentations}"
        )


def segment_each(
    files: Sequence[Path],
    out: Path,
    kind: Kind,
    segment: Callable[[Path], Segmented],
    write: Callable[[Path, Segmented], list[AnyRow]],
) -> list[AnyRow]:
    """Segment one file after the other, write each result and append its rows to predictions.csv.

    Args:
        segment: reads a file and segments it; a file that it refuses is left out.
        write: writes the result of `segment` into `out` and returns the file's rows of the table.

    Raises:
        InputError: some files could not be segmented, or their results cannot be named; it names
            each, after all the others were segmented.
    """
    from tqdm import tqdm

    table = out / TABLE
    rows: list[AnyRow] = []
    failures: list[str] = []
    for file in tqdm(files, desc="segment", unit=kind.name, disable=None):
        try:
            check_name(file)
            segmented = segment(file)
        except (InputError, OSError) as error:
            failures.append(str(error) if file.name in str(error) else f"{shown(file)}: {error}")
            continue
        if not rows:
            # if this run is interrupted, no table of an earlier run may remain
            table.unlink(missing_ok=True)
        try:
            new = write(file, segmented)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:  # a full disk would refuse the others too
                raise
            failures.append(
                f"{file.name}: its name has {len(file.name)} characters, too many for the names "
                "of its results; shorten it"
            )
            continue
        append_rows(table, new, begin=not rows)
        rows += new
    if failures:
        listing = f" {failures[0]}" if len(failures) == 1 else "\n  ".join(["", *failures])
        others = f", the others are in {out}" if rows else ""
        raise InputError(
            f"{len(failures)} of {len(files)} {kind.name}s could not be segmented{others}:{listing}"
        )
    return rows


def check_name(file: Path) -> None:
    """Raise InputError if a file's name is not UTF-8, because a table cannot hold it."""
    if shown(file) != file.name:
        raise InputError(f"{shown(file)}: its name is not UTF-8; rename it")


def shown(file: Path) -> str:
    """A file's name as it can be printed, with \\x.. for bytes that are not UTF-8."""
    return os.fsencode(file.name).decode("utf-8", "backslashreplace")


def read_photo(path: Path) -> np.ndarray:
    """An image file as uint8 (height, width, 3), RGB (`vmunet.data.images.read_rgb`).

    Raises:
        InputError: the file has more than 400 megapixels, which its header says before anything is
            decoded; it is unreadable; it holds several pictures; or its conversion would be a
            guess.
    """
    check_file(path)
    return read_rgb(path)[0]


def wrong_kind(given: object, model: object, volumes: bool) -> InputError:
    """The error of an image for a model of CT volumes, or of a CT volume for one of images.

    Args:
        given: the file, or what was given in its place.
        model: the weights, or what stands for them.
        volumes: whether the model takes CT volumes.
    """
    kind, needed, on = ("an image", "CT volumes (.nii, .nii.gz)", "images")
    if not volumes:
        kind, needed, on = ("a CT volume", "images (.jpg, .png, ...)", "CT volumes")
    return InputError(
        f"{given}: {kind}, but {model} segments {needed}; give the weights of a model that was "
        f"trained on {on}"
    )


def draw_overlay(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Draw the mask's outline and a light fill over the image.

    Args:
        image: uint8 (height, width, 3), RGB.
        mask: bool (height, width).

    Returns:
        uint8 (height, width, 3), RGB; the image itself if the mask is empty. The outline is
        sky blue on black, which stays visible on light and dark skin and to the colour-blind.
    """
    import cv2

    drawn = image.copy()
    tint = np.array(OVERLAY_COLOUR, dtype=np.float32)
    drawn[mask] = np.rint(drawn[mask] + OVERLAY_OPACITY * (tint - drawn[mask]))
    # the outer borders and the borders of holes
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    width = max(1, round(max(mask.shape) / 400))
    rim = max(1, width // 2)
    cv2.drawContours(drawn, outlines, -1, (0, 0, 0), width + 2 * rim)
    cv2.drawContours(drawn, outlines, -1, OVERLAY_COLOUR, width)
    return drawn


def write_image(path: Path, pixels: np.ndarray) -> None:
    """Write a plane, or RGB, in the format that the suffix names."""
    import cv2

    ordered = pixels[..., ::-1] if pixels.ndim == 3 else pixels  # OpenCV wants BGR
    _, content = cv2.imencode(path.suffix, ordered)
    with whole_file(path) as part:
        part.write_bytes(content.tobytes())
