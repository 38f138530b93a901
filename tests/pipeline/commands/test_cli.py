"""The command `vmunet`, mostly run as the installed script in a separate process."""

import pickle
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import nibabel
import numpy as np
import pytest
import torch

from pipeline import cli
from pipeline.cli import COMMANDS
from vmunet import VMUNet
from vmunet.commands import version
from vmunet.weights.checkpoints import save_checkpoint

SCRIPT = Path(sys.executable).with_name("vmunet")


def vmunet(*arguments, cwd=None):
    return subprocess.run(
        [SCRIPT, *map(str, arguments)], capture_output=True, text=True, timeout=120, cwd=cwd
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folder of two seeds of a tiny model, trained at 64 px by name only."""
    folder = tmp_path_factory.mktemp("cell")
    for seed in (42, 43):
        torch.manual_seed(seed)
        (folder / str(seed)).mkdir()
        model = VMUNet(dims=(8, 16, 32, 64))
        metadata = {"normalisation": "minmax", "size": 64, "protocol": "paper"}
        save_checkpoint(folder / str(seed) / "weights.safetensors", model, metadata)
    return folder


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (45, 77, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "photo.jpg"), pixels)
    return tmp_path / "photo.jpg"


@pytest.fixture(scope="module")
def ct(tmp_path_factory):
    """Weights of a tiny CT model of two organs."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("ct") / "ct.safetensors"
    metadata = {
        "normalisation": "window",
        "window": [-125, 275],
        "size": 64,
        "classes": ["aorta", "liver"],
        "protocol": "sound",
    }
    save_checkpoint(path, VMUNet(dims=(8, 16, 32, 64), num_classes=3), metadata)
    return path


@pytest.fixture
def scan(tmp_path):
    hu = np.random.default_rng(0).integers(-1000, 1000, (20, 30, 3), dtype=np.int16)
    nibabel.save(nibabel.Nifti1Image(hu, np.diag([2.0, 2.0, 5.0, 1.0])), tmp_path / "scan.nii.gz")
    return tmp_path / "scan.nii.gz"


def failed(capsys, *arguments):
    """Run a command that must fail in this process; its only line on stderr."""
    assert cli.main([str(argument) for argument in arguments]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    lines = output.err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    return lines[0]


@pytest.mark.parametrize("command", [(), ("predict",), ("profile",), ("runs",), ("version",)])
def test_help_answers_at_once(command):
    seconds = []
    for _ in range(3):
        before = processor_seconds()
        done = vmunet(*command, "--help")
        seconds.append(processor_seconds() - before)
        assert done.returncode == 0
        assert done.stdout.startswith(f"usage: {' '.join(('vmunet', *command))}")
        assert done.stderr == ""
    # the best of three, because other programs may run; importing torch takes over a second
    assert min(seconds) < 0.3


def processor_seconds():
    """The processor time of the processes that this one has waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def test_help_shows_every_command_and_examples():
    text = vmunet("--help").stdout
    for command in COMMANDS:
        assert f"  {command} " in text
    assert "vmunet predict runs/" in vmunet("predict", "--help").stdout


def test_wrong_grammar_is_a_usage_error():
    for arguments in [(), ("segment",), ("predict", "w.safetensors", "--out", "x"), ("predict",)]:
        done = vmunet(*arguments)
        assert done.returncode == 2
        assert done.stderr.startswith("usage:")


def test_version():
    done = vmunet("version")
    assert done.returncode == 0
    assert done.stdout.startswith("vmunet 0.")
    assert torch.__version__.split("+")[0] in done.stdout


def test_predict_from_end_to_end(runs, photo):
    folder = photo.parent
    (folder / "photo_superpixels.png").write_bytes(b"")
    done = vmunet(
        "predict", runs, ".", "--out", "masks", "--tta", "--overlay", "--probabilities", cwd=folder
    )
    assert (done.returncode, done.stdout) == (0, "1 image segmented into masks\n")
    note = done.stderr.splitlines()[-1]
    assert note.startswith("note: left out")
    assert note.endswith("1 (photo_superpixels.png)")
    assert sorted(file.name for file in (folder / "masks").iterdir()) == [
        "photo_mask.png",
        "photo_overlay.jpg",
        "photo_probability.png",
        "predictions.csv",
    ]
    mask = cv2.imread(str(folder / "masks" / "photo_mask.png"), cv2.IMREAD_UNCHANGED)
    assert mask.shape == (45, 77)
    assert set(np.unique(mask)) <= {0, 255}


def test_ensemble_option_equals_the_folder_of_runs(runs, photo, tmp_path):
    one, two = runs / "42" / "weights.safetensors", runs / "43"
    assert (
        cli.main(
            ["predict", str(runs), str(photo), "--out", str(tmp_path / "x"), "--probabilities"]
        )
        == 0
    )
    assert (
        cli.main(
            [
                "predict",
                str(one),
                str(photo),
                "--out",
                str(tmp_path / "y"),
                "--probabilities",
                "--ensemble",
                str(two),
            ]
        )
        == 0
    )
    assert (
        cli.main(["predict", str(one), str(photo), "--out", str(tmp_path / "z"), "--probabilities"])
        == 0
    )
    x, y, z = ((tmp_path / n / "photo_probability.png").read_bytes() for n in "xyz")
    assert x == y != z


def test_threshold_and_size_reach_the_segmentation(runs, photo, tmp_path):
    def fraction(*options):
        out = tmp_path / "out"
        assert cli.main(["predict", str(runs / "42"), str(photo), "--out", str(out), *options]) == 0
        return float((out / "predictions.csv").read_text().splitlines()[1].split(",")[3])

    assert fraction("--threshold", "0.0001") == 1.0
    assert fraction("--threshold", "0.9999") == 0.0
    middle = fraction("--size", "40")
    assert middle == fraction("--size", "40")


def test_foreign_weights_are_refused_in_one_line(runs, photo, tmp_path, capsys):
    out = tmp_path / "out"
    other = tmp_path / "other.pth"
    torch.save({"conv.weight": torch.zeros(3)}, other)
    evil = tmp_path / "evil.pth"
    evil.write_bytes(pickle.dumps(Touch(tmp_path / "touched")))
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes((runs / "42" / "weights.safetensors").read_bytes()[:5000])
    for weights, words in [
        (tmp_path / "missing.safetensors", "no such"),
        (other, "not a VM-UNet checkpoint"),
        (evil, "pickle"),
        (cut, "cut.safetensors"),
        (photo, "photo.jpg"),
    ]:
        assert words in failed(capsys, "predict", weights, photo, "--out", out)
        assert not out.exists()
    assert not (tmp_path / "touched").exists()


class Touch:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_wrong_images_are_refused_in_one_line(runs, photo, tmp_path, capsys):
    out = tmp_path / "out"
    text = tmp_path / "text.png"
    text.write_text("not an image")
    (tmp_path / "more").mkdir()
    twin = shutil.copy(photo, tmp_path / "more" / "photo.jpg")
    assert "text.png" in failed(capsys, "predict", runs, text, "--out", out)
    assert "both write" in failed(capsys, "predict", runs, photo, twin, "--out", out)
    assert "no such image" in failed(capsys, "predict", runs, tmp_path / "x.jpg", "--out", out)
    assert "device 'tpu'" in failed(capsys, "predict", runs, photo, "--out", out, "--device", "tpu")
    assert not out.exists()


def test_a_folder_that_cannot_be_made_is_one_line(runs, photo, capsys):
    assert "photo.jpg" in failed(capsys, "predict", runs / "42", photo, "--out", photo / "x")


def test_predict_volumes_from_end_to_end(ct, scan):
    folder = scan.parent
    shutil.copy(scan, folder / "scan_labels.nii.gz")
    (folder / "photo.jpg").write_bytes(b"")  # a folder may hold both
    done = vmunet("predict", ct, ".", "--out", "labels", "--overlay", "--size", "32", cwd=folder)
    assert (done.returncode, done.stdout) == (0, "1 volume segmented into labels\n")
    assert done.stderr.splitlines()[-1] == (
        "note: left out by their names, as label maps: 1 (scan_labels.nii.gz)"
    )
    assert sorted(file.name for file in (folder / "labels").iterdir()) == [
        "predictions.csv",
        "scan_labels.nii.gz",
        "scan_overlay.png",
    ]
    labels = nibabel.load(folder / "labels" / "scan_labels.nii.gz")
    np.testing.assert_array_equal(labels.affine, nibabel.load(scan).affine)
    assert labels.shape == (20, 30, 3)
    header, *rows = (folder / "labels" / "predictions.csv").read_text().splitlines()
    assert header == "volume,organ,voxels,ml"
    counts = np.bincount(np.asarray(labels.dataobj).ravel(), minlength=3)[1:]
    assert rows == [
        f"scan.nii.gz,{organ},{count},{count * 0.02:.3f}"
        for organ, count in zip(("aorta", "liver"), counts, strict=True)
    ]


def test_weights_and_inputs_of_different_kinds_are_refused(runs, ct, photo, scan, tmp_path, capsys):
    out = tmp_path / "out"
    scans, photos = tmp_path / "scans", tmp_path / "photos"
    for folder, file in ((scans, scan), (photos, photo)):
        folder.mkdir()
        shutil.copy(file, folder)
    for weights, given, words in [
        (runs, scan, f"{scan}: a CT volume, but {runs} segments images"),
        (runs, scans, "scan.nii.gz: a CT volume"),
        (ct, photo, f"{photo}: an image, but {ct} segments CT volumes"),
        (ct, photos, "photo.jpg: an image"),
        (ct, ct, "not a CT volume"),
        (ct, tmp_path / "missing.nii", "no such volume"),
    ]:
        assert words in failed(capsys, "predict", weights, given, "--out", out)
    # beside one that fits, too
    assert "an image" in failed(capsys, "predict", ct, scan, photo, "--out", out)
    both = failed(capsys, "predict", ct, scan, "--out", out, "--ensemble", runs)
    assert "cannot be averaged" in both
    assert "an RGB model" in failed(capsys, "export", ct, "--out", out)
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--tta",), "--tta does not apply"),
        (("--threshold", "0.5"), "--threshold does not apply"),
        (("--probabilities", "--tta"), "--tta, --probabilities do not apply"),
    ],
)
def test_options_for_images_are_refused_for_volumes(ct, scan, tmp_path, capsys, options, named):
    assert named in failed(capsys, "predict", ct, scan, "--out", tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


def test_ctrl_c_ends_without_a_traceback(monkeypatch, capsys):
    def interrupted(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(version, "print_version", interrupted)
    assert cli.main(["version"]) == 130
    assert capsys.readouterr().err == "interrupted\n"
