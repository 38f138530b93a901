"""A run on volumes is scored as medpy and the published code would, case by case."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from medpy import metric
from torch import Tensor, nn

from pipeline.config.runs import Run
from stages import evaluate_volumes as stage
from vmunet.data.volumes import Case, Pixels, write_volumes
from vmunet.drawing.sheets.organs import choose_slices, draw_cases
from vmunet.errors import InputError
from vmunet.evaluation.against_medpy import compare_with_medpy
from vmunet.evaluation.volume_metrics import score_case
from vmunet.evaluation.volumes import penalised_hd95, score_volumes

SIZE = 32
CLASSES = ["aorta", "liver", "spleen"]


def pixels(name: str, spacing: tuple[float, float, float] | None) -> Pixels:
    """Organs as boxes whose brightness says which they are; the spleen is missing in one case."""
    random = np.random.default_rng(list(name.encode()))
    labels = np.zeros((4, SIZE, SIZE), np.uint8)
    for label in (1, 2, 3):
        if (name, label) == ("c", 3):
            continue
        z, y, x = random.integers(0, 2), *random.integers(0, 12, 2)
        labels[z : z + 3, y : y + 10, x + label : x + label + 9] = label
    return Pixels(labels.astype(np.float32) / 4, labels, spacing)


class ByBrightness(nn.Module):
    """Gives each pixel the label that its brightness says, but shifted by one pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.tensor([0.0, 0.25, 0.5, 0.75]))

    def forward(self, x: Tensor) -> Tensor:
        shifted = torch.roll(x, 1, dims=-1)
        return -((shifted - self.centres.view(1, -1, 1, 1)) ** 2) * 100


def made(
    tmp_path: Path, spacing: tuple[float, float, float] | None, test: Sequence[str] = "bc"
) -> tuple[Path, dict]:
    cases = [Case(n, lambda n=n: pixels(n, spacing)) for n in ("a", *test)]
    arrays = tmp_path / "arrays"
    return arrays, write_volumes(arrays, {"source": "phantom"}, CLASSES, cases[:1], cases[1:])


def test_scores_are_medpys(tmp_path: Path) -> None:
    spacing = (3.0, 0.8, 0.8)
    arrays, manifest = made(tmp_path, spacing)
    scored = score_volumes(ByBrightness(), arrays, manifest, SIZE, "cubic", 3)
    expected = {}
    for case in ("b", "c"):
        truth = pixels(case, spacing).labels
        predicted = np.roll(truth, 1, axis=2)
        assert np.array_equal(scored.predictions[case], predicted)
        for i, organ in enumerate(CLASSES):
            t, p = truth == i + 1, predicted == i + 1
            if t.any():
                expected[case, organ] = (
                    metric.binary.dc(p, t),
                    metric.binary.hd95(p, t),
                    metric.binary.hd95(p, t, voxelspacing=spacing),
                )
    assert len(scored.rows) == 6
    for row in scored.rows:
        key = (row["case"], row["organ"])
        if key == ("c", "spleen"):  # absent in both
            assert (row["paper_dice"], row["paper_hd95_voxels"]) == (0.0, 0.0)
            assert (row["dice"], row["hd95_mm"], row["nsd"]) == (None, None, None)
            continue
        dice, voxels, mm = expected[key]
        assert row["paper_dice"] == row["dice"] == dice
        assert row["paper_hd95_voxels"] == voxels
        assert row["hd95_mm"] == mm
    spleen = expected["b", "spleen"]
    assert scored.paper["spleen"] == spleen[0] / 2  # the published code counts the absent one
    assert scored.sound["organs"]["spleen"]["dice"] == spleen[0]
    assert scored.sound["organs"]["spleen"]["dice_n"] == 1
    assert scored.sound["organs"]["spleen"]["absent"] == 1
    means = [np.mean([expected[c, o][0] for c in "bc" if (c, o) in expected]) for o in CLASSES]
    assert scored.sound["dice"] == pytest.approx(np.mean(means), abs=1e-12)
    assert scored.sound["intervals"]["dice"] == [None, None]  # of two cases
    assert scored.sound["spacing_known"] is True
    json.dumps([scored.paper, scored.sound, scored.rows], allow_nan=False)


def test_the_dice_has_an_interval_over_the_cases(tmp_path: Path) -> None:
    names = "bcdefghi"
    arrays, manifest = made(tmp_path, (3.0, 0.8, 0.8), names)
    sound = score_volumes(ByBrightness(), arrays, manifest, SIZE, "cubic", 3).sound
    low, high = sound["intervals"]["dice"]
    assert low < sound["dice"] < high
    for organ in sound["organs"].values():
        low, high = organ["intervals"]["dice"]
        assert low < organ["dice"] < high


def test_the_comparison_with_medpy_finds_a_wrong_score(tmp_path: Path) -> None:
    spacing = (3.0, 0.8, 0.8)
    arrays, manifest = made(tmp_path, spacing)
    scored = score_volumes(ByBrightness(), arrays, manifest, SIZE, "cubic", 3)
    truths = {case: pixels(case, spacing).labels for case in ("b", "c")}

    def compared(rows: list[dict]) -> tuple[int, float]:
        spacings = {"b": spacing, "c": None}
        return compare_with_medpy(rows, CLASSES, scored.predictions, truths, spacings)

    assert compared(scored.rows) == (5, 0.0)  # c has no spleen
    for key in ("paper_dice", "paper_hd95_voxels", "hd95_mm"):
        wrong = [dict(row) for row in scored.rows]
        wrong[0][key] += 0.25
        assert compared(wrong) == (5, 0.25)


def test_without_medpy_the_comparison_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "medpy.metric", None)
    with pytest.raises(InputError, match="pip install medpy"):
        compare_with_medpy([], CLASSES, {}, {}, {})


def test_without_a_spacing_no_millimetres(tmp_path: Path) -> None:
    arrays, manifest = made(tmp_path, None)
    scored = score_volumes(ByBrightness(), arrays, manifest, SIZE, "cubic", 8)
    assert scored.sound["spacing_known"] is False
    assert scored.sound["hd95_mm"] is None
    assert scored.sound["organs"]["liver"]["nsd"] is None
    assert scored.paper["hd95"] > 0
    json.dumps([scored.paper, scored.sound, scored.rows], allow_nan=False)


def test_a_test_volume_without_any_organ_is_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run, nothing = Run("ct", "scratch", "sound", 1), np.zeros((4, SIZE, SIZE))
    empty = Pixels(nothing.astype(np.float32), nothing.astype(np.uint8), None)
    cases = [Case("a", lambda: pixels("a", None)), Case("b", lambda: empty)]
    write_volumes(
        Path("data/arrays/ct"), {"source": "own", "size": SIZE}, CLASSES, cases[:1], cases[1:]
    )
    run.folder.mkdir(parents=True)
    for name in ("run.json", "weights.safetensors"):
        (run.folder / name).write_text("{}")
    (run.folder / "history.csv").write_text("epoch,train_loss\n1,0.5\n")
    loaded = (ByBrightness(), {"size": SIZE, "classes": CLASSES})
    monkeypatch.setattr(stage, "load_checkpoint", lambda path: loaded)
    monkeypatch.setattr(stage, "log_scores", lambda *a: None)
    monkeypatch.setattr(stage, "tables_of", lambda *a: "")
    profile = SimpleNamespace(
        threads=0, weights=SimpleNamespace(source="none"), evaluate=SimpleNamespace(batch_size=4)
    )
    params = SimpleNamespace(
        profile_name="demo",
        profile=profile,
        view=lambda name: SimpleNamespace(dataset="ct", size=SIZE),
    )
    stage.evaluate(run, params)
    assert "1 test volume   mean Dice undefined" in capsys.readouterr().out
    metrics = json.loads((run.metrics_folder("demo") / "metrics.json").read_text())
    assert metrics["sound"]["dice"] is None


def test_the_sheet_shows_every_case(tmp_path: Path) -> None:
    arrays, manifest = made(tmp_path, (3.0, 0.8, 0.8))
    scored = score_volumes(ByBrightness(), arrays, manifest, SIZE, "cubic", 8)
    sheet = draw_cases(arrays, manifest, ["b", "c"], "a run", scored.predictions)
    one = draw_cases(arrays, manifest, ["b"], "the truth")
    assert sheet.dtype == np.uint8
    assert sheet.shape[0] > one.shape[0] > 200
    assert (sheet[..., 0] != sheet[..., 2]).any()  # outlines in colour


def test_slices_run_through_the_organs() -> None:
    truth = np.zeros((30, 4, 4), np.uint8)
    truth[10:20] = 1
    assert choose_slices(truth, 3) == [12, 14, 18]
    assert choose_slices(truth * 0, 3) == [5, 14, 24]


def test_a_missed_organ_costs_the_volumes_diagonal():
    truth, labels = np.zeros((2, 3, 4, 12), np.uint8)
    truth[0, 0, 0], labels[0, 0, 1] = 1, 1  # an organ in both; 2 is missed, 3 made up, 4 absent
    truth[2, 3, 3], labels[2, 3, 7] = 2, 3
    spacing = (1.0, 1.0, 1.0)
    scores = score_case(labels, truth, 5, spacing)
    organs = penalised_hd95(scores, truth.shape, spacing)
    np.testing.assert_allclose(organs, [scores.hd95[0], 13, 13, np.nan])
    assert np.isnan(penalised_hd95(scores, truth.shape, None)).all()
