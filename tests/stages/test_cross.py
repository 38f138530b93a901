"""Scores on another dataset: the shared images, which are left out, and the written files."""

import csv
import json
import os
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config.params import load_params
from pipeline.config.runs import Run
from pipeline.config.yaml_file import read_yaml
from stages import cross as stage
from tests.helpers.data import blob, encoded, picture
from tests.helpers.paths import ROOT
from tests.helpers.search import PROFILE, write
from tests.vmunet.data.checks.test_copies import resaved
from vmunet import VMUNet
from vmunet.data.checks.hashes import TURNS
from vmunet.errors import InputError
from vmunet.evaluation.images import load_test_images, score_run
from vmunet.measure.shared_images import same_pictures, shared_images
from vmunet.weights.checkpoints import save_checkpoint

ISIC17 = Path(os.environ.get("VMUNET_MIRROR", "/nowhere")) / "isic17/ISIC-2017_Training_Data.zip"
SIZE = 32
A, B = "isic17-32", "isic18-32"


def photograph(seed: int, size: int = SIZE) -> np.ndarray:
    return cv2.resize(picture(seed, 128, 128), (size, size), interpolation=cv2.INTER_AREA)


def turned(image: np.ndarray, name: str) -> np.ndarray:
    turn = next(turn for turn in TURNS if turn.name == name)
    return np.stack([turn.of(image[..., colour]) for colour in range(3)], axis=2)


def test_all_kinds_of_copies_are_found() -> None:
    known = [picture(seed, 128, 128) for seed in range(12)]
    images = [
        picture(100, 128, 128),
        known[3],
        resaved(known[4], 75, 0.5),
        cv2.resize(known[5], (90, 90), interpolation=cv2.INTER_AREA),
        turned(known[6], "mirrored left-right"),
        turned(known[7], "turned right"),
        np.clip(0.8 * known[8] + 20, 0, 255).astype(np.uint8),
        picture(101, 128, 128),
    ]
    assert same_pictures(images, known).tolist() == [False, *[True] * 6, False]
    assert same_pictures(np.stack(known), np.stack(known)).all()


def test_only_pairs_across_the_two_sets_count() -> None:
    first, other = picture(1), picture(2)
    assert not same_pictures([first, first], [other, other]).any()
    assert same_pictures([first, first, other], [first]).tolist() == [True, True, False]
    assert same_pictures([], [first]).shape == (0,)
    assert same_pictures([first], []).tolist() == [False]


@settings(max_examples=20, deadline=None)
@given(copied=st.sets(st.integers(0, 9)), seed=st.integers(0, 1000))
def test_exactly_the_copied_ones_are_found(copied: set[int], seed: int) -> None:
    images = [picture(seed + i, 64, 64) for i in range(10)]
    known = [images[i] for i in sorted(copied)] + [picture(seed + 10 + i, 64, 64) for i in range(5)]
    assert set(np.flatnonzero(same_pictures(images, known))) == copied


@pytest.mark.skipif(not ISIC17.is_file(), reason="VMUNET_MIRROR holds no isic17/")
def test_copies_of_real_photographs_are_found() -> None:
    with zipfile.ZipFile(ISIC17) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))[:120]
        photographs = [
            cv2.imdecode(np.frombuffer(archive.read(name), np.uint8), cv2.IMREAD_COLOR_RGB)
            for name in names
        ]
    known, others = photographs[:80], photographs[80:]
    copies = [
        *(resaved(image, 75, 0.5) for image in known[:20]),
        *(cv2.resize(image, (150, 150), interpolation=cv2.INTER_AREA) for image in known[20:40]),
        *(turned(image, "mirrored left-right") for image in known[40:60]),
    ]
    is_known = same_pictures([*others, *copies], known)
    assert not is_known[: len(others)].any()
    assert is_known[len(others) :].sum() >= 0.95 * len(copies)


def write_arrays(
    folder: Path,
    train: dict[str, np.ndarray],
    test: dict[str, np.ndarray],
    source: str = "http",
) -> None:
    """data/arrays/<view>/<protocol> of these images by id, each with a blob as mask."""
    for part, images in (("train", train), ("test", test)):
        (folder / part).mkdir(parents=True)
        np.save(folder / part / "images.npy", np.stack(list(images.values())))
        np.save(folder / part / "masks.npy", np.stack([blob(SIZE, SIZE)] * len(images)))
        (folder / part / "ids.txt").write_text("".join(f"{name}\n" for name in images))
    with zipfile.ZipFile(folder / "test" / "native_masks.zip", "w") as archive:
        for i, name in enumerate(test):
            archive.writestr(f"{name}.png", encoded(blob(40 + i, 50)))
    (folder / "manifest.json").write_text(json.dumps({"size": SIZE, "source": source}))


def pictures(*seeds: int) -> dict[str, np.ndarray]:
    return {f"ISIC_{seed:07}": photograph(seed) for seed in seeds}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two datasets; of B's six test images two have ids of A and two more show pictures of A."""
    view = {"size": SIZE, "protocols": ["paper", "sound"]}
    grid = PROFILE["grid"] | {  # type: ignore[operator]
        "datasets": ["isic17", "isic18"],
        "views": {A: view | {"dataset": "isic17"}, B: view | {"dataset": "isic18"}},
        "ablation_views": [A, B],
        "volumes": {},
        "volume_protocols": [],
        "rivals": [],
        "volume_rivals": [],
        "cross": {"a-to-b": {"train": A, "test": B}, "b-to-a": {"train": B, "test": A}},
    }
    content = read_yaml(ROOT / "params.yaml") | {"profile": "tiny", "grid": grid}
    data = {name: PROFILE["data"]["isic17"] for name in ("isic17", "isic18")}  # type: ignore[index]
    (tmp_path / "profiles").mkdir()
    write(tmp_path / "profiles/tiny.yaml", PROFILE | {"grid": grid, "data": data})
    write(tmp_path / "params.yaml", content)
    arrays = tmp_path / "data/arrays"
    copies = {
        "ISIC_0000091": turned(photograph(2), "mirrored top-bottom"),  # of A's training images
        "ISIC_0000092": photograph(7),  # of A's test images
    }
    for protocol in ("paper", "sound"):
        write_arrays(arrays / A / protocol, pictures(1, 2, 3, 4), pictures(5, 6, 7))
        tested = pictures(21, 22) | copies
        tested |= {"ISIC_0000001": photograph(23), "ISIC_0000006": photograph(24)}
        write_arrays(arrays / B / protocol, pictures(31, 32, 33), tested)
    for protocol, seed in (("paper", 1), ("sound", 2)):
        save_run(tmp_path / Run(A, "scratch", protocol, 1).folder, seed)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stage, "use_processor", lambda threads: None)
    return tmp_path


def save_run(folder: Path, seed: int, size: int = SIZE) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    model = VMUNet(dims=(8, 16, 32, 64), depths=(1,) * 4, depths_decoder=(1,) * 4)
    save_checkpoint(folder / "weights.safetensors", model, {"size": size})
    (folder / "run.json").write_text(json.dumps({"epoch": 7, "git": "abc"}))


def scores(project: Path, name: str = "a-to-b") -> dict:
    return json.loads((project / "metrics/tiny/cross" / name / "metrics.json").read_text())


def rows(project: Path) -> list[dict[str, str]]:
    with open(project / "metrics/tiny/cross/a-to-b/per_image.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_shared_images_are_left_out_and_the_others_scored(project: Path, capsys) -> None:
    stage.main(["a-to-b"])
    metrics = scores(project)
    assert (metrics["train"], metrics["test"], metrics["tested"]) == (A, B, 2)
    assert metrics["shared"] == ["ISIC_0000001", "ISIC_0000006", "ISIC_0000091", "ISIC_0000092"]
    assert metrics["shared_by"] == {"id": 2, "picture": 2}
    assert list(metrics["runs"]) == ["scratch-paper-1", "scratch-sound-1"]
    assert [(row["run"], row["id"]) for row in rows(project)] == [
        (run, name) for run in metrics["runs"] for name in ("ISIC_0000021", "ISIC_0000022")
    ]
    assert list(rows(project)[0])[:4] == ["run", "id", "native_width", "native_height"]
    assert "2 images, 4 left out" in capsys.readouterr().out
    for protocol in ("paper", "sound"):
        entry = metrics["runs"][f"scratch-{protocol}-1"]
        of_run = [row for row in rows(project) if row["run"] == f"scratch-{protocol}-1"]
        for count in ("tp", "fp", "fn", "tn"):
            assert entry["paper"][count] == sum(int(row[f"paper_{count}"]) for row in of_run)
        assert entry["sound"]["native_size"]["images"] == 2
        mean = np.mean([float(row["native_size_dice"]) for row in of_run])
        assert entry["sound"]["native_size"]["mean_dice"] == pytest.approx(mean)
        assert entry["checkpoint"]["path"].endswith(f"{A}/scratch/{protocol}/1/weights.safetensors")
        assert (entry["checkpoint"]["epoch"], entry["checkpoint"]["git"]) == (7, "abc")
    assert (
        metrics["runs"]["scratch-paper-1"]["paper"] != metrics["runs"]["scratch-sound-1"]["paper"]
    )


def test_a_row_is_what_the_evaluation_of_all_images_gives(project: Path) -> None:
    stage.main(["a-to-b"])
    from vmunet.weights.checkpoints import load_checkpoint

    model, _ = load_checkpoint(Run(A, "scratch", "paper", 1).folder / "weights.safetensors")
    scored = score_run(model, Path("data/arrays", B, "paper"), batch_size=4, resamples=100)
    whole = {row["id"]: row for row in scored.per_image}
    for row in rows(project)[:2]:
        for name, value in whole[row["id"]].items():
            assert row[name] == ("" if value is None else str(value))


def test_ids_of_phantoms_say_nothing(project: Path) -> None:
    for protocol in ("paper", "sound"):
        manifest = project / "data/arrays" / A / protocol / "manifest.json"
        manifest.write_text(json.dumps({"size": SIZE, "source": "phantom"}))
    stage.main(["a-to-b"])
    assert scores(project)["shared"] == ["ISIC_0000091", "ISIC_0000092"]
    assert scores(project)["shared_by"] == {"id": 0, "picture": 2}
    assert scores(project)["tested"] == 4


def test_a_picture_that_one_protocol_shows_is_left_out_of_both(project: Path) -> None:
    folder = project / "data/arrays" / B / "sound" / "test"
    images = np.load(folder / "images.npy")
    images[0] = photograph(3)
    np.save(folder / "images.npy", images)
    stage.main(["a-to-b"])
    assert "ISIC_0000021" in scores(project)["shared"]
    assert {row["id"] for row in rows(project)} == {"ISIC_0000022"}


def test_if_all_images_are_shared_there_are_no_scores(project: Path) -> None:
    for protocol in ("paper", "sound"):
        folder = project / "data/arrays" / B / protocol / "test"
        ids = [f"ISIC_{n:07}" for n in range(1, 7)]
        (folder / "ids.txt").write_text("\n".join(ids))
    stage.main(["a-to-b"])
    metrics = scores(project)
    assert (metrics["tested"], len(metrics["shared"])) == (0, 6)
    entry = metrics["runs"]["scratch-paper-1"]
    assert set(entry["paper"].values()) == {None}
    assert entry["sound"]["native_size"]["mean_dice"] is None
    assert entry["sound"]["native_size"]["images"] == 0
    assert rows(project) == []


def test_runs_and_arrays_that_do_not_match_are_refused(project: Path) -> None:
    with pytest.raises(InputError, match=r"grid\.cross has no 'x'; known: a-to-b, b-to-a"):
        stage.main(["x"])
    with pytest.raises(InputError, match=rf"runs/{B}/scratch/paper/1: no trained run there"):
        stage.main(["b-to-a"])
    save_run(project / Run(A, "scratch", "sound", 1).folder, 2, size=64)
    with pytest.raises(InputError, match="trained at 64 px and the test images have 32 px"):
        stage.main(["a-to-b"])
    ids = project / "data/arrays" / B / "sound/test/ids.txt"
    ids.write_text(ids.read_text().replace("ISIC_0000021", "ISIC_0000029"))
    with pytest.raises(InputError, match="of paper and sound do not hold the same test images"):
        stage.main(["a-to-b"])
    assert not (project / "metrics").exists()


def test_ids_and_pictures_are_told_apart(project: Path) -> None:
    arrays = Path("data/arrays")
    shared = shared_images(arrays / B / "paper", arrays / A / "paper", same_ids=True)
    assert shared.by_id == ["ISIC_0000001", "ISIC_0000006"]
    assert shared.by_picture == ["ISIC_0000091", "ISIC_0000092"]
    back = shared_images(arrays / A / "paper", arrays / B / "paper", same_ids=True)
    assert (back.by_id, back.by_picture) == (["ISIC_0000006"], ["ISIC_0000007"])


def test_the_images_left_are_the_sets_own(project: Path) -> None:
    test = load_test_images(Path("data/arrays", B, "paper"))
    left = stage.without(test, ["ISIC_0000022", "ISIC_0000006"])
    assert left.ids == ["ISIC_0000021", "ISIC_0000091", "ISIC_0000092", "ISIC_0000001"]
    np.testing.assert_array_equal(left.images, test.images[[0, 2, 3, 4]])
    assert load_params().grid.cross["a-to-b"].test == B
