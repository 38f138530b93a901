"""Synapse from its sources: the raw volumes, the prepared files, synapse.org's client."""

import json
import os
import shutil
import stat
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest

from pipeline.config.params import PhantomVolumes
from stages.volumes import provide
from vmunet import InputError
from vmunet.data.phantom.ct import write_btcv
from vmunet.data.synapse import client as synapse_client
from vmunet.data.synapse.client import from_synapse
from vmunet.data.synapse.official import (
    BTCV,
    CLASSES,
    TEST,
    TRAIN,
    TRAIN_SLICES,
    WINDOW,
    organs_of,
)
from vmunet.data.synapse.prepared import prepared_cases
from vmunet.data.synapse.raw import raw_cases, read_raw
from vmunet.data.volumes import AT_ONCE, Case, Pixels, write_volumes

NUMBERS = [int(name.removeprefix("case")) for name in (*TRAIN, *TEST)]
FACTS = {"view": "synapse-32", "dataset": "synapse", "source": "file", "window": list(WINDOW)}


def test_the_split_is_the_published_one() -> None:
    assert len(TRAIN) == 18
    assert len(TEST) == 12
    assert sum(TRAIN_SLICES.values()) == 2211
    assert sorted(NUMBERS) == [*range(1, 11), *range(21, 41)]


def test_the_split_is_that_of_the_lists() -> None:
    lists = Path(os.environ.get("VMUNET_MIRROR", "")) / "synapse_lists"
    if not (os.environ.get("VMUNET_MIRROR") and lists.is_dir()):
        pytest.skip("VMUNET_MIRROR holds no synapse_lists")
    slices = (lists / "train.txt").read_text().split()
    expected = [f"{name}_slice{i:03}" for name, n in TRAIN_SLICES.items() for i in range(n)]
    assert sorted(slices) == sorted(expected)
    assert sorted((lists / "test_vol.txt").read_text().split()) == list(TEST)


def test_thirteen_labels_become_the_papers_eight() -> None:
    names = ("background", *CLASSES)
    mapped = organs_of(np.arange(14, dtype=np.uint8))
    for label, name in enumerate(("background", *BTCV)):
        assert names[mapped[label]] == (name if name in CLASSES else "background")
    # the two orders in numbers, from the dataset's and the published code's descriptions
    assert mapped.tolist() == [0, 7, 4, 3, 2, 0, 5, 8, 1, 0, 0, 6, 0, 0]


# -- raw volumes


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    write_btcv(folder, NUMBERS, 32, (8, 10), seed=3)
    return folder


@pytest.fixture
def training(raw: Path, tmp_path: Path) -> Path:
    """A copy of RawData/Training that a test may damage."""
    shutil.copytree(raw / "RawData", tmp_path / "RawData")
    return tmp_path / "RawData" / "Training"


def test_raw_volumes_become_arrays(raw: Path, tmp_path: Path) -> None:
    target = tmp_path / "arrays" / "synapse-32"
    manifest = write_volumes(target, FACTS, CLASSES, *raw_cases(raw))
    assert json.loads((target / "manifest.json").read_text()) == manifest
    assert (manifest["train"], manifest["test"]) == (list(TRAIN), list(TEST))
    assert (manifest["n_train"], manifest["n_test"]) == (18, 12)
    depths = {name: manifest["cases"][name]["shape"][0] for name in TRAIN}
    assert manifest["train_slices"] == sum(depths.values())
    assert manifest["absent"]["gallbladder"] >= 1
    assert manifest["absent"]["liver"] == 0
    for name in ("case0007", "case0008"):
        image = np.load(target / "cases" / name / "image.npy")
        labels = np.load(target / "cases" / name / "labels.npy")
        assert image.dtype == np.float32
        assert labels.dtype == np.uint8
        assert (image.min(), image.max()) == (0, 1)
        counts = [int((labels == i + 1).sum()) for i in range(8)]
        assert counts == list(manifest["cases"][name]["voxels"].values())
        # the patient's right is on the left: the liver is there, the spleen opposite
        columns = [
            np.nonzero(labels == CLASSES.index(c) + 1)[2].mean() for c in ("liver", "spleen")
        ]
        assert columns[0] < columns[1]
        mm = manifest["cases"][name]["spacing"]
        assert 3 <= mm[0] <= 20
        assert mm[1] == mm[2]


def test_a_window_is_clipped_and_scaled(training: Path) -> None:
    path = training / "img" / "img0001.nii.gz"
    pixels = read_raw(path, training / "label" / "label0001.nii.gz")
    hu = np.asarray(nibabel.load(path).dataobj)
    inside = float(((hu > -125) & (hu < 275)).mean())
    assert float(((pixels.image > 0) & (pixels.image < 1)).mean()) == pytest.approx(inside)
    assert pixels.image.max() == 1
    values = pixels.image[(pixels.image > 0) & (pixels.image < 1)] * 400 - 125
    assert np.abs(values - np.rint(values)).max() < 1e-3  # whole HU


def test_the_folders_between_are_found_too(raw: Path) -> None:
    for folder in (raw, raw / "RawData", raw / "RawData" / "Training"):
        train, test = raw_cases(folder)
        assert [case.name for case in (*train, *test)] == [*TRAIN, *TEST]


def test_no_raw_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no RawData/Training/img; give the folder"):
        raw_cases(tmp_path)


def test_a_missing_volume_is_named(training: Path) -> None:
    (training / "label" / "label0033.nii.gz").unlink()
    with pytest.raises(InputError, match=r"label0033\.nii\.gz: not there; all 30"):
        raw_cases(training)


def change(path: Path, edit: Callable[[np.ndarray, np.ndarray], tuple]) -> None:
    image = nibabel.load(path)
    voxels, affine = edit(np.asarray(image.dataobj).copy(), image.affine.copy())
    nibabel.Nifti1Image(voxels, affine).to_filename(path)


def read_first(training: Path) -> Pixels:
    return read_raw(training / "img" / "img0001.nii.gz", training / "label" / "label0001.nii.gz")


def test_labels_outside_the_thirteen(training: Path) -> None:
    def edit(voxels: np.ndarray, affine: np.ndarray) -> tuple:
        voxels[0, 0, 0] = 14
        return voxels, affine

    change(training / "label" / "label0001.nii.gz", edit)
    with pytest.raises(InputError, match=r"label0001.*14.*0 to 13"):
        read_first(training)


def test_grids_that_differ(training: Path) -> None:
    def moved(voxels: np.ndarray, affine: np.ndarray) -> tuple:
        affine[:3, 3] += 5
        return voxels, affine

    change(training / "label" / "label0001.nii.gz", moved)
    with pytest.raises(InputError, match=r"img0001.*label0001.*not on the same grid"):
        read_first(training)


def test_a_nan_in_a_volume(training: Path) -> None:
    def edit(voxels: np.ndarray, affine: np.ndarray) -> tuple:
        voxels = voxels.astype(np.float32)
        voxels[3, 3, 3] = np.nan
        return voxels, affine

    change(training / "img" / "img0001.nii.gz", edit)
    with pytest.raises(InputError, match=r"img0001.*1 of \d+ voxels are NaN"):
        read_first(training)


def test_a_volume_cut_short(training: Path) -> None:
    path = training / "img" / "img0001.nii.gz"
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(InputError, match=r"img0001.*cut short"):
        read_first(training)


def test_nothing_is_left_of_a_failed_write(training: Path, tmp_path: Path) -> None:
    target = tmp_path / "arrays" / "synapse-32"
    (training / "img" / "img0040.nii.gz").write_bytes(b"no volume")
    with pytest.raises(InputError, match="img0040"):
        write_volumes(target, FACTS, CLASSES, *raw_cases(training))
    assert list(target.parent.iterdir()) == []


def test_the_stage_notes_the_size_that_slices_train_at(tmp_path: Path) -> None:
    """The voxels are the same at every size; the manifest's size makes DVC train again."""
    source = PhantomVolumes(source="phantom", side=32, slices=[8, 8])
    provide(source, tmp_path / "synapse-64", 64)
    manifest = json.loads((tmp_path / "synapse-64" / "manifest.json").read_text())
    assert (manifest["view"], manifest["size"]) == ("synapse-64", 64)


def test_few_volumes_are_in_memory_at_once(tmp_path: Path) -> None:
    reading, most, lock = 0, 0, threading.Lock()

    def read(value: int) -> Pixels:
        nonlocal reading, most
        with lock:
            reading += 1
            most = max(most, reading)
        time.sleep(0.02)
        with lock:
            reading -= 1
        return case("", value / 10).read()

    cases = [Case(str(i), lambda i=i: read(i)) for i in range(8)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "cpu_count", lambda: 64)
        write_volumes(tmp_path / "arrays", FACTS, CLASSES, cases[:4], cases[4:])
    assert most == AT_ONCE


def test_other_numbers_of_slices_than_published(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"case\d{4}: \d+ slices, the published list has \d+"):
        write_volumes(tmp_path / "a", FACTS, CLASSES, *raw_cases(raw), slices=TRAIN_SLICES)


# -- the split


def case(name: str, value: float = 0.0, label: int = 1, depth: int = 3) -> Case:
    def read() -> Pixels:
        labels = np.full((depth, 4, 4), label, np.uint8)
        return Pixels(np.full((depth, 4, 4), value, np.float32), labels, None)

    return Case(name, read)


@pytest.mark.parametrize(
    ("train", "test", "said"),
    [
        ([case("a", 0.1), case("b", 0.2)], [case("a", 0.3)], "a: this case trains and tests"),
        ([case("a", 0.1), case("a", 0.2)], [case("b", 0.3)], "a: this case is there twice"),
        ([case("a", 0.1)], [case("b", 0.1)], "a and b are the same volume"),
        ([case("a", 0.1)], [], "1 training and 0 test cases; at least one of each"),
        ([case("a", 0.1)], [case("b", 0.2, label=9)], "b: label 9 is of no class; expected 0 to 8"),
    ],
)
def test_a_split_that_cannot_be(
    train: list[Case], test: list[Case], said: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=said):
        write_volumes(tmp_path / "arrays", FACTS, CLASSES, train, test)
    assert not (tmp_path / "arrays").exists()


# -- the prepared files


@pytest.fixture(scope="module")
def prepared_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All 2,211 slices and 12 volumes, of 4x4 pixels."""
    folder = tmp_path_factory.mktemp("prepared")
    (folder / "train_npz").mkdir()
    (folder / "test_vol_h5").mkdir()
    random = np.random.default_rng(5)
    for name, count in TRAIN_SLICES.items():
        for i in range(count):
            image = (random.integers(0, 401, (4, 4)) / 400).astype(np.float32)
            label = random.integers(0, 9, (4, 4)).astype(np.float32)
            np.savez(folder / "train_npz" / f"{name}_slice{i:03}.npz", image=image, label=label)
    for name in TEST:
        with h5py.File(folder / "test_vol_h5" / f"{name}.npy.h5", "w") as file:
            file["image"] = (random.integers(0, 401, (5, 4, 4)) / 400).astype(np.float32)
            file["label"] = random.integers(0, 9, (5, 4, 4)).astype(np.float32)
    return folder


@pytest.fixture
def prepared(prepared_set: Path, tmp_path: Path) -> Path:
    """The prepared set as links, which a test may damage by replacing files, not by writing."""
    shutil.copytree(prepared_set, tmp_path / "prepared", copy_function=os.link)
    return tmp_path / "prepared"


def put(path: Path, **arrays: np.ndarray) -> None:
    path.unlink(missing_ok=True)
    if path.suffix == ".npz":
        np.savez(path, **arrays)
        return
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array


def test_prepared_files_become_arrays(prepared_set: Path, tmp_path: Path) -> None:
    target = tmp_path / "synapse-32"
    manifest = write_volumes(
        target, FACTS, CLASSES, *prepared_cases(prepared_set), slices=TRAIN_SLICES
    )
    assert manifest["train_slices"] == 2211
    assert manifest["cases"]["case0001"]["spacing"] is None
    stored = np.load(target / "cases" / "case0040" / "image.npy")
    with np.load(prepared_set / "train_npz" / "case0040_slice194.npz") as last:
        assert np.array_equal(stored[194], last["image"])
    labels = np.load(target / "cases" / "case0038" / "labels.npy")
    with h5py.File(prepared_set / "test_vol_h5" / "case0038.npy.h5") as file:
        assert np.array_equal(labels, file["label"][:])


SLICE, VOLUME = "train_npz/case0005_slice003.npz", "test_vol_h5/case0003.npy.h5"
GOOD = np.zeros((4, 4), np.float32)
GOOD3 = np.zeros((5, 4, 4), np.float32)


@pytest.mark.parametrize(
    ("path", "arrays", "said"),
    [
        (SLICE, {"img": GOOD, "label": GOOD}, "holds img, label; expected 'image' and 'label'"),
        (SLICE, {"image": GOOD, "label": GOOD + 9}, "label 9; expected 0 to 8"),
        (SLICE, {"image": GOOD * np.nan, "label": GOOD}, "16 pixels are NaN or inf"),
        (SLICE, {"image": GOOD + 40, "label": GOOD}, "intensities 40 to 40; expected 0 to 1"),
        (SLICE, {"image": GOOD[:3], "label": GOOD}, r"image \(3, 4\) and label \(4, 4\)"),
        (SLICE, {"image": GOOD[:3], "label": GOOD[:3]}, r"\(3, 4\) pixels, case0005_slice000"),
        (VOLUME, {"image": GOOD3}, "holds image; expected 'image' and 'label'"),
        (VOLUME, {"image": GOOD, "label": GOOD}, "expected 3 axes"),
        (VOLUME, {"image": GOOD3, "label": GOOD3 + 0.5}, "label 0.5; expected 0 to 8"),
    ],
)
def test_prepared_files_that_are_wrong(
    prepared: Path, path: str, arrays: dict[str, np.ndarray], said: str, tmp_path: Path
) -> None:
    put(prepared / path, **arrays)
    with pytest.raises(InputError, match=said) as raised:
        write_volumes(tmp_path / "arrays", FACTS, CLASSES, *prepared_cases(prepared))
    assert path.split("/")[1] in str(raised.value)
    assert not (tmp_path / "arrays").exists()


@pytest.mark.parametrize("path", [SLICE, VOLUME])
def test_prepared_files_cut_short(prepared: Path, path: str, tmp_path: Path) -> None:
    content = (prepared / path).read_bytes()
    (prepared / path).unlink()
    (prepared / path).write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="not a whole"):
        write_volumes(tmp_path / "arrays", FACTS, CLASSES, *prepared_cases(prepared))


def test_pickles_are_not_loaded(prepared: Path, tmp_path: Path) -> None:
    trap = np.array([[print]], dtype=object)
    put(prepared / SLICE, image=trap, label=GOOD)
    with pytest.raises(InputError, match="not a whole npz of arrays"):
        write_volumes(tmp_path / "arrays", FACTS, CLASSES, *prepared_cases(prepared))


def test_a_single_array_under_an_npzs_name(prepared: Path, tmp_path: Path) -> None:
    (prepared / SLICE).unlink()
    with (prepared / SLICE).open("wb") as file:
        np.save(file, GOOD)
    with pytest.raises(InputError, match=r"case0005_slice003\.npz: not a whole npz of arrays"):
        write_volumes(tmp_path / "arrays", FACTS, CLASSES, *prepared_cases(prepared))


def test_prepared_sets_that_are_incomplete(prepared: Path) -> None:
    (prepared / SLICE).unlink()
    with pytest.raises(InputError, match=r"case0005_slice003\.npz: not there; case0005 has 117"):
        prepared_cases(prepared)
    shutil.copy(prepared / "train_npz" / "case0005_slice000.npz", prepared / SLICE)
    shutil.move(prepared / VOLUME, prepared / "test_vol_h5" / "case0077.npy.h5")
    with pytest.raises(InputError, match="case0003 is not there"):
        prepared_cases(prepared)


def test_a_case_in_both_prepared_folders(prepared: Path) -> None:
    put(prepared / "test_vol_h5" / "case0040.npy.h5", image=GOOD3, label=GOOD3)
    with pytest.raises(InputError, match="case0040: this case is in train_npz and in test_vol_h5"):
        prepared_cases(prepared)


def test_no_prepared_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no train_npz; give the folder"):
        prepared_cases(tmp_path)


# -- synapse.org's client


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Puts a program `synapse` with this shell script on PATH, and a token into the environment."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}/usr/bin{os.pathsep}/bin")
    monkeypatch.setenv(synapse_client.TOKEN, "a-token")

    def install(script: str) -> Path:
        path = programs / "synapse"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IEXEC)
        return tmp_path / "downloads"

    return install


def zipped(raw: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in raw.rglob("*.nii.gz"):
            archive.write(file, file.relative_to(raw))
    return path


def test_the_client_downloads_once(raw: Path, client: Callable, tmp_path: Path) -> None:
    archive = zipped(raw, tmp_path / "source.zip")
    calls = tmp_path / "calls"
    downloads = client(
        f'echo "$@" >> {calls}\n[ "$SYNAPSE_AUTH_TOKEN" = a-token ] || exit 3\n'
        f'[ "$1 $2 $3" = "get syn3379050 --downloadLocation" ] && cp {archive} "$4/RawData.zip"'
    )
    for _ in range(2):
        train, test = raw_cases(from_synapse(downloads))
        assert len(train) + len(test) == 30
    assert len(calls.read_text().splitlines()) == 1
    assert sorted(p.name for p in downloads.iterdir()) == [".synapse.lock", "RawData.zip", "raw"]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("SynapseAuthenticationError: 401 Client Error: Invalid access token", "may have expired"),
        ("SynapseUnmetAccessRestrictions: unmet access requirements", "accept its terms"),
        ("SynapseHTTPError: 403 Client Error: Forbidden", "accept its terms"),
        ("ConnectionError: Name or service not known", "could not download syn3379050"),
    ],
)
def test_what_the_client_refuses(client: Callable, said: str, expected: str) -> None:
    downloads = client(f'echo "Traceback" >&2; echo "{said}" >&2; exit 1')
    with pytest.raises(InputError, match=expected) as raised:
        from_synapse(downloads)
    assert said in str(raised.value)
    assert sorted(p.name for p in downloads.iterdir()) == [".synapse.lock"]


def test_no_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(synapse_client.TOKEN, raising=False)
    with pytest.raises(InputError, match="SYNAPSE_AUTH_TOKEN is not set; make an account"):
        from_synapse(tmp_path / "downloads")


def test_no_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(synapse_client.TOKEN, "a-token")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="'synapse', is not on PATH: install it outside"):
        from_synapse(tmp_path / "downloads")


def test_an_archive_that_is_none(client: Callable) -> None:
    downloads = client('echo "<html>" > "$4/RawData.zip"')
    with pytest.raises(InputError, match=r"RawData\.zip: a web page"):
        from_synapse(downloads)
    assert not (downloads / "raw").exists()
