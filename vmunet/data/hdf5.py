"""Read an HDF5 file of unknown origin within `vmunet.data.limits`."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmunet.data.limits import check_voxels
from vmunet.errors import InputError


def read_h5(path: Path, content: Any, keys: Iterable[str]) -> list[NDArray]:
    """The arrays of an open HDF5 file, all of whose numbers lie in the file itself.

    Raises:
        InputError: one is a link, lies in another file, holds no numbers, or is too large.
    """
    import h5py

    arrays = []
    for key in keys:
        is_link = not isinstance(content.get(key, getlink=True), h5py.HardLink)
        found = None if is_link else content[key]
        if not isinstance(found, h5py.Dataset) or not _is_own(found):
            raise InputError(
                f"{path}: '{key}' is not an array of numbers in this file itself; links to other "
                "files are not followed: copy its numbers into it"
            )
        check_voxels(found.shape, path)
        arrays.append(np.asarray(found))
    return arrays


def _is_own(found: Any) -> bool:
    """Whether a dataset's numbers lie in its own file."""
    return not (found.external or found.is_virtual) and found.dtype.kind in "iufb"
