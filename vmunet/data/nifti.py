"""CT volumes and label maps in NIfTI files: read upright, written on the file's own grid.

A file may store its axes in any order and direction; its affine says which. Every volume is read
as (depth, height, width) = slices from inferior to superior, rows from anterior to posterior,
columns from the patient's right to left: a radiologist's view, whatever the file's order. Axes
are swapped and mirrored for this, never resampled: an oblique volume keeps its slices and gets the
closest axes.
"""

import gzip
import warnings
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

from vmunet.data.bounded import check_affine, read_nifti
from vmunet.errors import InputError
from vmunet.files import whole_file

SUFFIXES = (".nii", ".nii.gz")
# The direction in which an index grows along (width, height, depth): left, posterior, superior.
UPRIGHT = orientations.axcodes2ornt(("L", "P", "S"))
MILLIMETRES = {1: 1e3, 3: 1e-3}  # by xyzt_units: metres, micrometres; any other code means mm
FLATTEST = 1e-6  # of the volume of a box with the same edges; flatter axes are refused
SAME_GRID = 0.1  # voxels, along each axis, between corresponding corners
ROUNDED = 1e-3  # from a whole number
WRONG_MAP = "give the label map that belongs to the volume"
# All errors that nibabel and the decompressors raise for a damaged file.
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
    """A volume as read, and its position in the patient.

    Attributes:
        voxels: (depth, height, width), indices grow towards superior, posterior, left. CT values
            are float32 in HU, labels are uint8.
        spacing: mm per voxel along (depth, height, width).
        affine: (4, 4), from the index (width, height, depth, 1) of `voxels` to mm in the patient,
            (right, anterior, superior, 1).
        path: the file.
        header: the file's header as nibabel reads it: shape, affines and their codes.
        orientation: (3, 2), of the file's axes as in nibabel: the patient's axis, direction.
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
        InputError: the file is not NIfTI, damaged or not three-dimensional, has values that are
            NaN or infinite, or has no usable affine.
    """
    volume = _read(Path(path))
    # a value beyond float32's range becomes infinite, and is refused below
    with np.errstate(over="ignore"):
        voxels = volume.voxels.astype(np.float32, copy=False)
    wrong = int(voxels.size - np.isfinite(voxels).sum())
    if wrong:
        raise InputError(
            f"{path}: {wrong} of {voxels.size} voxels are NaN or infinite; expected a number in "
            "every voxel: replace them, in CT with -1024 if nothing was measured there"
        )
    return replace(volume, voxels=np.ascontiguousarray(voxels))


def read_labels(path: Path, values: Collection[int], advice: str = WRONG_MAP) -> Volume:
    """Read a label map.

    Args:
        path: as in `read_volume`.
        values: the allowed labels, 0..255, such as `range(14)`; not all of them need to occur.
        advice: what a person can do if the map holds other labels.

    Returns:
        Volume with uint8 voxels. Labels that the file's slope makes almost whole, up to ROUNDED
        from it, are rounded, and a warning says so.

    Raises:
        InputError: as `read_volume`, and if a value is not one of `values`.
    """
    volume = _read(Path(path))
    if volume.voxels.dtype.kind == "f":
        volume = replace(volume, voxels=_whole(path, volume.voxels))
    allowed = sorted(values)
    wrong = [value for value in np.unique(volume.voxels).tolist() if value not in values]
    if wrong:
        named = ", ".join(map(str, wrong[:8])) + (", ..." if wrong[8:] else "")
        first, last = allowed[0], allowed[-1]
        whole_range = allowed == list(range(first, last + 1)) and len(allowed) > 2
        expected = f"{first} to {last}" if whole_range else ", ".join(map(str, allowed))
        raise InputError(
            f"{path}: holds {named}, and labels are whole numbers, here {expected}; {advice}"
        )
    return replace(volume, voxels=np.ascontiguousarray(volume.voxels, dtype=np.uint8))


def _whole(path: Path, voxels: NDArray) -> NDArray:
    """Labels whose distance to a whole number is that of a scaling's rounding, made whole."""
    with np.errstate(invalid="ignore"):
        whole = np.rint(voxels)
        distance = float(np.abs(voxels - whole).max(initial=0))
    if not 0 < distance <= ROUNDED:  # NaN, infinite or far from whole: refused with their values
        return voxels
    warnings.warn(
        f"{path}: its labels are stored with a scaling and were up to {distance:.1g} from whole "
        "numbers; they are rounded",
        stacklevel=3,
    )
    return whole


def check_same_grid(image: Volume, labels: Volume) -> None:
    """Refuse a label map whose voxels are not at the places of its image's voxels.

    The two files may store their axes in different orders: only the voxels' places count. A
    label map may be off by SAME_GRID of a voxel, because programs round affines.

    Args:
        image, labels: the volumes as read.

    Raises:
        InputError: the shapes differ, or corresponding corners are too far apart.
    """
    if image.voxels.shape == labels.voxels.shape:
        lasts = [(0, n - 1) for n in reversed(image.voxels.shape)]
        corners = np.array([(*corner, 1) for corner in product(*lasts)])
        places = corners @ (np.linalg.inv(image.affine) @ labels.affine).T  # in the image's voxels
        if np.abs(places - corners).max() <= SAME_GRID:
            return
        apart = np.linalg.norm(corners @ (image.affine - labels.affine).T, axis=1).max()
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

    The new file gets the axis order, shape and both affines with their codes of that file, bit for
    bit; 8 bits unsigned, slope 1. It is written completely or not at all. Header extensions are
    left out, because they may hold a patient's data.

    Args:
        path: `.nii` or `.nii.gz`.
        labels: whole numbers 0..255, with the shape of `like.voxels`.

    Raises:
        InputError: the suffix, the shape or a value is another.
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
    header["vox_offset"] = 0  # nibabel then chooses it again
    header["cal_min"] = header["cal_max"] = 0  # they are for showing CT values
    header.set_data_dtype(np.uint8)
    header.set_intent("label")
    # An image without its own affine leaves those of the header as they are.
    image = _class_of(header)(stored.reshape(header.get_data_shape()), None, header)
    content = image.to_bytes()
    with whole_file(path) as part:
        compress = path.suffix.lower() == ".gz"
        # no time stamp: the same labels give the same bytes
        part.write_bytes(gzip.compress(content, 6, mtime=0) if compress else content)


def is_nifti(path: Path) -> bool:
    """Whether a path has the name of a NIfTI file; hidden files do not count."""
    return path.name.lower().endswith(SUFFIXES) and not path.name.startswith(".")


def _class_of(header: Any) -> Any:
    """Nifti1Image or Nifti2Image."""
    return {348: nibabel.Nifti1Image, 540: nibabel.Nifti2Image}[int(header["sizeof_hdr"])]


def _read(path: Path) -> Volume:
    """The volume, with voxels in the type that follows from the file's numbers and scaling."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a {' or '.join(SUFFIXES)} file")
    try:
        # up to the end, where the content's checksum is: nibabel would not read so far
        content = read_nifti(path)
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
        # nibabel would print what it repairs or cannot compute
        with nibabel.imageglobals.LoggingOutputSuppressor(), np.errstate(all="ignore"):
            image = image_class.from_bytes(content)
        header = image.header
        _check_voxels(path, image, len(content))
        affine = _affine(path, image, content)
        voxels = np.asarray(image.dataobj)  # as stored if there is no scaling, otherwise float64
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
    """Refuse a file that is not a complete volume of numbers; `size` is the file's, in bytes."""
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
    by_sform = header["sform_code"] > 0  # nibabel and ITK prefer it too, if a file has both
    if not by_sform and not header["qform_code"] > 0:
        raise InputError(
            f"{path}: does not say how it lies in the patient (sform_code and qform_code are 0), "
            "so left and right would be a guess; set its affine, or convert the scan again"
        )
    affine = np.array(image.affine, dtype=np.float64)
    affine[:3] *= MILLIMETRES.get(int(header["xyzt_units"]) % 8, 1.0)
    sizes = voxel_sizes(affine)
    if not by_sform:
        # the stored sizes: nibabel turns a size of zero into 1 mm
        sizes = type(header)(content[: header.sizeof_hdr], check=False)["pixdim"][1:4]
    spans = bool(np.isfinite(affine).all() and np.isfinite(sizes).all() and (sizes != 0).all())
    if not (spans and abs(np.linalg.det(affine[:3, :3] / voxel_sizes(affine))) > FLATTEST):
        raise InputError(
            f"{path}: its affine does not span a volume (voxels of "
            f"{' x '.join(f'{mm:g}' for mm in sizes)} mm); expected three directions with sizes "
            "above zero: set its affine, or convert the scan again"
        )
    check_affine(path, affine)
    return affine
