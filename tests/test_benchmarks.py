"""The parts of the GPU benchmarks that need no GPU: published path, counts, figures, errors."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import activations, epoch_gpu, plot, scan_gpu, step_gpu, summary
from benchmarks.measure import RESULTS
from benchmarks.published import PublishedVMUNet, reference_scan
from benchmarks.scan_cpu import stage_inputs
from reports.make.results.views import load_yaml
from reports.make.tables.agreement import NOTES
from tests.helpers.paths import ROOT
from vmunet import VMUNet
from vmunet.scan import ss2d
from vmunet.training.losses import bce_dice

TINY = {"dims": (8, 16, 32, 64), "depths": (1, 1, 1, 1), "depths_decoder": (1, 1, 1, 1)}


def distance(value: torch.Tensor, truth: torch.Tensor) -> float:
    return ((value - truth).norm() / truth.norm()).item()


def test_published_path_is_the_same_model() -> None:
    """Logits and all gradients, with the same parameters, in float64."""
    torch.manual_seed(0)
    model = VMUNet(drop_path_rate=0.0, **TINY).double()
    published = PublishedVMUNet(reference_scan, drop_path_rate=0.0, **TINY).double()
    published.load_state_dict(model.state_dict())
    images = 255 * torch.rand(2, 3, 32, 64).double()
    masks = torch.rand(2, 1, 32, 64).round()
    logits, others = model(images), published(images)
    assert distance(others, logits) < 1e-5
    for values in (logits, others):
        bce_dice(values, masks, "logits").backward()
    gradients = {name: parameter.grad for name, parameter in published.named_parameters()}
    for name, parameter in model.named_parameters():
        assert distance(gradients[name], parameter.grad) < 1e-5, name


def test_published_model_can_share_parameters() -> None:
    model = VMUNet(**TINY)
    published = PublishedVMUNet(**TINY)
    published.load_state_dict(model.state_dict(keep_vars=True), assign=True)
    assert {id(p) for p in model.parameters()} == {id(p) for p in published.parameters()}


def test_scan_benchmark_compares_the_same_scan() -> None:
    """The inputs in the published path's layout hold the same values as ours."""
    inputs = stage_inputs(2, 5, 64)
    expected = ss2d(*inputs).permute(0, 3, 1, 2).flatten(2)
    y = scan_gpu.published(reference_scan, scan_gpu.published_inputs(inputs))
    assert distance(y, expected) < 1e-5


def test_floor_of_a_scan() -> None:
    inputs = [tensor.bfloat16() for tensor in stage_inputs(1, 8, 32)]
    limits = {"bytes_per_second": 1e6, "exponentials_per_second": 1e9}
    x, dt, parameters, matrices = 64 * 32, 4 * 64 * 32, 4 * 32 * 18, 2 * 4 * 64 * 16
    read = 2 * (x + dt + parameters + matrices)
    forward, both = (scan_gpu.floor(inputs, what, limits) for what in ("output", "gradients"))
    assert forward["bytes"] == read + 2 * x
    assert both["bytes"] == 3 * read + 4 * x
    assert both["exponentials"] == 2 * forward["exponentials"] == 2 * 64 * 32 * 4 * 16
    assert forward["bound"] == "bytes"
    assert forward["seconds"] == pytest.approx(forward["bytes"] / 1e6)


@pytest.mark.skipif(torch.cuda.is_available(), reason="it is about machines without CUDA")
@pytest.mark.parametrize("module", [scan_gpu, step_gpu, epoch_gpu])
def test_without_cuda_one_line(module, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmark"])
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert ended.value.code == 2
    name = module.__name__.removeprefix("benchmarks.")
    assert capsys.readouterr().err == f"{name} measures a CUDA device, and none is visible\n"


@pytest.mark.slow
def test_candidates_of_the_scan_run_through_in_the_interpreter(tmp_path) -> None:
    pytest.importorskip("triton")
    command = [sys.executable, "-m", "benchmarks.scan_gpu", "--candidates"]
    subprocess.run(
        [*command, "--output", str(tmp_path / "scan_gpu.json")],
        check=True,
        cwd=ROOT,
        env=os.environ | {"TRITON_INTERPRET": "1"},
    )
    results = json.loads((tmp_path / "scan_candidates.json").read_text())
    assert results["complete"] is True
    assert results["not_timed"] == {}
    assert {row["what"] for row in results["rows"]} == {"forward", "backward", "weight"}
    assert any(row["candidate"].startswith("two scans") for row in results["rows"])
    for row in results["rows"]:
        assert row["seconds"] is None
        assert row["error"] < (1e-2 if row["what"] == "weight" else 1e-5), row


def test_tensors_that_the_published_scan_keeps() -> None:
    """Copies, step sizes, B and C and the states between chunks, against a formula."""
    batch, n = 2, 16
    counted = activations.saved_bytes(activations.CASES["published"], False, batch, 64, **TINY)
    values = 0
    for side, dim in ((16, 8), (8, 16), (4, 32), (2, 64)):
        pixels, d = side**2, 2 * dim
        values += batch * 4 * (2 * d * pixels + 2 * n * pixels + 2 * n * d) + 4 * d * n  # and A
    assert counted["SS2D: ss2d"] == 2 * 4 * values  # two blocks a stage, float32


def test_traffic_of_operations() -> None:
    with activations.Traffic() as traffic:
        x = torch.ones(10, 10)
        y = x.t().reshape(10, 10) + 1.0
        y.t().add_(x)
    assert traffic.counted == {"ones": 400, "add": 800, "add_": 1200}


def scan_row(side: int, published: dict | None) -> dict:
    timing = {"seconds": 1e-3, "low": 1e-3, "high": 1e-3, "peak_bytes": 1e6}
    shape = {"batch": 1, "side": side, "channels": 192, "dtype": "float32", "pass": "output"}
    floor = {"seconds": 5e-4, "bound": "bytes"}
    return {**shape, "triton": timing, "published": published, "reference": None, "floor": floor}


def step_row(variant: str, seconds: float | None) -> dict:
    row = {"variant": variant, "batch": 32, "size": 256, "seconds": seconds, "note": None}
    return row if seconds is None else {**row, "images_per_second": 32.0, "peak_bytes": 2e9}


METHOD_ROWS = [
    {"seeds": seeds, "spread": "equal", "difference": 1.5 * high, "found": {"images": 0.3} | more}
    for high in (0, 1)
    for seeds, more in ((1, {}), (3, {"seeds": 0.1, "bootstrap": 0.2, "methods": 0.05}))
]
AGREEMENT_ROWS = [
    {"seeds": seeds, "below": below, "said": dict.fromkeys(plot.STATEMENTS, 0.25)}
    for seeds in (3, 5)
    for below in (0.0, 1.5)
]
COVERAGE_ROWS = [
    {"kind": kind, "units": units, "coverage": dict.fromkeys(plot.INTERVALS, 0.9)}
    for kind in ("Dice", "DSC")
    for units in (6, 12)
]


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("scan_gpu", [scan_row(64, None), scan_row(32, {"seconds": 2e-3})]),
        (
            "step_gpu",
            [step_row("fp32", 1.0), step_row("bf16", 0.5), step_row("published-fp32", None)],
        ),
        ("methods", METHOD_ROWS),
        ("agreement", AGREEMENT_ROWS),
        ("coverage", COVERAGE_ROWS),
    ],
)
@pytest.mark.parametrize("kind", ["png", "pdf"])
def test_figures(name: str, rows: list, kind: str, tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("matplotlib")
    made_up = {"machine": {"date": "2000-01-01"}, "gpu": {"name": "none"}, "rows": rows}
    made_up |= {"simulations": 10, "images": 20, "level": 0.05, "spread": 0.8, "margin": 0.7}
    (tmp_path / f"{name}.json").write_text(json.dumps(made_up))
    monkeypatch.setattr(sys, "argv", ["plot", "--results", str(tmp_path), "--format", kind])
    plot.main()
    assert (tmp_path / f"{name}.{kind}").stat().st_size > 5000


def simulated(name: str) -> dict:
    """A committed simulation, which has its figure beside it."""
    assert (RESULTS / f"{name}.png").is_file()
    return json.loads((RESULTS / f"{name}.json").read_text())


def test_the_committed_coverages_support_what_the_docs_say() -> None:
    for row in simulated("coverage")["rows"]:
        coverage = row["coverage"]
        assert coverage["studentized"] > coverage["percentile"], row
        if row["units"] >= 12:
            assert (coverage["studentized"] >= 0.9) or "missed" in row["kind"], row


def test_the_committed_statements_are_those_that_the_report_quotes() -> None:
    results = simulated("agreement")
    margins = load_yaml(ROOT / "reports/published.yaml")["equivalence"]["margins"]
    assert results["margin"] == margins["isic17"]["miou"] == margins["isic18"]["miou"]
    rows = {(row["seeds"], row["below"]): row["said"] for row in results["rows"]}
    worse, equal = rows[3, 1.5], rows[3, 0.0]
    shares = worse["in"], worse["undecided"], equal["equivalent"], rows[10, 0.0]["equivalent"]
    text = " ".join(NOTES)
    for share in shares:
        assert f" {100 * share:.0f}%" in text, (share, text)


def test_the_committed_tests_of_methods_support_what_the_docs_say() -> None:
    results = simulated("methods")
    assert results["inside"]["inside"] > 0.95
    assert results["inside"]["found by images"] > 0.9
    assert 0.8 < results["variation"]["runs"] < 0.9
    rows = {(row["seeds"], row["spread"], row["difference"]): row for row in results["rows"]}
    assert rows[1, "equal", 0.0]["found"]["images"] > 0.3
    for seeds in (3, 5):
        for spread in ("equal", "unequal", "none"):
            assert rows[seeds, spread, 0.0]["found"]["methods"] < 0.075
    assert rows[3, "equal", 0.0]["found"]["bootstrap"] > 0.075


def test_no_figure_without_results(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["plot", "--results", str(tmp_path)])
    with pytest.raises(SystemExit, match="run a benchmark first"):
        plot.main()


def test_the_documented_figures_are_those_of_the_results() -> None:
    text = (RESULTS.parents[1] / "docs/kernels.md").read_text()
    tables = summary.summary(RESULTS / "h200-2026-11-28").split("\n\n")
    assert len(tables) == 2
    for table in tables:
        assert table in text


def test_a_variant_that_fails_and_one_measured_twice() -> None:
    row = {"size": 256, "variant": "fp32", "seconds": 0.1, "peak_bytes": 8.25e9}
    results = [
        {"rows": [row | {"images_per_second": 300.4}, row | {"images_per_second": 320.0}]},
        {"rows": [{"size": 512, "variant": "fp32", "seconds": None}]},
    ]
    assert summary.step_table(results).split("\n")[2:] == [
        "| 256x256 | fp32 | 300 to 320 | 8.2 |",
        "| 512x512 | fp32 | does not run | -- |",
    ]


def test_epochs_taken_apart_on_a_processor(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("VMUNET_STEP", "")
    output = tmp_path / "epochs.json"
    monkeypatch.setattr(sys, "argv", ["epoch_gpu", "--quick", "--output", str(output)])
    epoch_gpu.main()
    result = json.loads(output.read_text())
    assert (result["train_images"], result["selection_images"]) == (10, 5)
    (row,) = [row for row in result["rows"] if row["kind"] == "eager"]
    parts = row["parts"]
    assert set(parts) == set(epoch_gpu.PARTS)
    assert min(parts[part] for part in ("data", "step", "selection", "saving")) > 0
    assert sum(parts.values()) == pytest.approx(row["seconds"], rel=0.3)
    assert row["images_per_second"] == pytest.approx(10 / row["seconds"])
    assert str(output) in capsys.readouterr().out


def test_epochs_of_given_arrays(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("VMUNET_STEP", "")
    arrays = tmp_path / "arrays"
    epoch_gpu.write_arrays(arrays, {"train": 6, "test": 3}, 32)
    options = ["--quick", "--arrays", str(arrays), "--output", str(tmp_path / "e.json")]
    monkeypatch.setattr(sys, "argv", ["epoch_gpu", *options])
    epoch_gpu.main()
    result = json.loads((tmp_path / "e.json").read_text())
    assert (result["arrays"], result["train_images"]) == (str(arrays), 6)


def test_variants_of_a_step_have_a_network() -> None:
    """The graph variants take the network of the same name without a graph."""
    networks = {"": torch.nn.Conv2d(3, 1, 1), "compiled": torch.nn.Conv2d(3, 1, 1)}
    steps = step_gpu.training_steps(networks, step_gpu.VARIANTS)
    assert {name for name in step_gpu.VARIANTS if "published" not in name} == set(steps)
    for name, prepare in steps.items():
        network, is_half, is_captured = prepare.args
        assert network is networks["compiled" if "compiled" in name else ""]
        assert (is_half, is_captured) == (name.startswith("bf16"), name.endswith("graph"))
    assert set(step_gpu.VARIANTS) == set(plot.VARIANTS)
