"""Published VMamba weights: every layout, the tensors that they fill, the cache, refused files."""

import json
import pickle
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.config.params import WeightsSource, load_params
from stages import weights as stage
from tests.helpers.clone import demo_root
from tests.helpers.http_server import digest, serving
from tests.helpers.paths import ROOT
from vmunet import InputError
from vmunet.data.archives import sha256_of
from vmunet.model import VMUNet
from vmunet.weights import vmamba as vmamba_files
from vmunet.weights.initial import VMAMBA_V0
from vmunet.weights.pretraining import VMAMBA_DEPTHS, VMambaClassifier
from vmunet.weights.vmamba import convert, coverage_of, describe

GOLDEN = json.loads((ROOT / "tests/golden" / "architecture.json").read_text())
DIMS = (8, 16, 32, 64)


def tensors_of(name: str, dims: tuple[int, ...] = DIMS, seed: int = 0) -> dict[str, Tensor]:
    """VMamba v0's names and shapes, at another width, with 1,000 classes as published."""
    torch.manual_seed(seed)
    return dict(VMambaClassifier(1000, VMAMBA_DEPTHS[name], dims).state_dict())


def save(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


def prefixed(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


SMALL, OTHER = tensors_of("vmamba-s"), tensors_of("vmamba-s", seed=1)
LAYOUTS = {
    "release": ({"model": SMALL, "epoch": 238}, "model"),
    "release with EMA": ({"model": OTHER, "model_ema": SMALL, "max_accuracy": 83.5}, "model_ema"),
    "plain": (SMALL, ""),
    "ordered": (OrderedDict(SMALL), ""),
    "module.": (prefixed(SMALL, "module."), ""),
    "vmunet.": ({"model": prefixed(SMALL, "vmunet.")}, "model"),
    "module.vmunet.": (prefixed(SMALL, "module.vmunet."), ""),
    "EMA, module.": ({"model": OTHER, "model_ema": prefixed(SMALL, "module.")}, "model_ema"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_published_layout_fills_the_published_counts(tmp_path: Path, layout: str) -> None:
    content, taken = LAYOUTS[layout]
    source = save(tmp_path / "vmamba_small_e238_ema.pth", content)
    converted = convert(source, sha256_of(source), tmp_path / "cache")
    assert (converted.name, converted.taken) == ("vmamba-s", taken)
    tensors = load_file(converted.path)
    assert tensors.keys() == SMALL.keys()
    assert all(torch.equal(tensors[name], SMALL[name]) for name in tensors)
    filled, golden = coverage_of(converted, DIMS), GOLDEN["pretrained_v0"]
    assert len(SMALL) == golden["checkpoint_keys_vmamba_s"]
    assert len(filled.encoder) == golden["encoder_keys_loaded"]
    assert len(filled.decoder) == golden["decoder_keys_loaded"]
    reached = len(filled.encoder) + len(filled.decoder)
    assert reached + len(filled.unfilled) == golden["model_keys"]
    assert len(filled.unused) == len(SMALL) - len(filled.encoder)
    assert "final_conv.weight" in filled.unfilled
    assert {"head.weight", "norm.bias", "layers.2.blocks.26.ln_1.weight"} <= set(filled.unused)


@pytest.mark.parametrize(("name", "taken"), [("vmamba-t", "model"), ("vmamba-s", "model_ema")])
def test_of_plain_and_ema_weights_those_of_the_papers_runs_are_taken(
    tmp_path: Path, name: str, taken: str
) -> None:
    content = {"model": tensors_of(name, seed=2), "model_ema": tensors_of(name, seed=3)}
    source = save(tmp_path / "x.pth", content)
    converted = convert(source, sha256_of(source), tmp_path / "cache")
    assert (converted.name, converted.taken) == (name, taken)
    head = load_file(converted.path)["head.weight"]
    assert torch.equal(head, content[taken]["head.weight"])
    assert not torch.equal(content["model"]["head.weight"], content["model_ema"]["head.weight"])


def test_the_published_shapes_fit_the_papers_model() -> None:
    """VMamba-S's encoder, name by name and shape by shape, against the authors' own model."""
    with torch.device("meta"):
        full = VMambaClassifier(1000, VMAMBA_DEPTHS["vmamba-s"], (96, 192, 384, 768)).state_dict()
    shapes = GOLDEN["state_dict_shapes"]
    shared = [name for name in shapes if name.startswith(("patch_embed.", "layers."))]
    assert len(shared) == GOLDEN["pretrained_v0"]["encoder_keys_loaded"]
    assert all(list(full[name].shape) == shapes[name] for name in shared)


def test_one_line_says_what_was_filled(tmp_path: Path) -> None:
    source = save(tmp_path / "x.pth", LAYOUTS["release with EMA"][0])
    converted = convert(source, sha256_of(source), tmp_path / "cache")
    line = describe(converted, coverage_of(converted, DIMS))
    assert line == (
        "vmamba-s from x.pth ('model_ema'): 117 tensors fill the encoder, 91 the decoder; 14 of "
        "VM-UNet's keep their own initial values, 329 of the file's are unused"
    )


def test_a_file_is_converted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = save(tmp_path / "x.pth", {"model_ema": SMALL})
    first = convert(source, sha256_of(source), tmp_path / "cache")
    written = first.path.stat().st_mtime_ns
    copy = save(tmp_path / "other name.pth", {})
    copy.write_bytes(source.read_bytes())

    def no_second_conversion(*_: object, **__: object) -> None:
        raise AssertionError("converted again")

    monkeypatch.setattr(vmamba_files, "write_tensors", no_second_conversion)
    second = convert(copy, sha256_of(copy), tmp_path / "cache")
    assert (second.path, second.taken) == (first.path, "model_ema")
    assert second.path.stat().st_mtime_ns == written
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [first.path.name]


def test_a_conversion_always_has_the_same_bytes(tmp_path: Path) -> None:
    source = save(tmp_path / "x.pth", {"model": SMALL})
    made = [convert(source, "0" * 64, tmp_path / str(i)).path.read_bytes() for i in range(2)]
    assert made[0] == made[1]


class Evil:
    def __reduce__(self):
        return (print, ("code of a checkpoint ran",))


V2 = {
    "patch_embed.0.weight": torch.zeros(1),
    "layers.0.blocks.0.ln_1.weight": torch.zeros(1),
    "layers.0.blocks.0.op.A_logs": torch.zeros(1),
}
REFUSED = {
    "later VMamba": ({"model": V2}, r"not VMamba v0 weights but a later VMamba's, .*\.0\.op\.A_lo"),
    "ResNet": (
        {"conv1.weight": torch.zeros(1), "layer1.0.conv1.weight": torch.zeros(1)},
        r"not VMamba v0 weights but another model's, whose tensors are 2 \(conv1.*; give the v0",
    ),
    "whole VM-UNet": (
        {f"vmunet.{name}": tensor for name, tensor in VMUNet(dims=DIMS).state_dict().items()},
        r"not VMamba v0 weights but its stages have \(2, 2, 2, 2\) blocks, VMamba-T's \(2, 2, 9, 2",
    ),
    "YOLO": ({"model": Evil(), "ema": None}, "not a file of tensors alone.*may run code"),
    "code beside tensors": ({"model": SMALL, "extra": Evil()}, "not a file of tensors alone"),
    "no state dict": ({"model": {"a": 1}}, "holds no state dict"),
    "list": ([torch.zeros(1)], "holds no state dict"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_vmamba_v0_is_refused_in_a_sentence(
    tmp_path: Path, capfd: pytest.CaptureFixture, kind: str
) -> None:
    content, match = REFUSED[kind]
    source = save(tmp_path / "other.pth", content)
    with pytest.raises(InputError, match=rf"other\.pth: .*{match}") as caught:
        convert(source, sha256_of(source), tmp_path / "cache")
    assert "\n" not in str(caught.value)
    assert "ran" not in capfd.readouterr().out
    assert not list(tmp_path.glob("cache/*"))


@pytest.mark.parametrize("form", ["pickle", "text", "cut", "empty"])
def test_broken_files_are_refused(tmp_path: Path, form: str) -> None:
    source = save(tmp_path / "x.pth", {"model": SMALL})
    whole = source.read_bytes()
    contents = {
        "pickle": pickle.dumps(Evil()),
        "text": b"<html>",
        "cut": whole[:-999],
        "empty": b"",
    }
    source.write_bytes(contents[form])
    said = {
        "pickle": "not loaded, because it is not a file of tensors alone",
        "text": "not loaded, because it is not a file of tensors alone",
        "cut": "damaged, cut short or no checkpoint",
        "empty": "damaged, cut short or no checkpoint",
    }
    with pytest.raises(InputError, match=rf"x\.pth: {said[form]}"):
        convert(source, sha256_of(source), tmp_path / "cache")
    assert not list(tmp_path.glob("cache/*"))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run the stage in an empty folder with a source of weights; returns data/weights/."""
    params = load_params(demo_root())

    def run_stage(source: str) -> Path:
        profile = params.profile.model_copy(
            update={
                "weights": WeightsSource(source=source),
                "train": replace(params.profile.train, dims=DIMS, states=16),
            }
        )
        changed = params.model_copy(update={"profile": profile})
        monkeypatch.setattr(stage, "load_params", lambda: changed)
        stage.main([])
        return tmp_path / "data" / "weights"

    for name in ("VMUNET_MIRROR", "VMUNET_MIRROR_URLS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return run_stage


def test_the_stage_reads_a_mirrors_files(tmp_path, monkeypatch, run, capsys) -> None:
    mirror = tmp_path / "mirror"
    tiny = save(mirror / "weights" / "a.pth", {"model": tensors_of("vmamba-t")})
    save(mirror / "weights" / "b.pth", {"model_ema": SMALL, "model": OTHER})
    monkeypatch.setenv("VMUNET_MIRROR", str(mirror))
    folder = run("file")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["source"] == "file"
    small = manifest["files"]["vmamba-s"]
    assert (small["file"], small["state_dict"]) == ("b.pth", "model_ema")
    assert small["filled"] == {"encoder": 117, "decoder": 91}
    assert (len(small["encoder"]), len(small["unfilled"]), len(small["unused"])) == (117, 14, 329)
    assert manifest["files"]["vmamba-t"]["sha256"] == sha256_of(tiny)
    assert manifest["files"]["vmamba-t"]["state_dict"] == "model"
    written = load_file(folder / "vmamba-s.safetensors")
    assert torch.equal(written["head.weight"], SMALL["head.weight"])
    said = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in said] == [
        "vmamba-t from a.pth ('model')",
        "vmamba-s from b.pth ('model_ema')",
    ]


def test_the_stage_downloads_the_published_files_once(tmp_path, monkeypatch, run) -> None:
    with serving() as server:
        for name, seed in (("vmamba-t", 2), ("vmamba-s", 3)):
            path = save(tmp_path / "made.pth", {"model": tensors_of(name, seed=seed)})
            server.files[f"/{name}.pth"] = path.read_bytes()
            sha256 = digest(path.read_bytes()) if name == "vmamba-t" else None
            monkeypatch.setitem(VMAMBA_V0, name, (f"{server.base}/{name}.pth", sha256))
        first = (run("http") / "manifest.json").read_bytes()
        assert (run("http") / "manifest.json").read_bytes() == first
        assert sorted(server.paths) == ["/vmamba-s.pth", "/vmamba-t.pth"]
        files = json.loads(first)["files"]
        assert files["vmamba-s"]["url"] == f"{server.base}/vmamba-s.pth"
        sums = json.loads((tmp_path / "checksums.json").read_text())
        assert sums == {f"{server.base}/vmamba-s.pth": files["vmamba-s"]["sha256"]}
        for kept in (tmp_path / "data" / "downloads" / "weights").glob("*.pth"):
            kept.unlink()
        # A folder of downloads serves as a mirror of itself; the publisher is not asked.
        content = {f"/m/weights{path}": body for path, body in server.files.items()}
        server.files, server.paths[:] = content, []
        monkeypatch.setenv("VMUNET_MIRROR_URLS", f"{server.base}/m")
        assert (run("http") / "manifest.json").read_bytes() == first
        assert sorted(server.paths) == sorted(content)


@pytest.mark.parametrize(
    ("contents", "match"),
    [
        (None, "VMUNET_MIRROR is not set; set VMUNET_MIRROR to a folder"),
        ({}, r"mirror/weights holds no \.pth file"),
        ({"a": SMALL, "b": OTHER}, r"b\.pth: is vmamba-s, and so is a\.pth beside it; keep one"),
        (
            {"a": tensors_of("vmamba-s", (16, 32, 64, 128))},
            r"a\.pth: does not fit 208 of the model's tensors: weights of another width",
        ),
        ({"a": V2}, r"a\.pth: not VMamba v0 weights"),
    ],
)
def test_the_stage_refuses_and_keeps_what_there_was(
    tmp_path, monkeypatch, run, contents, match
) -> None:
    before = (run("none") / "manifest.json").read_bytes()
    if contents is not None:
        for name, tensors in contents.items():
            save(tmp_path / "mirror" / "weights" / f"{name}.pth", tensors)
        monkeypatch.setenv("VMUNET_MIRROR", str(tmp_path / "mirror"))
    with pytest.raises(InputError, match=match):
        run("file")
    assert (tmp_path / "data/weights/manifest.json").read_bytes() == before
    assert [p.name for p in (tmp_path / "data/weights").iterdir()] == ["manifest.json"]
    left = {p.name for p in (tmp_path / "data").iterdir() if p.suffix != ".lock"}
    assert left <= {"downloads", "weights"}


def test_a_safetensors_file_of_another_model_is_refused(tmp_path: Path) -> None:
    save_file({"conv1.weight": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(InputError, match=r"x\.safetensors: not VMamba v0 weights"):
        convert(tmp_path / "x.safetensors", "0" * 64, tmp_path / "cache")
