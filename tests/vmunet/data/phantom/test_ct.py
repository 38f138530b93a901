"""CT phantoms: the same bytes every time, stored in many orientations, organs where they belong."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from vmunet.data.phantom.ct import CASES, ORIENTATIONS, WITHOUT_GALLBLADDER, ct_phantom, write_btcv
from vmunet.data.phantom.patient import LABELS
from vmunet.errors import InputError

SLICES = (24, 32)
LEAST = {  # voxels at 64 pixels and 24 to 32 slices
    "spleen": 200,
    "right kidney": 150,
    "left kidney": 150,
    "gallbladder": 15,
    "esophagus": 1,
    "liver": 3000,
    "stomach": 300,
    "aorta": 100,
    "inferior vena cava": 100,
    "portal and splenic vein": 15,
    "pancreas": 60,
    "right adrenal gland": 1,
    "left adrenal gland": 1,
}
PLAUSIBLE = {  # HU: range of an organ's median; partial volume and the stomach's gas pull it down
    "spleen": (85, 140),
    "right kidney": (110, 210),
    "left kidney": (110, 210),
    "gallbladder": (-20, 50),
    "liver": (85, 130),
    "stomach": (-800, 120),
    "aorta": (100, 190),
    "inferior vena cava": (90, 175),
    "pancreas": (55, 120),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("btcv")
    write_btcv(folder, CASES, 64, SLICES, seed=5)
    return folder / "RawData" / "Training"


def load(training: Path, case: int) -> tuple[nib.Nifti1Image, nib.Nifti1Image]:
    image = nib.load(training / "img" / f"img{case:04d}.nii.gz")
    label = nib.load(training / "label" / f"label{case:04d}.nii.gz")
    return image, label


def centroids(label: nib.Nifti1Image) -> dict[str, np.ndarray]:
    """The organs' centroids in mm in the patient's frame, by the affine alone."""
    voxels = np.asanyarray(label.dataobj)
    return {
        name: nib.affines.apply_affine(label.affine, np.argwhere(voxels == k).mean(0))
        for name, k in LABELS.items()
        if (voxels == k).any()
    }


def test_files_have_btcvs_names_types_and_sizes(written):
    for kind in ("img", "label"):
        expected = {f"{kind}{case:04d}.nii.gz" for case in CASES}
        assert {p.name for p in (written / kind).iterdir()} == expected
    assert len(CASES) == 30
    for case in CASES:
        image, label = load(written, case)
        assert image.get_data_dtype() == np.int16
        assert label.get_data_dtype() == np.uint8
        assert image.shape == label.shape
        assert sorted(image.shape)[1:] == [64, 64]
        assert SLICES[0] <= min(image.shape) <= SLICES[1]
        np.testing.assert_array_equal(image.affine, label.affine)
        np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-3)
        assert image.header.get_xyzt_units()[0] == "mm"
        spacing = sorted(image.header.get_zooms())
        assert 3 <= spacing[0] <= 5
        assert 300 / 64 - 0.01 < spacing[1] == spacing[2] < 450 / 64 + 0.01


def test_all_orientations_are_stored_some_with_other_axis_orders(written):
    stored = {case: "".join(nib.aff2axcodes(load(written, case)[0].affine)) for case in CASES}
    assert set(stored.values()) == set(ORIENTATIONS)
    last = [code[2] in "SI" for code in stored.values()]
    assert 0.7 < np.mean(last) < 1


def test_bytes_depend_on_the_seed_and_the_case_alone(written, tmp_path):
    write_btcv(tmp_path / "some", [40, 3], 64, SLICES, seed=5)
    write_btcv(tmp_path / "other", [3], 64, SLICES, seed=6)
    for kind in ("img", "label"):
        for case in (3, 40):
            name = f"{kind}/{kind}{case:04d}.nii.gz"
            again = (tmp_path / "some" / "RawData" / "Training" / name).read_bytes()
            assert again == (written / name).read_bytes()
            assert again[4:8] == bytes(4)  # gzip's time stamp
            assert not again[3] & 8  # gzip's file name
        name = f"{kind}/{kind}0003.nii.gz"
        other = (tmp_path / "other" / "RawData" / "Training" / name).read_bytes()
        assert other != (written / name).read_bytes()


def test_every_organ_is_there_but_the_gallbladders_that_were_removed(written):
    for case in CASES:
        voxels = np.asanyarray(load(written, case)[1].dataobj)
        assert voxels.max() <= 13
        for name, k in LABELS.items():
            count = (voxels == k).sum()
            if name == "gallbladder" and case in WITHOUT_GALLBLADDER:
                assert count == 0
            else:
                assert count >= LEAST[name], (case, name)
    assert set(WITHOUT_GALLBLADDER) < set(CASES)


@pytest.mark.parametrize("seed", [0, 1])
def test_small_organs_survive_in_other_series(seed):
    for case in CASES[::3]:
        label = ct_phantom(seed, case, 64, SLICES).label
        for name in ("pancreas", "aorta", "spleen", "left kidney"):
            assert (label == LABELS[name]).sum() >= LEAST[name], (case, name)


def test_organs_lie_where_they_belong_in_every_orientation(written):
    for case in CASES:
        image, label = load(written, case)
        at = centroids(label)
        hu = np.asanyarray(image.dataobj)
        body = nib.affines.apply_affine(image.affine, np.argwhere(hu > -300).mean(0))
        bone = nib.affines.apply_affine(image.affine, np.argwhere(hu > 280).mean(0))
        right = {name: (centre - body)[0] for name, centre in at.items()}
        assert right["liver"] > 20
        assert right["spleen"] < -40
        assert right["stomach"] < 0
        assert right["right kidney"] > 30
        assert right["left kidney"] < -30
        assert right["aorta"] < right["inferior vena cava"]
        assert bone[1] < body[1]
        for name in ("right kidney", "left kidney", "spleen"):
            assert at[name][1] < at["pancreas"][1] < at["stomach"][1] + 60
        assert at["stomach"][1] > at["aorta"][1]
        assert at["liver"][2] > at["right kidney"][2]
        if "gallbladder" in at:
            assert at["gallbladder"][2] < at["liver"][2]
            assert right["gallbladder"] > 0


def test_intensities_are_those_of_the_portal_venous_phase(written):
    medians: dict[str, list[float]] = {name: [] for name in PLAUSIBLE}
    for case in CASES:
        image, label = (np.asanyarray(part.dataobj) for part in load(written, case))
        assert -1024 <= image.min() < -950
        assert 300 < image.max() < 1500
        for name, (low, high) in PLAUSIBLE.items():
            inside = image[label == LABELS[name]]
            if inside.size:
                medians[name].append(float(np.median(inside)))
                assert low < medians[name][-1] < high, (case, name)
    # neighbours overlap: no threshold separates them
    assert max(medians["liver"]) > min(medians["spleen"])
    assert max(medians["pancreas"]) > min(medians["spleen"]) - 10
    assert max(medians["aorta"]) > min(medians["left kidney"])


def test_few_slices_are_thick_and_still_meet_the_organs():
    made = ct_phantom(2, 7, 64, (8, 8))
    assert made.image.shape == made.label.shape == (64, 64, 8)
    assert made.affine[2, 2] > 10
    for name in ("liver", "spleen", "left kidney", "right kidney", "pancreas", "aorta"):
        assert (made.label == LABELS[name]).any(), name


def test_one_patient_looks_alike_at_any_size():
    small, large = (ct_phantom(2, 7, size, (24, 24)).label for size in (64, 128))
    agree = large[::2, ::2] == small
    assert agree.mean() > 0.93


@pytest.mark.parametrize(
    ("cases", "size", "slices", "seed", "told"),
    [
        ([0], 64, (24, 32), 0, "cases"),
        ([], 64, (24, 32), 0, "cases"),
        ([1, 1], 64, (24, 32), 0, "cases"),
        ([1], 31, (24, 32), 0, "size"),
        ([1], 64, (7, 32), 0, "slices"),
        ([1], 64, (32, 24), 0, "slices"),
        ([1], 64, (24, 32), -1, "seed"),
    ],
)
def test_a_wrong_argument_is_told_and_nothing_is_written(tmp_path, cases, size, slices, seed, told):
    with pytest.raises(InputError, match=told):
        write_btcv(tmp_path, cases, size, slices, seed)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_not_replaced(tmp_path):
    (tmp_path / "RawData").mkdir()
    (tmp_path / "RawData" / "mine").touch()
    with pytest.raises(InputError, match="exists"):
        write_btcv(tmp_path, [1], 32, (8, 8), seed=0)
    assert (tmp_path / "RawData" / "mine").exists()


def test_nothing_is_left_when_a_case_fails(tmp_path, monkeypatch):
    def fail(*args: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("vmunet.data.phantom.ct.ct_phantom", fail)
    with pytest.raises(OSError, match="disk full"):
        write_btcv(tmp_path, [1, 2], 32, (8, 8), seed=0)
    assert list(tmp_path.iterdir()) == []
