"""Read NIfTI and NumPy files of unknown origin within `vmunet.data.limits`."""

import gzip
import zipfile
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import IO

import nibabel
import numpy as np
from numpy.typing import NDArray

from vmunet.data.limits import check_voxels
from vmunet.errors import InputError

GZIP = b"\x1f\x8b"
MOST_EXTRA = 2**24  # bytes of a NIfTI file beside its voxels: header, extensions, padding
MILLIMETRES = (1e-7, 1e7)  # of a voxel's edge and of a place in the patient, far beyond any scan


def read_nifti(path: Path) -> bytes:
    """The content of a NIfTI file, unpacked, no longer than its header promises and `MOST_EXTRA`.

    Raises:
        InputError: the header promises more than `most_voxels()`, or the file holds more.
        OSError, EOFError, zlib.error: the file cannot be read or is damaged.
    """
    with path.open("rb") as raw:
        packed = raw.read(2) == GZIP
        raw.seek(0)
        with gzip.GzipFile(fileobj=raw) if packed else raw as file:
            head = file.read(nibabel.Nifti2Header.sizeof_hdr)
            most = promised_bytes(head, path) + MOST_EXTRA
            content = head + file.read(most - len(head))
            if file.read(1):
                raise InputError(
                    f"{path}: holds more than the {most - MOST_EXTRA:,} bytes that its header "
                    "promises; get the file again"
                )
    return content


def promised_bytes(head: bytes, path: Path) -> int:
    """The bytes of the voxels that a NIfTI header promises; 0 if it is none.

    Raises:
        InputError: the voxels are too many.
    """
    for kind in (nibabel.Nifti1Header, nibabel.Nifti2Header):
        if len(head) >= kind.sizeof_hdr and kind.may_contain_header(head):
            # the reader says what is wrong with a damaged header
            with suppress(
                nibabel.spatialimages.HeaderDataError, KeyError, ValueError, OverflowError
            ):
                header = kind(head[: kind.sizeof_hdr], check=False)
                shape = header.get_data_shape()
                check_voxels(shape, path)
                return max(0, prod(map(int, shape))) * header.get_data_dtype().itemsize
            break
    return 0


def check_affine(path: Path, affine: NDArray[np.float64]) -> None:
    """Refuse voxels, or places of them, that no scanner has; `affine` (4, 4) gives mm.

    Raises:
        InputError: a voxel's edge or its place is beyond MILLIMETRES.
    """
    edges = np.linalg.norm(affine[:3, :3], axis=0)
    least, most = MILLIMETRES
    if edges.min() < least or edges.max() > most or np.abs(affine[:3, 3]).max() > most:
        sizes = " x ".join(f"{mm:g}" for mm in edges)
        first = ", ".join(f"{mm:g}" for mm in affine[:3, 3])
        raise InputError(
            f"{path}: its affine gives voxels of {sizes} mm, the first at ({first}) mm; expected "
            f"{least:g} to {most:g} mm: set its affine, or convert the scan again"
        )


def check_npz(path: Path) -> None:
    """Refuse an .npz of which an array's header promises more than its member holds.

    Raises:
        InputError: an array is too large, or its header and its size differ.
        ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error: it is none, or damaged.
    """
    with path.open("rb") as file:
        if file.read(2) not in (b"PK", b""):  # numpy would read an array, or a pickle
            raise ValueError("no archive of arrays")
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            with archive.open(member) as array:
                shape, itemsize = _npy_header(array)
                check_voxels(shape, path)
                if array.tell() + prod(shape) * itemsize != member.file_size:
                    raise InputError(
                        f"{path}: the header of {member.filename!r} does not fit its size; copy "
                        "the file again"
                    )


def _npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], int]:
    version = np.lib.format.read_magic(file)
    reader = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if reader is None:
        raise ValueError(f"version {version} of the format npy")
    shape, _, dtype = reader(file)
    if dtype.hasobject:
        raise ValueError("it holds objects, and objects may run code")
    return shape, dtype.itemsize
