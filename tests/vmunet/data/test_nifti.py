"""CT volumes on disk: read upright for all orders of axes, and written on the file's own grid."""

import gzip
import os
from itertools import permutations, product
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel import orientations

from vmunet.data.nifti import check_same_grid, read_labels, read_volume, write_labels
from vmunet.errors import InputError

ORIENTATIONS = [
    "".join(letters[flip] for letters, flip in zip(axes, flips, strict=True))
    for axes in permutations(["LR", "PA", "IS"])
    for flips in product((0, 1), repeat=3)
]
SHAPE = (4, 3, 5)  # slices, rows, columns
SPACING = (3.0, 0.75, 0.5)  # mm
CT = Path(os.environ.get("VMUNET_MIRROR", "/nowhere")) / "ct"
needs_ct = pytest.mark.skipif(not CT.is_dir(), reason="VMUNET_MIRROR holds no ct/")


def counted() -> np.ndarray:
    """A different number in every voxel, (slices, rows, columns)."""
    return np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE) - 20


def stored(upright: np.ndarray, codes: str, turn: np.ndarray | None = None):
    """A NIfTI image that stores an upright array along the axes `codes`, such as RAS.

    turn: (3, 3), turns the patient's axes: an oblique scan.
    """
    affine = np.diag([-SPACING[2], -SPACING[1], SPACING[0], 1.0])
    affine[:3, 3] = (31.5, -12.25, 400.0)
    if turn is not None:
        affine[:3] = turn @ affine[:3]
    ours, theirs = (orientations.axcodes2ornt(tuple(c)) for c in ("LPS", codes))
    to_file = orientations.ornt_transform(ours, theirs)
    xyz = upright.transpose(2, 1, 0)
    array = orientations.apply_orientation(xyz, to_file)
    image = nibabel.Nifti1Image(array, affine @ orientations.inv_ornt_aff(to_file, xyz.shape))
    image.header.set_xyzt_units("mm", "sec")
    return image


def save(image, path: Path) -> Path:
    nibabel.save(image, path)
    return path


def simple(path: Path, array: np.ndarray | None = None, **header) -> Path:
    """A small file; `header` are fields to set in it."""
    image = stored(counted() if array is None else array, "RAS")
    for name, value in header.items():
        image.header[name] = value
    return save(image, path)


def refused(path: Path, *words: str, read=read_volume) -> None:
    with pytest.raises(InputError) as error:
        read(path)
    message = str(error.value)
    assert path.name in message
    assert "\n" not in message
    for word in words:
        assert word in message


# --- geometry


def test_there_are_48_orientations() -> None:
    assert len(set(ORIENTATIONS)) == 48


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_every_orientation_reads_the_same_and_returns_to_its_own_grid(codes, tmp_path) -> None:
    source = save(stored(counted(), codes), tmp_path / "scan.nii.gz")
    volume = read_volume(source)
    np.testing.assert_array_equal(volume.voxels, counted())
    assert volume.voxels.dtype == np.float32
    assert volume.spacing == SPACING
    np.testing.assert_array_equal(
        volume.affine @ (0, 0, 0, 1), (31.5, -12.25, 400.0, 1)
    )  # the first voxel, wherever the file has it

    labels = (counted() % 14).astype(np.uint8)
    write_labels(tmp_path / "out_labels.nii.gz", labels, volume)
    before, after = nibabel.load(source), nibabel.load(tmp_path / "out_labels.nii.gz")
    np.testing.assert_array_equal(
        np.asarray(after.dataobj), np.asarray(stored(labels, codes).dataobj)
    )
    same_placement(before, after)
    again = read_labels(tmp_path / "out_labels.nii.gz", range(14))
    np.testing.assert_array_equal(again.voxels, labels)
    check_same_grid(volume, again)


def same_placement(before, after) -> None:
    """Shape, affine and both forms with their codes, bit for bit."""
    assert before.shape == after.shape
    np.testing.assert_array_equal(before.affine, after.affine)
    names = ["qform_code", "sform_code", "srow_x", "srow_y", "srow_z", "pixdim", "xyzt_units"]
    names += [f"quatern_{axis}" for axis in "bcd"] + [f"qoffset_{axis}" for axis in "xyz"]
    for name in names:
        assert before.header[name].tobytes() == after.header[name].tobytes(), name


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_simpleitk_sees_the_same(codes, tmp_path) -> None:
    source = save(stored(counted(), codes), tmp_path / "scan.nii")
    image = sitk.DICOMOrient(sitk.ReadImage(str(source)), "LPS")
    volume = read_volume(source)
    np.testing.assert_array_equal(volume.voxels, sitk.GetArrayFromImage(image))
    np.testing.assert_allclose(volume.spacing[::-1], image.GetSpacing(), rtol=1e-6)


def rotation(vector: np.ndarray) -> np.ndarray:
    """The rotation around a vector by its length in radians: (3, 3)."""
    from scipy.spatial.transform import Rotation

    return Rotation.from_rotvec(vector).as_matrix()


@settings(max_examples=60, deadline=None)
@given(
    codes=st.sampled_from(ORIENTATIONS),
    axis=st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda v: np.linalg.norm(v) > 0.1),
    degrees=st.floats(0, 35),  # further ones may be closer to other axes
    form=st.sampled_from(["sform", "qform", "both"]),
    suffix=st.sampled_from([".nii", ".nii.gz"]),
    kind=st.sampled_from([nibabel.Nifti1Image, nibabel.Nifti2Image]),
    byte_order=st.sampled_from("<>"),
    trailing=st.integers(0, 2),
)
def test_oblique_files_of_any_kind_keep_their_grid(
    tmp_path_factory, codes, axis, degrees, form, suffix, kind, byte_order, trailing
) -> None:
    folder = tmp_path_factory.mktemp("oblique")
    turn = rotation(np.radians(degrees) * np.array(axis) / np.linalg.norm(axis))
    plain = stored(counted(), codes, turn)
    array = np.asarray(plain.dataobj).reshape(plain.shape + (1,) * trailing)
    header = kind.header_class(endianness=byte_order)
    image = kind(array.astype(np.int16), plain.affine, header)
    image.set_sform(plain.affine, 0 if form == "qform" else 2)
    image.set_qform(plain.affine, 0 if form == "sform" else 1)
    source = save(image, folder / f"scan{suffix}")
    volume = read_volume(source)
    np.testing.assert_array_equal(volume.voxels, counted())
    np.testing.assert_allclose(volume.spacing, SPACING, rtol=1e-5)
    assert volume.voxel_ml == pytest.approx(np.prod(SPACING) / 1000, rel=1e-5)
    target = folder / f"labels{suffix}"
    write_labels(target, np.full(SHAPE, 3), volume)
    after = nibabel.load(target)
    assert type(after) is kind
    same_placement(nibabel.load(source), after)
    check_same_grid(volume, read_labels(target, {0, 3}))


def test_labels_are_written_plainly(tmp_path) -> None:
    source = simple(tmp_path / "scan.nii.gz", scl_slope=2.0, scl_inter=-5.0, cal_max=400)
    image = nibabel.load(source)
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"a patient"))
    save(image, source)
    volume = read_volume(source)
    write_labels(tmp_path / "a.nii", np.ones(SHAPE, np.int64), volume)
    content = (tmp_path / "a.nii").read_bytes()
    header = nibabel.Nifti1Header(content[:348])
    assert (header["scl_slope"], header["scl_inter"], header["vox_offset"]) == (1, 0, 352)
    assert header.get_data_dtype() == np.uint8
    assert (header["cal_min"], header["cal_max"]) == (0, 0)
    assert content[352:] == bytes([1]) * np.prod(SHAPE)  # no extension, nothing after
    write_labels(tmp_path / "a.nii.gz", np.ones(SHAPE, bool), volume)
    assert gzip.decompress((tmp_path / "a.nii.gz").read_bytes()) == content


def test_the_same_labels_give_the_same_bytes(tmp_path) -> None:
    volume = read_volume(simple(tmp_path / "scan.nii.gz"))
    for name in ("a", "b"):
        write_labels(tmp_path / f"{name}.nii.gz", np.zeros(SHAPE, np.uint8), volume)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_metres_and_micrometres_become_millimetres(tmp_path) -> None:
    for unit, code, factor in (("meter", 1, 1e3), ("micron", 3, 1e-3), ("none known", 7, 1.0)):
        path = simple(tmp_path / f"{unit}.nii", xyzt_units=code)
        np.testing.assert_allclose(read_volume(path).spacing, np.multiply(SPACING, factor))


# --- values


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16, np.int32, np.float64])
def test_numbers_that_fit_are_exact(dtype, tmp_path) -> None:
    limits = np.iinfo(dtype) if dtype is not np.float64 else None
    low, high = (max(limits.min, -(2**24)), min(limits.max, 2**24)) if limits else (-0.5, 0.25)
    array = np.zeros(SHAPE, dtype)
    array.flat[:4] = low, high, 1, 77
    path = save(stored(array, "LPS"), tmp_path / "scan.nii.gz")
    voxels = read_volume(path).voxels
    assert voxels.dtype == np.float32
    np.testing.assert_array_equal(voxels, array)


def test_slope_and_intercept_are_applied(tmp_path) -> None:
    image = stored(counted(), "PIR")
    image.header.set_slope_inter(0.5, -1024)
    path = tmp_path / "scan.nii"
    content = bytearray(image.to_bytes())
    header = nibabel.Nifti1Header(bytes(content[:348]))
    header["scl_slope"], header["scl_inter"] = 0.5, -1024
    content[:348] = header.binaryblock
    content[352:] = np.asarray(stored(counted(), "PIR").dataobj).tobytes(order="F")
    path.write_bytes(content)
    np.testing.assert_array_equal(read_volume(path).voxels, counted() * 0.5 - 1024)


def test_labels_may_be_stored_in_any_type(tmp_path) -> None:
    labels = counted() + 20
    for dtype in (np.uint8, np.int16, np.int32, np.float32, np.float64):
        path = save(stored(labels.astype(dtype), "RAS"), tmp_path / "labels.nii.gz")
        read = read_labels(path, range(60)).voxels
        assert read.dtype == np.uint8
        np.testing.assert_array_equal(read, labels)


def test_labels_stored_with_a_scaling_are_rounded_and_said(tmp_path) -> None:
    """As nibabel stores float64 labels under the header of an image of 16 bits."""
    labels = (counted() % 4).astype(np.float64)
    image = nibabel.Nifti1Image(np.zeros(SHAPE, np.int16), np.diag([1, 1, 1, 1]))
    path = save(nibabel.Nifti1Image(labels, image.affine, image.header), tmp_path / "l.nii.gz")
    stored_labels = np.asarray(nibabel.load(path).dataobj)
    assert 0 < np.abs(stored_labels - labels).max() < 1e-3
    with pytest.warns(UserWarning, match=r"l\.nii\.gz: its labels .*; they are rounded"):
        read = read_labels(path, range(4)).voxels
    assert sorted(np.unique(read)) == [0, 1, 2, 3]
    assert (np.bincount(read.ravel()) == np.bincount(labels.astype(int).ravel())).all()
    refused(
        save(stored(labels + 0.002, "RAS"), path), "0.002", read=lambda p: read_labels(p, range(4))
    )


# --- refusals


def test_labels_that_are_none_are_named(tmp_path) -> None:
    labels = np.zeros(SHAPE, np.float32)
    labels.flat[:5] = 1, 14, 2.5, -3, 14
    path = save(stored(labels, "RAS"), tmp_path / "labels.nii.gz")

    def read(path):
        return read_labels(path, range(14))

    refused(path, "-3.0, 2.5, 14.0", "0 to 13", read=read)
    refused(path, "here 0, 1, 14", read=lambda p: read_labels(p, {0, 1, 14}))
    labels.flat[0] = np.nan
    refused(save(stored(labels, "RAS"), path), "nan", read=read)
    many = save(stored(counted() + 30, "RAS"), path)
    refused(many, "14, 15, 16, 17, 18, 19, 20, 21, ...", read=read)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_voxels_that_are_no_numbers_are_counted(value, tmp_path) -> None:
    array = counted().astype(np.float64)
    array.flat[[3, 9]] = value
    refused(save(stored(array, "RAS"), tmp_path / "scan.nii.gz"), "2 of 60", "NaN or infinite")


@pytest.mark.parametrize("shape", [(4, 5), (4, 3, 5, 2), (4, 3, 5, 1, 2), (7,)])
def test_other_numbers_of_axes_are_refused(shape, tmp_path) -> None:
    image = nibabel.Nifti1Image(np.zeros(shape, np.int16), np.eye(4))
    refused(save(image, tmp_path / "scan.nii.gz"), "three axes", " x ".join(map(str, shape)))


def test_colours_and_complex_numbers_are_refused(tmp_path) -> None:
    colours = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    for array in (colours, np.zeros(SHAPE, np.complex64)):
        path = save(nibabel.Nifti1Image(array, np.eye(4)), tmp_path / "scan.nii.gz")
        refused(path, "real number")


@pytest.mark.parametrize("column", [(0, 0, 0), (3, 0, 0), (0, np.nan, 0), (3, 1e-9, 0)])
def test_an_affine_that_spans_nothing_is_refused(column, tmp_path) -> None:
    path = simple(tmp_path / "scan.nii", sform_code=1)
    header = nibabel.Nifti1Header(path.read_bytes()[:348])
    for name, value in zip(("srow_x", "srow_y", "srow_z"), column, strict=True):
        header[name][1] = value
    rewrite(path, header)
    refused(path, "affine does not span")


@pytest.mark.parametrize("size", [0, np.nan, np.inf])
def test_a_voxel_size_that_is_none_is_refused(size, tmp_path, capfd) -> None:
    path = simple(tmp_path / "scan.nii", sform_code=0, qform_code=1)
    header = nibabel.Nifti1Header(path.read_bytes()[:348])
    header["pixdim"][2] = size
    rewrite(path, header)
    refused(path, "affine does not span", f"{size:g}")
    assert capfd.readouterr().err == ""


def test_a_file_that_does_not_say_how_it_lies_is_refused(tmp_path) -> None:
    path = save(nibabel.Nifti1Image(counted(), None), tmp_path / "scan.nii")
    refused(path, "left and right would be a guess")


def rewrite(path: Path, header: nibabel.Nifti1Header) -> None:
    path.write_bytes(header.binaryblock + path.read_bytes()[348:])


def test_damaged_files_are_refused(tmp_path) -> None:
    path = tmp_path / "scan.nii.gz"
    noise = np.random.default_rng(0).integers(-1000, 1000, SHAPE, dtype=np.int16)
    whole = simple(path, noise).read_bytes()
    plain = gzip.decompress(whole)
    flipped = bytearray(whole)
    flipped[-6] ^= 255  # of the checksum at the very end, which no voxel needs
    middle = bytearray(whole)
    middle[len(whole) // 2] ^= 255
    for content, words in {
        whole[: len(whole) // 2]: "cut short",
        whole[:-4]: "cut short",
        bytes(flipped): "damaged",
        bytes(middle): "",
        gzip.compress(plain[:-1]): "cut short",
        plain[:-1]: "cut short",
        plain[:300]: "not a NIfTI file (300 bytes)",
        b"": "not a NIfTI file (0 bytes)",
        gzip.compress(b""): "not a NIfTI file",
        b"\x89PNG" + bytes(1000): "not a NIfTI file",
    }.items():
        path.write_bytes(content)
        refused(path, words)
    refused(tmp_path / "missing.nii", "no such file")
    refused(tmp_path, "no such file")


def test_a_header_that_promises_too_much_needs_no_memory(tmp_path) -> None:
    path = simple(tmp_path / "scan.nii")
    header = nibabel.Nifti1Header(path.read_bytes()[:348])
    header["dim"][1:4] = 32767
    rewrite(path, header)
    refused(path, "promises 32767 x 32767 x 32767 voxels")


@settings(max_examples=300, deadline=None)
@given(changes=st.lists(st.tuples(st.integers(0, 351), st.integers(0, 255)), max_size=4))
def test_no_header_ends_in_a_traceback(tmp_path_factory, changes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.nii"
    content = bytearray(simple(path).read_bytes())
    for place, byte in changes:
        content[place] = byte
    path.write_bytes(content)
    try:
        voxels = read_volume(path).voxels
    except InputError as error:
        refusal = str(error)
    else:
        refusal = "" if voxels.ndim == 3 else "none"
    assert refusal == "" or "fuzzed.nii" in refusal


# --- grids


def test_grids_agree_whatever_the_order_of_axes(tmp_path) -> None:
    image = read_volume(save(stored(counted(), "LAS"), tmp_path / "image.nii.gz"))
    labels = read_labels(save(stored(np.ones(SHAPE, np.uint8), "SPR"), tmp_path / "l.nii.gz"), {1})
    check_same_grid(image, labels)


def test_grids_agree_whose_affine_was_rounded_or_became_a_quaternion(tmp_path) -> None:
    """The same grid, written with four decimals, or without the matrix (float32 quaternion)."""
    angles = np.radians([0.4, -0.3, 0.2])
    affine = np.eye(4)
    affine[:3, :3] = rotation(angles) @ np.diag([-0.7, -0.7, 1.5])
    affine[:3, 3] = [170.1, 150.2, -300.3]
    voxels = np.zeros((64, 64, 20), np.uint8)

    def written(name, affine, sform=1):
        image = nibabel.Nifti1Image(voxels, affine)
        image.set_qform(affine, 1)
        image.set_sform(affine if sform else None, sform)
        return save(image, tmp_path / name)

    image = read_volume(written("image.nii", affine))
    check_same_grid(image, read_labels(written("q.nii", affine, sform=0), {0}))
    check_same_grid(image, read_labels(written("r.nii", np.round(affine, 4)), {0}))
    with pytest.raises(InputError, match="not on the same grid"):
        check_same_grid(image, read_labels(written("n.nii", np.round(affine, 2)), {0}))


def test_grids_that_differ_are_described(tmp_path) -> None:
    image = read_volume(simple(tmp_path / "image.nii.gz"))

    def against(array, turn=None, shift=0.0):
        other = stored(array, "RAS", turn)
        affine = other.affine.copy()
        affine[2, 3] += shift
        other.set_sform(affine, 1)
        labels = read_labels(save(other, tmp_path / "labels.nii.gz"), {0})
        with pytest.raises(InputError) as error:
            check_same_grid(image, labels)
        message = str(error.value)
        assert "image.nii.gz" in message
        assert "labels.nii.gz" in message
        assert "4 slices of 3 x 5 voxels, 3 x 0.75 x 0.5 mm each" in message
        return message

    same, larger = np.zeros(SHAPE, np.uint8), np.zeros((4, 3, 6), np.uint8)
    assert "shapes differ" in (message := against(larger))
    assert "4 slices of 3 x 6" in message
    assert "up to 0.5 mm apart" in against(same, shift=0.5)
    against(same, shift=0.31)  # a tenth of a voxel of 3 mm is 0.3 mm
    assert "turned by 10 degrees" in against(same, rotation(np.array([0, 0, np.radians(10)])))
    near = stored(same, "RAS")
    affine = near.affine.copy()
    affine[2, 3] += 0.29
    near.set_sform(affine, 1)
    check_same_grid(image, read_labels(save(near, tmp_path / "labels.nii.gz"), {0}))


# --- writing


def test_labels_that_cannot_be_written_are_refused(tmp_path) -> None:
    volume = read_volume(simple(tmp_path / "scan.nii.gz"))
    out = tmp_path / "out.nii.gz"
    for labels, words in [
        (np.zeros((4, 3, 6), np.uint8), "shape"),
        (np.full(SHAPE, 256), "0..255"),
        (np.full(SHAPE, -1), "0..255"),
        (np.full(SHAPE, 0.5), "0..255"),
    ]:
        with pytest.raises(InputError, match=words):
            write_labels(out, labels, volume)
    with pytest.raises(InputError, match=r"\.nii or \.nii\.gz"):
        write_labels(tmp_path / "out.png", np.zeros(SHAPE, np.uint8), volume)
    assert [file.name for file in tmp_path.iterdir()] == ["scan.nii.gz"]


def test_no_partial_file_stays_where_writing_fails(tmp_path, monkeypatch) -> None:
    volume = read_volume(simple(tmp_path / "scan.nii.gz"))

    def full(*paths):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_labels(tmp_path / "out.nii.gz", np.zeros(SHAPE, np.uint8), volume)
    assert [file.name for file in tmp_path.iterdir()] == ["scan.nii.gz"]


# --- a real scan


@needs_ct
def test_a_real_scan_lies_as_a_radiologist_sees_it(tmp_path) -> None:
    image = read_volume(CT / "img0001.nii.gz")
    labels = read_labels(CT / "label0001.nii.gz", range(14))
    check_same_grid(image, labels)
    assert image.voxels.shape == (30, 101, 122)
    assert image.spacing == (3.0, 3.0, 3.0)

    def centre(label: int) -> np.ndarray:
        return np.argwhere(labels.voxels == label).mean(axis=0)

    spleen, right_kidney, left_kidney, liver, aorta = (centre(i) for i in (1, 2, 3, 6, 8))
    assert liver[2] < aorta[2] < spleen[2]  # the patient's right is left
    assert right_kidney[2] < left_kidney[2]
    assert right_kidney[0] < liver[0]  # kidneys lie below the liver
    bone = np.argwhere(image.voxels > 400).mean(axis=0)
    assert aorta[1] < bone[1]  # the spine lies behind
    write_labels(tmp_path / "again.nii.gz", labels.voxels, labels)
    before = nibabel.load(CT / "label0001.nii.gz")
    after = nibabel.load(tmp_path / "again.nii.gz")
    np.testing.assert_array_equal(np.asarray(before.dataobj), np.asarray(after.dataobj))
    same_placement(before, after)
