"""ImageNet weights from a profile's sources to the start of a run."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import stages.common.training
import stages.initial
from pipeline.config.params import Cell, load_params
from pipeline.config.sources import WeightsSource
from stages import weights as stage
from stages.common.initial_model import initial_model
from tests.helpers import imagenet as made
from tests.helpers.clone import demo_root
from tests.helpers.http_server import digest, serving
from tests.helpers.imagenet import save, tensors
from vmunet import InputError
from vmunet.data.archives import sha256_of
from vmunet.settings import TrainSettings
from vmunet.weights.imagenet.files import FILES
from vmunet.weights.pretraining import VMAMBA_DEPTHS, VMambaClassifier

DIMS = (8, 16, 32, 64)


def published(name: str, seed: int = 0) -> dict[str, Tensor]:
    """The tensors by which the stage recognises a file, and one more."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {**FILES[name].shapes, "fc.bias": (5,)}
    return {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run the stage in an empty folder with a section `weights`; returns data/weights/."""
    params = load_params(demo_root())
    train = params.profile.train

    def run_stage(**weights) -> Path:
        settings = TrainSettings(epochs=1, dims=DIMS, t_max=train.t_max)
        section = WeightsSource.model_validate(weights)
        profile = params.profile.model_copy(update={"weights": section, "train": settings})
        changed = params.model_copy(update={"profile": profile})
        monkeypatch.setattr(stage, "load_params", lambda: changed)
        stage.main([])
        return tmp_path / "data" / "weights"

    for name in ("VMUNET_MIRROR", "VMUNET_MIRROR_URLS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return run_stage


def test_paths_become_safetensors_with_the_published_names(tmp_path: Path, run, capsys) -> None:
    google = save(tmp_path / "R50+ViT-B_16.npz", published("r50-vit-b16"))
    deit = save(tmp_path / "deit.pth", {"model": published("deit-small"), "epoch": 1})
    sources = {
        "r50-vit-b16": str(google),
        "deit-small": {"place": "deit.pth", "sha256": sha256_of(deit)[:10]},
    }
    folder = run(source="none", imagenet=sources)
    assert sorted(p.name for p in folder.iterdir()) == ["imagenet", "manifest.json"]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["source"] == "none"
    assert manifest["files"] == {
        "imagenet/r50-vit-b16": {
            "file": "R50+ViT-B_16.npz",
            "sha256": sha256_of(google),
            "state_dict": "the file itself",
            "tensors": 4,
            "models": ["r50-unet", "transunet", "transnorm"],
        },
        "imagenet/deit-small": {
            "file": "deit.pth",
            "sha256": sha256_of(deit),
            "state_dict": "model",
            "tensors": 3,
            "models": ["transfuse"],
        },
    }
    for name in sources:
        kept = load_file(folder / "imagenet" / f"{name}.safetensors")
        assert kept.keys() == published(name).keys()
        assert all(torch.equal(kept[key], value) for key, value in published(name).items())
    assert capsys.readouterr().out.splitlines()[1] == (
        "deit-small from deit.pth: 3 tensors, for transfuse"
    )


def test_a_profile_without_them_writes_the_manifest_that_it_always_wrote(run) -> None:
    folder = run(source="none")
    assert [p.name for p in folder.iterdir()] == ["manifest.json"]
    assert json.loads((folder / "manifest.json").read_text()) == {"source": "none", "files": {}}


@pytest.mark.parametrize("digits", [64, 8, 0])
def test_addresses_are_downloaded_once_and_recorded(tmp_path: Path, run, digits: int) -> None:
    """PyTorch's older files are no zips; the digits in their names are enough to take them."""
    path = tmp_path / "resnet34-1.pth"
    torch.save(published("resnet34"), path, _use_new_zipfile_serialization=digits == 0)
    content = path.read_bytes()
    with serving() as server:
        server.files["/models/resnet34-1.pth"] = content
        place = f"{server.base}/models/resnet34-1.pth"
        source = {"place": place, "sha256": digest(content)[:digits]} if digits else place
        for _ in range(2):
            folder = run(source="none", imagenet={"resnet34": source})
        assert server.paths == ["/models/resnet34-1.pth"]
    about = json.loads((folder / "manifest.json").read_text())["files"]["imagenet/resnet34"]
    assert (about["url"], about["sha256"]) == (place, digest(content))
    assert (tmp_path / "data/downloads/weights/imagenet/resnet34-1.pth").is_file()
    recorded = tmp_path / "checksums.json"
    assert recorded.exists() == (digits < 64)
    if digits < 64:
        assert json.loads(recorded.read_text()) == {place: digest(content)}


def test_the_mirror_gives_what_the_profile_does_not_name(tmp_path: Path, run, monkeypatch) -> None:
    mirror = tmp_path / "mirror"
    vmamba = VMambaClassifier(2, VMAMBA_DEPTHS["vmamba-t"], DIMS).state_dict()
    save(mirror / "weights" / "t.pth", {"model": vmamba})
    save(mirror / "weights/imagenet/any name.pth", {"model": published("swin-tiny")})
    save(mirror / "weights/imagenet/resnet.pth", published("resnet34"))
    (mirror / "weights/imagenet/README.txt").write_text("not weights")
    named = save(tmp_path / "mine.pth", published("resnet34", seed=1))
    monkeypatch.setenv("VMUNET_MIRROR", str(mirror))
    folder = run(source="file", imagenet={"resnet34": str(named)})
    files = json.loads((folder / "manifest.json").read_text())["files"]
    assert list(files) == ["vmamba-t", "imagenet/resnet34", "imagenet/swin-tiny"]
    assert files["imagenet/resnet34"]["file"] == "mine.pth"
    assert files["imagenet/swin-tiny"]["file"] == "any name.pth"
    kept = load_file(folder / "imagenet/resnet34.safetensors")
    assert torch.equal(kept["fc.bias"], published("resnet34", seed=1)["fc.bias"])


def test_the_mirror_is_read_for_the_source_file_alone(tmp_path: Path, run, monkeypatch) -> None:
    save(tmp_path / "mirror/weights/imagenet/resnet.pth", published("resnet34"))
    monkeypatch.setenv("VMUNET_MIRROR", str(tmp_path / "mirror"))
    assert [p.name for p in run(source="none").iterdir()] == ["manifest.json"]


@pytest.mark.parametrize(
    ("imagenet", "message"),
    [
        (
            {"resnet34": "no.pth"},
            r"no\.pth: no such file; weights\.imagenet\.resnet34 .* put resnet34-b",
        ),
        (
            {"resnet34": {"place": "deit.pth", "sha256": "00000000"}},
            r"deit\.pth: its sha256 is [0-9a-f]{64}, weights\.imagenet\.resnet34 expects 00000000$",
        ),
        (
            {"resnet34": "deit.pth"},
            r"deit\.pth: not resnet34-b627a593\.pth, .*, but deit_small_patch16",
        ),
        ({"resnet34": "text.npz"}, r"text\.npz: not loaded, because it is not an \.npz of numbers"),
        (
            {"resnet34": "http://127.0.0.1:9/x.pth"},
            r"http://127\.0\.0\.1:9/x\.pth: cannot be downloaded",
        ),
    ],
)
def test_the_stage_refuses_and_keeps_what_there_was(
    tmp_path: Path, run, monkeypatch, imagenet, message: str
) -> None:
    save(tmp_path / "deit.pth", published("deit-small"))
    (tmp_path / "text.npz").write_text("text")
    monkeypatch.setattr("vmunet.data.transfer.ATTEMPTS", 1)
    before = (run(source="none") / "manifest.json").read_bytes()
    with pytest.raises(InputError, match=message) as caught:
        run(source="none", imagenet=imagenet)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "data/weights/manifest.json").read_bytes() == before


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"b.pth": {"x": torch.zeros(1)}},
            r"b\.pth: is none of R50\+ViT-B_16\.npz, .*; take it away",
        ),
        (
            {"a.pth": published("resnet34"), "b.pth": published("resnet34", seed=1)},
            r"b\.pth: is resnet34, and so is a\.pth; keep one of the two",
        ),
    ],
)
def test_a_mirror_that_is_not_clear_is_refused(
    tmp_path: Path, run, monkeypatch, files, message: str
) -> None:
    mirror = tmp_path / "mirror/weights"
    save(mirror / "t.pth", VMambaClassifier(2, VMAMBA_DEPTHS["vmamba-t"], DIMS).state_dict())
    for name, content in files.items():
        save(mirror / "imagenet" / name, content)
    monkeypatch.setenv("VMUNET_MIRROR", str(tmp_path / "mirror"))
    with pytest.raises(InputError, match=message):
        run(source="file")


CELL = Cell(model="transfuse", init="imagenet")
SETTINGS = TrainSettings(width=1 / 8)


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """data/weights/imagenet/ in an empty folder, for a TransFuse of an eighth of the width."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data/weights/imagenet"
    folder.mkdir(parents=True)
    save_file(tensors(made.resnet34(base=8)), folder / "resnet34.safetensors")
    save_file(tensors(made.deit_small(dim=48)), folder / "deit-small.safetensors")
    return folder


def test_a_run_starts_from_them_and_its_record_has_the_counts(weights: Path) -> None:
    torch.manual_seed(3)
    model, filled = initial_model(CELL, 1, SETTINGS, 64)
    assert filled == {"taken": 276, "filled": 276, "unused": 94}
    state = model.state_dict()
    resnet = load_file(weights / "resnet34.safetensors")
    assert torch.equal(state["resnet.layer3.5.conv2.weight"], resnet["layer3.5.conv2.weight"])
    torch.manual_seed(3)
    scratch, none = initial_model(Cell(model="transfuse"), 1, SETTINGS, 64)
    assert none == {}
    assert torch.equal(
        state["up1.conv.double_conv.0.weight"], scratch.up1.conv.double_conv[0].weight
    )


def test_a_runs_hash_is_of_its_own_models_files(weights: Path, monkeypatch) -> None:
    monkeypatch.setattr(stages.common.training, "fingerprint", lambda code: str(code))
    (weights.parent.parent / "arrays").mkdir()
    task = SimpleNamespace(arrays=Path("data/arrays"), script=Path("stages/train.py"))

    def weights_hash(cell: Cell) -> str:
        return stages.common.training.hash_inputs(task, cell)["weights_hash"]

    first = weights_hash(CELL)
    assert len(first) == 64
    (weights / "swin-tiny.safetensors").write_bytes(b"of another model")
    assert weights_hash(CELL) == first
    save_file(tensors(made.deit_small(dim=36)), weights / "deit-small.safetensors")
    assert weights_hash(CELL) != first
    assert weights_hash(Cell(model="transfuse")) == ""
    (weights / "deit-small.safetensors").unlink()
    message = (
        r"^data/weights/imagenet/deit-small\.safetensors: not found; name a path or an address of "
        r"deit_small_patch16_224-cd65a155\.pth in the profile, under weights: imagenet: "
        r"deit-small:, and run `dvc repro weights`$"
    )
    for start in (lambda: weights_hash(CELL), lambda: initial_model(CELL, 1, SETTINGS, 64)):
        with pytest.raises(InputError, match=message):
            start()


def test_a_cells_record_changes_with_its_own_files_alone(weights: Path, monkeypatch) -> None:
    cells = {
        "a": CELL,
        "b": Cell(model="transfuse"),
        "c": Cell(model="sanet", init="imagenet"),
        "d": Cell(init="vmamba-t", drop_path_rate=0.2, depths=[1] * 4, depths_decoder=[1] * 4),
    }
    monkeypatch.setattr(stages.initial, "load_params", lambda: SimpleNamespace(cells=cells))

    def records() -> dict[str, str]:
        stages.initial.main([])
        return {name: Path(f"data/initial/{name}.json").read_text() for name in cells}

    before = records()
    assert {name: json.loads(text) for name, text in before.items() if name != "a"} == {
        "b": {},
        "c": {"res2net50": None},
        "d": {"vmamba-t": None},
    }
    assert list(json.loads(before["a"])) == ["resnet34", "deit-small"]
    save_file(tensors(made.res2net50(base=8)), weights / "res2net50.safetensors")
    after = records()
    assert [name for name in cells if after[name] != before[name]] == ["c"]
    assert len(json.loads(after["c"])["res2net50"]) == 64
