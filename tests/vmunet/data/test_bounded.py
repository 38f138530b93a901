"""Files that promise or unpack to more than they should are refused before they do so."""

import gzip
import os
import resource
import zipfile
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest

from tests.vmunet.serving.test_uploads import header_of_png
from vmunet.data import bounded, images, limits
from vmunet.data.nifti import read_volume
from vmunet.data.synapse.prepared import _read_h5, _read_npz
from vmunet.errors import InputError
from vmunet.weights.imagenet.read import read_published


def nifti(shape: tuple[int, ...] = (4, 5, 6), edge: float = 1.0, place: float = 0.0) -> bytes:
    affine = np.diag([edge, edge, edge, 1.0])
    affine[:3, 3] = place
    voxels = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    return nibabel.Nifti1Image(voxels, affine).to_bytes()


def refused(read, path: Path, match: str) -> None:
    with pytest.raises(InputError, match=match) as error:
        read(path)
    assert "\n" not in str(error.value)
    assert path.name in str(error.value)


def test_a_gzip_bomb_is_refused_without_its_memory(tmp_path: Path) -> None:
    path, zeros = tmp_path / "bomb.nii.gz", gzip.compress(bytes(2**26), 1)
    with path.open("wb") as file:
        file.write(gzip.compress(nifti()))
        for _ in range(16):  # members of 64 MiB each, 1 GiB in all
            file.write(zeros)
    assert path.stat().st_size < 6e6
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(read_volume, path, "holds more than the 240 bytes that its header promises")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**17  # KiB


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_header_of_tebibytes_is_refused(tmp_path: Path, suffix: str) -> None:
    content = bytearray(nifti())
    header = nibabel.Nifti1Header(bytes(content[:348]))
    header["dim"][1:4] = 30000
    content[:348] = header.binaryblock
    path = tmp_path / f"x{suffix}"
    path.write_bytes(gzip.compress(content) if suffix.endswith("gz") else content)
    refused(read_volume, path, "promises 30000 x 30000 x 30000 voxels; .*--max-voxels")


def test_the_limit_of_voxels_is_raised_by_its_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.nii"
    path.write_bytes(nifti())
    monkeypatch.setenv(limits.MAX_VOXELS, "119")
    refused(read_volume, path, "at most 119")
    limits.raise_limits(voxels=120)  # as the option does; monkeypatch restores the variable
    assert read_volume(path).voxels.shape == (6, 5, 4)
    for wrong in ("0", "-1", "x", "1e9"):
        monkeypatch.setenv(limits.MAX_VOXELS, wrong)
        with pytest.raises(InputError, match=f"VMUNET_MAX_VOXELS={wrong}: expected a number"):
            read_volume(path)
    with pytest.raises(InputError, match="--max-pixels 0: expected"):
        limits.raise_limits(pixels=0)


def test_bytes_after_the_voxels_are_read_over_up_to_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.nii"
    path.write_bytes(nifti() + bytes(1000))
    assert read_volume(path).voxels.max() == 119
    monkeypatch.setattr(bounded, "MOST_EXTRA", 900)
    refused(read_volume, path, "holds more than")


@pytest.mark.parametrize(("edge", "place"), [(1e30, 0), (1e8, 0), (1e-12, 0), (1, 1e30), (1, -1e9)])
def test_places_that_no_scanner_has_are_refused(tmp_path: Path, edge: float, place: float) -> None:
    path = tmp_path / "x.nii"
    path.write_bytes(nifti(edge=edge, place=place))
    refused(read_volume, path, "affine")


def test_every_reader_of_images_looks_at_the_header_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "huge.png"
    path.write_bytes(header_of_png(100_000, 100_000))
    for read in (images.decode, images.read_rgb, images.read_mask):
        refused(read, path, "10000 megapixels; expected at most 400: .*--max-pixels")
    monkeypatch.setenv(limits.MAX_PIXELS, "10000000000")
    refused(images.decode, path, "not a readable image")  # the file has nothing but its header


def h5_files(folder: Path) -> None:
    """HDF5 files whose 'image' lies in secret.h5 or secret.bin, or is too large."""
    secret = np.full((2, 3, 3), 0.5)
    with h5py.File(folder / "secret.h5", "w") as file:
        file["image"] = secret
    secret.tofile(folder / "secret.bin")
    layout = h5py.VirtualLayout(shape=(2, 3, 3), dtype="f8")
    layout[:] = h5py.VirtualSource(str(folder / "secret.h5"), "image", shape=(2, 3, 3))
    stored = [(str(folder / "secret.bin"), 0, h5py.h5f.UNLIMITED)]
    for name, fill in {
        "external": lambda f: f.__setitem__("image", h5py.ExternalLink("secret.h5", "/image")),
        "soft": lambda f: f.__setitem__("image", h5py.SoftLink("/label")),
        "storage": lambda f: f.create_dataset("image", (2, 3, 3), "f8", external=stored),
        "virtual": lambda f: f.create_virtual_dataset("image", layout),
        "group": lambda f: f.create_group("image"),
        "text": lambda f: f.__setitem__("image", "x"),
        "huge": lambda f: f.create_dataset("image", (10**6, 10**6), "f8", chunks=(10, 10)),
    }.items():
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file["label"] = np.zeros((2, 3, 3), np.uint8)
            fill(file)


def test_h5_files_give_their_own_numbers_alone(tmp_path: Path) -> None:
    h5_files(tmp_path)
    for name in ("external", "soft", "storage", "virtual", "group", "text"):
        refused(_read_h5, tmp_path / f"{name}.h5", "'image' is not an array of numbers in this")
    refused(_read_h5, tmp_path / "huge.h5", "promises 1000000 x 1000000 voxels")


def test_an_npz_that_promises_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    for name, shape in {"huge": "(1000000, 1000000, 1000)", "more": "(1000, 1000)"}.items():
        path = tmp_path / f"{name}.npz"
        text = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
        array = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + bytes(80)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("image.npy", array)
            archive.writestr("label.npy", array)
        for read in (_read_npz, read_published):
            refused(read, path, "promises|does not fit its size")


def test_a_whole_npz_is_read(tmp_path: Path) -> None:
    image, label = np.random.rand(3, 4), np.zeros((3, 4), np.uint8)
    np.savez_compressed(tmp_path / "a.npz", image=image, label=label)
    for given, read in zip((image, label), _read_npz(tmp_path / "a.npz"), strict=True):
        np.testing.assert_array_equal(read, given)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["image"], file["label"] = image, label
    for given, read in zip((image, label), _read_h5(tmp_path / "a.h5"), strict=True):
        np.testing.assert_array_equal(read, given)
    assert os.environ.get(limits.MAX_VOXELS) is None
