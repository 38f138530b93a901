"""CT volumes and label maps in NIfTI files: read upright, written back on the file's own grid.

A file may store its axes in any order and direction; its affine says which. Every volume is read
as (depth, height, width) = slices from inferior to superior, rows from anterior to posterior,
columns from the patient's right to left: what a radiologist looks at, whatever the file's order.
That takes swapped and mirrored axes only, no resampling: an oblique volume keeps its slices and
gets the closest axes.
"""

import gzip
import zlib
from collections.abc import Collection
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel import orientations
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray

from vmunet.errors import InputError
from vmunet.files import whole_file

SUFFIXES = (".nii", ".nii.gz")
# What an index counts towards along (width, height, depth): left, posterior, superior.
UPRIGHT = orientations.axcodes2ornt(("L", "P", "S"))
MILLIMETRES = {1: 1e3, 3: 1e-3}  # by xyzt_units: metres, micrometres; any other code means mm
FLATTEST = 1e-6  # of the volume of a box with the same edges; axes this close to a plane are none
WRONG_MAP = "give the label map that belongs to the volume"
GZIP = b"\x1f\x8b"
# All that nibabel and the decompressors raise on a damaged file.
DAMAGE = (
    nibabel.filebasedimages.ImageFileError,
    nibabel.spatialimages.HeaderDataError,
    nibabel.spatialimages.HeaderTypeError,
    EOFError,
    zlib.error,
    gzip.BadGzipFile,
    ValueError,
    OverflowError,
)


@dataclass(frozen=True, eq=False)
class Volume:
    """A volume as read, and where it lies.

    Attributes:
        voxels: (depth, height, width), indices towards superior, posterior, left. CT values as
            float32 in HU, labels as uint8.
        spacing: mm per voxel along (depth, height, width).
        affine: (4, 4), of `voxels`: the index (width, height, depth, 1) to mm in the patient,
            (right, anterior, superior, 1).
        path: the file.
        header: the file's header, as nibabel holds it: its shape, affines and their codes.
        orientation: (3, 2), of the file's axes as nibabel has it: the patient's axis, direction.
    """

    voxels: NDArray
    spacing: tuple[float, float, float]
    affine: NDArray[np.float64]
    path: Path
    header: Any
    orientation: NDArray[np.float64]

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel, ml."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000


def read_volume(path: Path) -> Volume:
    """Read a CT volume; the file's slope and intercept are applied.

    Args:
        path: `.nii` or `.nii.gz`, three axes (further ones of length 1 are dropped).

    Returns:
        Volume with float32 voxels; whole numbers up to 2**24 are exact.

    Raises:
        InputError: not NIfTI, damaged, not three-dimensional, values that are NaN or infinite, or
            no usable affine.
    """
    volume = _read(Path(path))
    # a value beyond float32's range becomes infinite, and is refused as such
    with np.errstate(over="ignore"):
        voxels = volume.voxels.astype(np.float32, copy=False)
    wrong = int(voxels.size - np.isfinite(voxels).sum())
    if wrong:
        raise InputError(
            f"{path}: {wrong} of {voxels.size} voxels are NaN or infinite; expected a number in "
            "every voxel: replace them, in CT by -1024 where nothing was measured"
        )
    return replace(volume, voxels=np.ascontiguousarray(voxels))


def read_labels(path: Path, values: Collection[int], advice: str = WRONG_MAP) -> Volume:
    """Read a label map.

    Args:
        path: as in `read_volume`.
        values: the labels it may hold, 0..255, such as `range(14)`; not all of them need to occur.
        advice: what to do where it holds others.

    Returns:
        Volume with uint8 voxels.

    Raises:
        InputError: as `read_volume`, and where a value is not one of `values`.
    """
    volume = _read(Path(path))
    found = np.unique(volume.voxels)
    allowed = sorted(values)
    wrong = [value for value in found.tolist() if value not in values]
    if wrong:
        named = ", ".join(map(str, wrong[:8])) + (", ..." if wrong[8:] else "")
        first, last = allowed[0], allowed[-1]
        whole_range = allowed == list(range(first, last + 1)) and len(allowed) > 2
        expected = f"{first} to {last}" if whole_range else ", ".join(map(str, allowed))
        raise InputError(
            f"{path}: holds {named}, and labels are whole numbers, here {expected}; {advice}"
        )
    return replace(volume, voxels=np.ascontiguousarray(volume.voxels, dtype=np.uint8))


def check_same_grid(image: Volume, labels: Volume, tolerance: float = 1e-3) -> None:
    """Refuse a label map that does not lie on its image, voxel on voxel.

    The two may store their axes in different orders: what counts is where the voxels lie.

    Args:
        image, labels: as read.
        tolerance: mm, that the corners of the two may be apart.

    Raises:
        InputError: the shapes differ, or a corner lies elsewhere.
    """
    if image.voxels.shape == labels.voxels.shape:
        lasts = [(0, n - 1) for n in reversed(image.voxels.shape)]
        corners = np.array([(*corner, 1) for corner in product(*lasts)])
        apart = np.linalg.norm(corners @ (image.affine - labels.affine).T, axis=1).max()
        if apart <= tolerance:
            return
        what = f"their corners lie up to {apart:.4g} mm apart"
    else:
        what = "their shapes differ"
    raise InputError(
        f"{image.path} and {labels.path} are not on the same grid, {what}: the image has "
        f"{_grid(image)}, the labels have {_grid(labels)}; give the label map that was drawn on "
        "this image, or resample it"
    )


def _grid(volume: Volume) -> str:
    depth, height, width = volume.voxels.shape
    sizes = " x ".join(f"{mm:.6g}" for mm in volume.spacing)
    axes = volume.affine[:3, :3] / np.linalg.norm(volume.affine[:3, :3], axis=0)
    turned = np.degrees(np.arccos(np.clip(np.abs(np.diag(axes)), -1, 1))).max()
    first = ", ".join(f"{mm:.6g}" for mm in volume.affine[:3, 3])
    oblique = f", turned by {turned:.2g} degrees" if turned > 0.05 else ""
    return (
        f"{depth} slices of {height} x {width} voxels, {sizes} mm each, the first at ({first}) mm"
        + oblique
    )


def write_labels(path: Path, labels: NDArray, like: Volume) -> None:
    """Write a label map on the grid of the file that `like` was read from.

    The file gets that one's axis order, shape and both affines with their codes, bit for bit; 8
    bits unsigned, slope 1. It appears whole or not at all. Header extensions are left out, as they
    may hold a patient's data.

    Args:
        path: `.nii` or `.nii.gz`.
        labels: whole numbers 0..255, of the shape of `like.voxels`.

    Raises:
        InputError: on another suffix, shape or other values.
    """
    path = Path(path)
    if not is_nifti(path):
        raise InputError(f"{path}: label maps are written as {' or '.join(SUFFIXES)}")
    if labels.shape != like.voxels.shape:
        raise InputError(
            f"{path}: the labels have the shape {labels.shape}, and {like.path} is read as "
            f"{like.voxels.shape}; write labels as they come, on the volume they were made from"
        )
    with np.errstate(invalid="ignore"):
        stored = labels.astype(np.uint8)
    if (stored != labels).any():
        raise InputError(f"{path}: labels must be whole numbers in 0..255 to be written")
    back = orientations.ornt_transform(UPRIGHT, like.orientation)
    stored = orientations.apply_orientation(stored.transpose(2, 1, 0), back)
    header = like.header.copy()
    header.extensions.clear()
    header["vox_offset"] = 0  # nibabel then chooses it anew
    header["cal_min"] = header["cal_max"] = 0  # how bright to show CT values, not labels
    header.set_data_dtype(np.uint8)
    header.set_intent("label")
    # Without an affine of its own the image leaves those of the header as they are.
    image = _class_of(header)(stored.reshape(header.get_data_shape()), None, header)
    content = image.to_bytes()
    with whole_file(path) as part:
        compress = path.suffix.lower() == ".gz"
        # no time stamp: the same labels give the same bytes
        part.write_bytes(gzip.compress(content, 6, mtime=0) if compress else content)


def is_nifti(path: Path) -> bool:
    """Whether a path is a NIfTI file by its name; hidden files are none."""
    return path.name.lower().endswith(SUFFIXES) and not path.name.startswith(".")


def _class_of(header: Any) -> Any:
    """Nifti1Image or Nifti2Image."""
    return {348: nibabel.Nifti1Image, 540: nibabel.Nifti2Image}[int(header["sizeof_hdr"])]


def _read(path: Path) -> Volume:
    """The volume with voxels in the type that its file's numbers and scaling give."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a {' or '.join(SUFFIXES)} file")
    try:
        content = path.read_bytes()
        if content.startswith(GZIP):
            # to the end, where the sum of the content is: nibabel would not read so far
            content = gzip.decompress(content)
    except DAMAGE as error:
        raise InputError(f"{path}: damaged or cut short ({error}); get the file again") from None
    first = content[: nibabel.Nifti2Header.sizeof_hdr]
    image_class = next(
        (
            kind
            for kind in (nibabel.Nifti1Image, nibabel.Nifti2Image)
            if len(first) >= kind.header_class.sizeof_hdr
            and kind.header_class.may_contain_header(first)
        ),
        None,
    )
    if image_class is None:
        raise InputError(
            f"{path}: not a NIfTI file ({len(content)} bytes); expected a CT volume or label map "
            "as .nii or .nii.gz: convert it, DICOM with dcm2niix for example"
        )
    try:
        # what nibabel mends, or cannot compute, it would print
        with nibabel.imageglobals.LoggingOutputSuppressor(), np.errstate(all="ignore"):
            image = image_class.from_bytes(content)
        header = image.header
        _check_voxels(path, image, len(content))
        affine = _affine(path, image, content)
        voxels = np.asarray(image.dataobj)  # as stored where there is no scaling, else float64
    except DAMAGE as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: damaged NIfTI file ({reason}); get the file again") from None
    shape = header.get_data_shape()[:3]
    orientation = orientations.io_orientation(affine)
    turn = orientations.ornt_transform(orientation, UPRIGHT)
    upright = orientations.apply_orientation(voxels.reshape(shape), turn)
    affine = affine @ orientations.inv_ornt_aff(turn, shape)
    spacing = tuple(voxel_sizes(affine)[::-1].tolist())
    return Volume(upright.transpose(2, 1, 0), spacing, affine, path, header.copy(), orientation)


def _check_voxels(path: Path, image: Any, size: int) -> None:
    """Refuse what is not a volume of numbers, all of them there; `size`: of the file, bytes."""
    header = image.header
    shape = header.get_data_shape()
    dtype = header.get_data_dtype()
    if len(shape) < 3 or any(n != 1 for n in shape[3:]) or 0 in shape:
        several = len(shape) > 3 and any(n > 1 for n in shape[3:])
        what = "a series of volumes: save one of them" if several else "not a volume"
        raise InputError(
            f"{path}: its shape is {' x '.join(map(str, shape))}, {what}; expected three axes"
        )
    if dtype.kind not in "iuf":
        raise InputError(
            f"{path}: its voxels are {header.get_value_label('datatype')}, colours or complex "
            "numbers; expected one real number each, as CT values and labels are"
        )
    expected = image.dataobj.offset + int(np.prod(shape, dtype=object)) * dtype.itemsize
    if size < expected:
        raise InputError(
            f"{path}: cut short, its header promises {expected} bytes and {size} are there; get "
            "the file again"
        )


def _affine(path: Path, image: Any, content: bytes) -> NDArray[np.float64]:
    """The file's voxel index to mm, (4, 4), checked."""
    header = image.header
    by_sform = header["sform_code"] > 0  # as nibabel and ITK choose where a file has both
    if not by_sform and not header["qform_code"] > 0:
        raise InputError(
            f"{path}: does not say how it lies in the patient (sform_code and qform_code are 0), "
            "and left and right would be a guess; set its affine, or convert the scan again"
        )
    affine = np.array(image.affine, dtype=np.float64)
    affine[:3] *= MILLIMETRES.get(int(header["xyzt_units"]) % 8, 1.0)
    sizes = voxel_sizes(affine)
    if not by_sform:
        # as stored: nibabel turns a size of zero into 1 mm
        sizes = type(header)(content[: header.sizeof_hdr], check=False)["pixdim"][1:4]
    spans = bool(np.isfinite(affine).all() and np.isfinite(sizes).all() and (sizes != 0).all())
    if not (spans and abs(np.linalg.det(affine[:3, :3] / voxel_sizes(affine))) > FLATTEST):
        raise InputError(
            f"{path}: its affine does not span a volume (voxels of "
            f"{' x '.join(f'{mm:g}' for mm in sizes)} mm); expected three directions with sizes "
            "above zero: set its affine, or convert the scan again"
        )
    return affine
