"""Procedural abdominal CT with 13 labelled organs, in BTCV's raw layout: no account is needed.

`patient` describes who is scanned, `body` and `organs` place the anatomy, and `shapes` paints it.
This module scans it (grid, noise) and stores it as NIfTI. Neighbouring organs overlap in HU, so
intensity alone identifies few of them. Phantoms test the pipeline; scores on them say nothing about
patients.
"""

import gzip
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from vmunet.data.phantom.body import Scene, paint_bones, paint_table, paint_walls
from vmunet.data.phantom.organs import paint_organs
from vmunet.data.phantom.patient import draw_patient
from vmunet.data.phantom.shapes import Canvas
from vmunet.errors import InputError
from vmunet.files import whole_folder
from vmunet.threads import in_threads

CASES = (*range(1, 11), *range(21, 41))  # the cases of BTCV's training set
WITHOUT_GALLBLADDER = (25, 39)  # a cholecystectomy in one usual test case and one training case
ORIENTATIONS = ("LAS", "RAS", "LPS", "RPS", "LAI", "RAS", "PLS", "LAS", "ASL", "LPI")  # by case
STREAM = 3193805  # BTCV's number on Synapse: separates these draws from other phantoms' draws
FIELD_OF_VIEW = (300, 450)  # mm
SPACING = (3, 5)  # mm between slices, if their number allows it
EXTENT = (115, 150)  # mm from the lowest to the highest slice: has every organ, cuts a few


@dataclass(frozen=True)
class CtPhantom:
    """One scan with its truth, in the patient's frame (axes to the right, the front, the head).

    Attributes:
        image: int16 (x, y, z), HU in -1024..3071.
        label: uint8 (x, y, z), 0 or one of `patient.LABELS`.
        affine: float64 (4, 4), from voxels to mm.
    """

    image: NDArray[np.int16]
    label: NDArray[np.uint8]
    affine: NDArray[np.float64]


def write_btcv(
    folder: Path, cases: Sequence[int], size: int, slices: tuple[int, int], seed: int
) -> None:
    """Write folder/RawData/Training/{img,label}/{img,label}NNNN.nii.gz, all of them or none.

    Images are int16 HU, labels uint8 0..13 by BTCV's numbers. The order of the stored axes differs
    between cases (ORIENTATIONS): only the affine tells right from left. A case's bytes depend only
    on the seed, its number, `size` and `slices`.

    Args:
        folder: the folder to write into; it is made if it does not exist.
        cases: numbers, normally those of CASES.
        size: width and height of a slice in pixels, at least 32.
        slices: smallest and largest number of slices, at least 8. From about 24 on they are 3-5 mm
            thick; fewer are thicker, so that they still show every organ.
        seed: of the whole series, at least 0.

    Raises:
        InputError: an argument is out of range, or folder/RawData exists.
    """
    _check(cases, size, slices, seed)
    target = folder / "RawData"
    if target.exists():
        raise InputError(
            f"{target} exists, and phantoms replace no files: remove it or name another folder"
        )
    with whole_folder(target) as part:
        for kind in ("img", "label"):
            (part / "Training" / kind).mkdir(parents=True)
        write = partial(_write_case, part / "Training", size=size, slices=slices, seed=seed)
        in_threads(write, cases, "CT phantoms")


def ct_phantom(seed: int, case: int, size: int, slices: tuple[int, int]) -> CtPhantom:
    """Phantom number `case` of the series `seed`, the same bits every time.

    Args: as in `write_btcv`.
    """
    rng = np.random.default_rng([STREAM, seed, case])
    patient = draw_patient(rng, gallbladder=case not in WITHOUT_GALLBLADDER)
    count = int(rng.integers(slices[0], slices[1] + 1))
    view = float(np.clip(2 * patient.body[0] * rng.uniform(1.06, 1.18), *FIELD_OF_VIEW))
    thick = _slice_spacing(rng.uniform(*EXTENT), count)
    off = np.array([rng.normal(0, 4), patient.body[2] - 8 + rng.normal(0, 3), rng.normal(0, 4)])
    counts, spacing = (size, size, count), (view / size, view / size, thick)
    x, y, z = (
        ((np.arange(n) - (n - 1) / 2) * step + middle).astype(np.float32)
        for n, step, middle in zip(counts, spacing, off, strict=True)
    )
    canvas = Canvas((x, y, z))
    scene = Scene(canvas, patient, rng)
    paint_walls(scene)
    canvas.bend(rng, amount=5, scale=75, fixed=patient.spine)
    paint_organs(scene)
    canvas.straighten()
    paint_bones(scene)
    paint_table(scene)
    affine = np.diag([*spacing, 1.0])
    # A scanner's origin says nothing about the patient.
    affine[:3, 3] = np.round(rng.uniform(-200, 200, 3), 3) - np.array(spacing) * counts / 2
    return CtPhantom(_scanned(rng, canvas.hu), canvas.label, affine)


def _slice_spacing(extent: float, count: int) -> float:
    """Millimetres between slices: within SPACING if that covers about `extent`, otherwise more."""
    low, high = SPACING
    if count * high < EXTENT[0]:
        return EXTENT[0] / count
    return float(np.clip(extent / count, low, high))


def _scanned(rng: np.random.Generator, hu: NDArray[np.floating]) -> NDArray[np.int16]:
    """A scanner's view of the painted HU: its blur and noise within slices, int16."""
    strength = rng.uniform(10, 18)
    mottle = rng.standard_normal(hu.shape[::-1], np.float32)
    seen = np.empty(hu.shape, np.int16)
    for z, noise in enumerate(mottle):
        noise = cv2.GaussianBlur(noise, (0, 0), 0.6)
        noise *= strength / noise.std()
        sharp = cv2.GaussianBlur(np.ascontiguousarray(hu[:, :, z]), (0, 0), 0.4)
        seen[:, :, z] = np.round(np.clip(sharp + noise.T, -1024, 3071))
    return seen


def _write_case(folder: Path, case: int, size: int, slices: tuple[int, int], seed: int) -> None:
    made = ct_phantom(seed, case, size, slices)
    ras = nib.orientations.axcodes2ornt("RAS")
    stored = nib.orientations.axcodes2ornt(ORIENTATIONS[case % len(ORIENTATIONS)])
    turn = nib.orientations.ornt_transform(ras, stored)
    for kind, voxels in (("img", made.image), ("label", made.label)):
        image = nib.Nifti1Image(voxels, made.affine).as_reoriented(turn)
        image.header.set_xyzt_units("mm")
        image.set_qform(image.affine, code=1)
        image.set_sform(image.affine, code=1)
        image.header["descrip"] = "phantom: synthetic"
        packed = io.BytesIO()
        # no name and no time in the header, so that a rerun gives the same bytes
        with gzip.GzipFile("", "wb", compresslevel=4, fileobj=packed, mtime=0) as stream:
            stream.write(image.to_bytes())
        (folder / kind / f"{kind}{case:04d}.nii.gz").write_bytes(packed.getvalue())


def _check(cases: Sequence[int], size: int, slices: tuple[int, int], seed: int) -> None:
    if not cases or len(set(cases)) < len(cases) or not all(1 <= c <= 9999 for c in cases):
        raise InputError(
            f"CT phantoms: cases {list(cases)}; expected at least one, each once, in 1..9999 "
            f"(BTCV's training cases are 1..10 and 21..40)"
        )
    if size < 32:
        raise InputError(f"CT phantoms: size {size}; expected at least 32 pixels")
    if not 8 <= slices[0] <= slices[1]:
        raise InputError(f"CT phantoms: slices {slices}; expected (least, greatest), at least 8")
    if seed < 0:
        raise InputError(f"CT phantoms: seed {seed}; expected at least 0")
