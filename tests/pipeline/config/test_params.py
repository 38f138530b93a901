"""params.yaml, the profiles and the grid: accepted values, and one sentence for each mistake."""

import codecs
import math
import shutil
from pathlib import Path
from urllib.parse import unquote

import pytest
from ruamel.yaml import YAML

from pipeline.config.params import load_params, load_profile
from pipeline.config.profiles import grid_edits, switch_profile
from pipeline.config.runs import (
    OwnRun,
    Run,
    own_names,
    own_runs,
    parse_run,
    parse_training,
    runs,
)
from pipeline.config.yaml_file import read_yaml
from tests.helpers.clone import demo_root
from tests.helpers.paths import ROOT
from vmunet import InputError
from vmunet.models import MODELS
from vmunet.weights.imagenet.files import FILES, files_for

PROFILES = sorted(path.stem for path in (ROOT / "profiles").glob("*.yaml"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy of params.yaml and the profiles, with demo active."""
    return shutil.copytree(demo_root(), tmp_path, dirs_exist_ok=True)


def edit(path: Path, change) -> None:
    yaml = YAML(typ="safe")
    content = yaml.load(path)
    change(content)
    yaml.dump(content, path)


def cross(content, train: str = "isic17-64", test: str = "isic18-64", name="a-to-b") -> None:
    """Declare one more pair of views in params.yaml's content."""
    content["grid"]["cross"][name] = {"train": train, "test": test}


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_is_valid_and_switches(root: Path, name: str) -> None:
    switch_profile(name, root=root)
    params = load_params(root)
    assert params.profile_name == name
    assert params.grid == params.profile.grid
    names = [run.name for run in runs(params)]
    assert names
    assert len(names) == len(set(names))
    for run in runs(params):
        volumes = run.view in params.grid.volumes
        listed = params.grid.volume_protocols if volumes else params.view(run.view).protocols
        assert run.protocol in listed, run.name


def test_the_grid_has_twelve_cells_a_dataset_under_the_paper_protocol(root: Path) -> None:
    for profile in ("demo", "paper"):
        switch_profile(profile, root=root)
        params = load_params(root)
        grid = [run for run in runs(params) if run.cell not in params.grid.rivals]
        grid = [run for run in grid if run.seed in params.grid.seeds]
        for dataset in ("isic17", "isic18"):
            of_dataset = [r for r in grid if r.view.startswith(dataset) and r.protocol == "paper"]
            assert len(of_dataset) == 12
    assert load_profile("paper", root).train.dims == (96, 192, 384, 768)


def test_paper_profile_is_the_papers_settings() -> None:
    train = load_profile("paper", ROOT).train
    assert (train.epochs, train.t_max, train.batch_size) == (300, 50, 32)
    assert (train.learning_rate, train.eta_min, train.weight_decay) == (1e-3, 1e-5, 1e-2)


def test_base_cell_is_the_papers() -> None:
    base = load_params(demo_root()).cell("base")
    assert base.init == "vmamba-s"
    assert base.drop_path_rate == 0.2
    assert (base.depths, base.depths_decoder) == ([2, 2, 2, 2], [2, 2, 2, 1])


def test_another_model_has_none_of_vmunets_settings() -> None:
    unet = load_params(demo_root()).cell("unet")
    assert (unet.model, unet.init, unet.drop_path_rate) == ("unet", "none", None)
    assert unet.blocks == ([], [])


def test_every_other_model_has_a_cell_from_scratch() -> None:
    cells = load_params(demo_root()).cells.values()
    assert {cell.model for cell in cells if cell.init == "none"} == set(MODELS)


def test_the_paper_profile_repeats_the_two_cells_that_a_statement_needs(root: Path) -> None:
    switch_profile("paper", root=root)
    params = load_params(root)
    seeds: dict[tuple[str, str], set[int]] = {}
    for run in runs(params):
        if run.view in params.grid.ablation_views and run.protocol == "paper":
            seeds.setdefault((run.view, run.cell), set()).add(run.seed)
    repeated = {place for place, of in seeds.items() if of == {42, 43, 44}}
    assert repeated == {(v, c) for v in params.grid.ablation_views for c in ("base", "scratch")}
    assert all(of == {42} for place, of in seeds.items() if place not in repeated)


@pytest.mark.parametrize("name", PROFILES)
def test_every_rival_is_another_model_or_starts_from_other_weights(root: Path, name: str) -> None:
    switch_profile(name, root=root)
    params = load_params(root)
    for rivals in (params.grid.rivals, params.grid.volume_rivals):
        cells = [params.cell(rival) for rival in rivals]
        starts = [(cell.model, cell.init) for cell in cells]
        assert len(set(starts)) == len(starts)
        assert "vmunet" not in {cell.model for cell in cells}


def test_the_paper_profile_names_the_files_that_its_cells_start_from(root: Path) -> None:
    switch_profile("paper", root=root)
    params = load_params(root)
    for run in runs(params):
        cell = params.cell(run.cell)
        if cell.init == "imagenet":
            assert set(files_for(cell.model)) <= set(params.profile.weights.imagenet)
    for name, source in params.profile.weights.imagenet.items():
        assert source.is_address
        assert unquote(source.place).endswith(f"/{FILES[name].file}")
        digits = FILES[name].file.rpartition("-")[2].removesuffix(".pth")
        assert (source.sha256 or "").startswith(digits) or name == "swin-tiny"


def test_a_source_of_imagenet_weights_is_a_place_with_or_without_a_checksum(root: Path) -> None:
    sources = {
        "resnet34": "a.pth",
        "deit-small": {"place": "https://x/b.pth", "sha256": "cd65a155"},
    }
    edit(root / "profiles" / "demo.yaml", lambda c: c["weights"].update(imagenet=sources))
    found = load_params(root).profile.weights.imagenet
    assert (found["resnet34"].place, found["resnet34"].sha256) == ("a.pth", None)
    assert not found["resnet34"].is_address
    assert (found["deit-small"].sha256, found["deit-small"].is_address) == ("cd65a155", True)


def test_switching_changes_only_profile_and_grid(root: Path) -> None:
    path = root / "params.yaml"
    before = path.read_text()
    switch_profile("small", root=root)
    small = path.read_text()
    assert small != before
    comments = [line for line in before.splitlines() if "#" in line]
    assert all(line in small for line in comments)
    old, new = read_yaml(path), YAML(typ="safe").load(before)
    assert {k: v for k, v in old.items() if k not in ("profile", "grid")} == {
        k: v for k, v in new.items() if k not in ("profile", "grid")
    }
    switch_profile("demo", root=root)
    assert path.read_text() == before


def test_switching_keeps_line_ends_and_byte_order_mark(root: Path) -> None:
    """As Notepad saves it."""
    path = root / "params.yaml"
    plain = path.read_bytes()
    windows = codecs.BOM_UTF8 + plain.replace(b"\n", b"\r\n")
    path.write_bytes(windows)
    switch_profile("small", root=root)
    assert path.read_bytes() != windows
    switch_profile("demo", root=root)
    assert path.read_bytes() == windows


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_params_in_another_encoding_are_named(root: Path, encoding: str) -> None:
    path = root / "params.yaml"
    path.write_bytes((path.read_text() + "# Grüße\n").encode(encoding))
    with pytest.raises(InputError, match=r"params\.yaml: byte \d+ is not UTF-8; save the file"):
        load_params(root)


def test_the_committed_params_are_what_a_switch_writes(root: Path) -> None:
    committed = (ROOT / "params.yaml").read_text()
    name = read_yaml(ROOT / "params.yaml")["profile"]
    switch_profile(name, root=root)
    assert (root / "params.yaml").read_text() == committed


def test_switching_to_the_active_profile_keeps_an_edited_grid(root: Path) -> None:
    edit(root / "params.yaml", lambda c: c["grid"].update(seeds=[1, 2, 3]))
    switch_profile("demo", root=root)
    assert load_params(root).grid.seeds == [1, 2, 3]


def test_a_grid_edited_by_hand_is_not_replaced_silently(root: Path) -> None:
    path = root / "params.yaml"
    edit(path, lambda c: c["grid"].update(seeds=[1, 2]))
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"grid\.seeds: \[1, 2\] \(in profile demo: \[42\]\)"):
        switch_profile("small", root=root)
    assert path.read_bytes() == before
    switch_profile("demo", replace=True, root=root)
    assert grid_edits(root) == []
    edit(path, lambda c: c["grid"].update(seeds=[1, 2]))
    switch_profile("small", replace=True, root=root)
    assert load_params(root).grid == load_params(root).profile.grid
    assert grid_edits(root) == []


def test_a_key_that_is_missing_or_new_is_an_edit(root: Path) -> None:
    edit(root / "params.yaml", lambda c: c["grid"].pop("cross"))
    edit(root / "params.yaml", lambda c: c["grid"].update(mine=1))
    lines = grid_edits(root)
    assert lines[0].startswith("grid.cross: nothing (in profile demo: {")
    assert lines[1:] == ["grid.mine: 1 (in profile demo: nothing)"]
    (root / "profiles/demo.yaml").unlink()
    assert grid_edits(root) == ["grid (profile demo no longer exists)"]


def test_a_run_names_its_places() -> None:
    run = Run("isic17-256", "base", "paper", 42)
    assert run.name == "isic17-256-base-paper-42"
    assert run.folder == Path("runs/isic17-256/base/paper/42")
    assert run.metrics_folder("demo") == Path("metrics/demo/isic17-256/base/paper/42")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(profile="huge"), r"unknown profile 'huge'; known: demo, paper, ri"),
        (lambda c: c["grid"]["ablations"].append("bsae"), r"unknown cell 'bsae'; known: .*base"),
        (
            lambda c: c["grid"]["ablation_views"].append("isic17-100"),
            r"unknown view 'isic17-100'; known",
        ),
        (lambda c: c["grid"].update(seeds=["42"]), r"grid\.seeds\.0: .*integer \(found '42'\)"),
        (lambda c: c["grid"].update(seeds=[]), r"grid\.seeds"),
        (lambda c: c["grid"].update(protocols=["papr"]), r"grid\.protocols\.0: .*'paper' or 'sou"),
        (lambda c: c["grid"].update(seed=[1]), r"grid\.seed: Extra inputs"),
        (
            lambda c: c["grid"].update(sound_cells=["base", "base"]),
            r"base-sound-42 is declared twice",
        ),
        (lambda c: c["grid"].update(seeds=[1, 1]), r"isic17-64-base-paper-1 is declared twice"),
        (
            lambda c: c["grid"].update(repeats={"cells": ["base"], "seeds": [42, 43]}),
            r"isic17-64-base-paper-42 is declared twice",
        ),
        (
            lambda c: c["grid"].update(repeats={"cells": ["bass"], "seeds": [43]}),
            r"grid.repeats.cells: unknown cell 'bass'",
        ),
        (lambda c: c["grid"].pop("repeats"), r"grid.repeats"),
        (lambda c: c["grid"]["size_views"].append("isic17-64"), r"base-paper-42 is declared twice"),
        (
            lambda c: c["grid"].update(protocols=["sound"], sound_cells=[]),
            r"isic17-96-base runs under",
        ),
        (
            lambda c: c["grid"].pop("cross"),
            r"params\.yaml: no grid\.cross; add the line `cross: \{\}`",
        ),
        (lambda c: c["grid"].update(cross=None), r"grid\.cross: .*valid dictionary \(found None"),
        (
            lambda c: cross(c, test="isic18-99"),
            r"cross\.a-to-b\.test: 'isic18-99' is not in grid\.ablation_views; known: isic17-64",
        ),
        (
            lambda c: cross(c, train="isic17-96"),
            r"cross\.a-to-b\.train: 'isic17-96' is not in grid\.ablation_views",
        ),
        (
            lambda c: cross(c, test="isic17-64"),
            r"cross\.a-to-b: both views are of isic17; take two datasets",
        ),
        (
            lambda c: (c["grid"]["views"]["isic18-64"].update(size=96), cross(c)),
            r"cross\.[a-z0-9-]+: isic17-64 has 64 px and isic18-64 96; take views of one size",
        ),
        (
            lambda c: (c["grid"].update(ablations=[]), cross(c)),
            r"cross\.[a-z0-9-]+: the grid runs no cell on isic17-64",
        ),
        (lambda c: cross(c, name="A b"), r"grid\.cross: expected letters, .*'A b'"),
        (
            lambda c: c["grid"]["views"].update(cross=c["grid"]["views"]["isic17-96"]),
            r"grid: a view cannot be called cross",
        ),
        (lambda c: c["cells"].pop("base"), r"unknown cell 'base'"),
        (lambda c: c.update(cells=["base"]), r"cells: expected names and values"),
        (lambda c: c["cells"].update(base="x"), r"base: expected names and values"),
        (lambda c: c["grid"]["views"]["isic17-64"].update(size=50), r"isic17-64\.size: .*32"),
        (lambda c: c["cells"]["base"].update(drop_path_rate=1.5), r"cells\.base\.drop_path_rate"),
        (lambda c: c["cells"]["base"].update(init="vmamba-b"), r"cells\.base\.init: .*'vmamba-t'"),
        (lambda c: c["cells"]["base"].update(depths=[2, 2, 2]), r"cells\.base\.depths"),
        (lambda c: c["cells"]["base"].update(droppath=0.1), r"cells\.base\.droppath: Extra"),
        (lambda c: c["cells"]["base"].update(train={"epochs": 3}), r"base\.train\.epochs: Extra"),
        (lambda c: c["cells"]["base"].update(loss_weights=[1.0]), r"base\.loss_weights"),
        (lambda c: c["cells"]["base"].update(loss_weights=[0.0, 0.0]), r"both are 0"),
        (lambda c: c["cells"]["base"].update(augment={"flip": 1.0}), r"base\.augment"),
        (lambda c: c["cells"]["base"].update(augment={"rotation": 2.0}), r"must be a probability"),
        (lambda c: c["cells"]["unet"].update(model="u-net"), r"unknown model 'u-net'; known: vmun"),
        (lambda c: c["cells"]["unet"].update(depths=[2, 2, 2, 2]), r"depths: only vmunet has it"),
        (lambda c: c["cells"]["unet"].update(init="vmamba-s"), r"vmamba-s is not for the model un"),
        (lambda c: c["cells"]["base"].update(init="imagenet"), r"imagenet is not for the model vm"),
        (
            lambda c: c["cells"]["unet"].update(init="imagenet"),
            r"cells\.unet: init: no ImageNet weights are known for the model unet; known for: sa",
        ),
        (lambda c: c["cell"].pop("depths"), r"cells\.base: depths: vmunet needs it"),
        (lambda c: c["cells"]["unet"].update(train={"width": 0.0}), r"unet\.train\.width"),
        (lambda c: c["grid"]["rivals"].append("u-net"), r"grid\.rivals: unknown cell 'u-net'"),
        (lambda c: c["grid"].pop("volume_rivals"), r"no grid\.volume_rivals; add the line"),
        (lambda c: c.update(grids={}), r"unknown key 'grids'"),
        (
            lambda c: c["grid"]["volumes"]["synapse-64"].update(size=50),
            r"volumes\.synapse-64\.size: .*32",
        ),
        (
            lambda c: c["grid"]["volumes"]["synapse-64"].update(dataset="btcv"),
            r"volumes\.synapse-64\.dataset: .*'synapse' \(found 'btcv'\)",
        ),
        (
            lambda c: c["grid"]["volumes"].update(
                {"isic17-64": {"dataset": "synapse", "size": 64}}
            ),
            r"grid\.volumes\.isic17-64: grid\.views has this name too",
        ),
    ],
)
def test_mistakes_in_params(root: Path, change, message: str) -> None:
    edit(root / "params.yaml", change)
    with pytest.raises(InputError, match=message):
        load_params(root)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["train"].update(epochs="12"), r"demo\.yaml: train\.epochs: .*integer"),
        (lambda c: c["train"].update(weight_decay=float("nan")), r"train\.?\S*: "),
        (lambda c: c["train"].update(epochs=0), r"demo\.yaml: train: .*at least 1"),
        (lambda c: c["train"].update(lr=1.0), r"demo\.yaml: train\.lr: Unexpected"),
        (lambda c: c["train"].update(dims=[8, 16, 32, 65]), r"dims must double"),
        (lambda c: c["data"]["isic17"].update(source="ftp"), r"data\.isic17: .*'ftp'"),
        (
            lambda c: c["data"].update(isic17={"source": "prepared", "path": ""}),
            r"data\.isic17\.prepared\.path: .*at least 1 character",
        ),
        (lambda c: c["weights"].update(source="ftp"), r"weights\.source: .*'file'"),
        (
            lambda c: c["weights"].update(imagenet={"vgg16": "x.pth"}),
            r"weights\.imagenet: unknown file 'vgg16'; known: r50-vit-b16, swin-tiny, res2net50, r",
        ),
        (
            lambda c: c["weights"].update(imagenet={"resnet34": {"place": ""}}),
            r"weights\.imagenet\.resnet34\.place: .*at least 1 character",
        ),
        (
            lambda c: c["weights"].update(imagenet={"resnet34": {"place": "x", "sha256": "B6"}}),
            r"weights\.imagenet\.resnet34\.sha256: String should match",
        ),
        (lambda c: c["data"]["isic18"].update(n_train=1000), r"n_train 1000 exceeds training"),
        (lambda c: c["data"]["isic17"].pop("n_train"), r"isic17\.sample\.n_train: Field required"),
        (lambda c: c["data"]["isic17"].update(seed=1), r"isic17\.sample\.seed: Extra inputs"),
        (
            lambda c: c["train"].update(states=0),
            r"demo\.yaml: train: .*states and gpus must be at least 1",
        ),
        (lambda c: c["data"].pop("isic18"), r"no data source for isic18"),
        (lambda c: c["volumes"].pop("synapse"), r"no data source for synapse"),
        (lambda c: c["volumes"]["synapse"].update(source="http"), r"volumes\.synapse: .*'http'"),
        (lambda c: c["volumes"]["synapse"].update(slices=[4, 5]), r"synapse\.phantom\.slices\.0"),
    ],
)
def test_mistakes_in_a_profile(root: Path, change, message: str) -> None:
    edit(root / "profiles" / "demo.yaml", change)
    with pytest.raises(InputError, match=message):
        load_params(root)


def test_a_file_that_is_missing_or_not_yaml(root: Path) -> None:
    with pytest.raises(InputError, match=r"params\.yaml: no such file; run from"):
        load_params(root / "profiles")
    with pytest.raises(InputError, match=r"params\.yaml: no such file; run from"):
        switch_profile("demo", root=root / "profiles")
    (root / "params.yaml").write_text("profile: [demo\n")
    with pytest.raises(InputError, match=r"params\.yaml: not YAML"):
        load_params(root)


def test_unknown_names_are_refused() -> None:
    params = load_params(demo_root())
    with pytest.raises(InputError, match=r"unknown cell 'x'"):
        params.cell("x")
    with pytest.raises(InputError, match=r"unknown view 'x'"):
        params.view("x")


FOLDERS = {"images": "i", "masks": "m", "classes": ["polyp"], "split": {"test": 0.2}, "size": 64}


def declare(content, kind: str = "images", name: str = "polyps", **changes) -> None:
    """Declare an own dataset in params.yaml's content."""
    content["own"][kind][name] = FOLDERS | changes


def test_own_datasets_are_views_whose_runs_are_not_in_the_grid(root: Path) -> None:
    before = runs(load_params(root))
    edit(root / "params.yaml", declare)
    edit(root / "params.yaml", lambda c: declare(c, "volumes", "mr", window=[-125, 275]))
    params = load_params(root)
    assert runs(params) == before
    own = own_runs(params)
    assert [run.name for run in own] == ["polyps-scratch-sound-42", "mr-scratch-sound-42"]
    assert own[0].folder == Path("runs/polyps/scratch/sound/42")
    assert own[0].metrics_folder("demo") == Path("metrics/own/demo/polyps/scratch/sound/42")
    view = params.view("polyps")
    assert (view.dataset, view.size, view.protocols) == ("polyps", 64, ["sound"])
    assert own_names(root) == {"polyps", "mr"}
    switch_profile("rivals", root=root)
    assert [run.view for run in own_runs(load_params(root))] == ["polyps", "mr"]


def test_a_stage_tells_own_runs_by_their_names(root: Path, monkeypatch) -> None:
    edit(root / "params.yaml", declare)
    monkeypatch.chdir(root)
    assert parse_run(["polyps", "base", "paper", "1"], "train", "") == OwnRun(
        "polyps", "base", "paper", 1
    )
    assert type(parse_run(["isic17-64", "base", "paper", "1"], "train", "")) is Run


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("own"), r"params\.yaml: no section own; add the line `own: \{cells: "),
        (lambda c: c.update(own=None), r"own: Input should be a valid dict"),
        (lambda c: c["own"].update(images=None), r"own\.images: .*valid dictionary \(found None"),
        (lambda c: c["own"].update(protocols=[]), r"own\.protocols: .*at least 1"),
        (lambda c: declare(c, name="My set"), r"own\.images: expected letters.*'My set'"),
        (lambda c: declare(c, name="-a"), r"own\.images: expected letters.*'-a'"),
        (lambda c: declare(c, name="isic17-64"), r"own\.images\.isic17-64: the grid has this name"),
        (
            lambda c: (declare(c), declare(c, "volumes")),
            r"own\.volumes\.polyps: own\.images has this name too",
        ),
        (
            lambda c: (declare(c), c["own"].update(cells=["bse"])),
            r"own\.cells: unknown cell 'bse'; known: .*base",
        ),
        (lambda c: declare(c, images="~/i"), r"images: DVC watches .*write it in full, /"),
        (lambda c: declare(c, masks="$HOME/m"), r"masks: DVC watches this path without"),
        (lambda c: declare(c, size=50), r"own\.images\.polyps\.size: .*32"),
        (lambda c: declare(c, classes=[]), r"polyps\.classes: .*at least 1"),
        (lambda c: declare(c, classes=["a", "a"]), r"classes: a, a: a name appears twice"),
        (lambda c: declare(c, split={}), r"polyps\.split: give test: .*or both"),
        (lambda c: declare(c, split={"test": 1.5}), r"polyps\.split\.test: .*less than 1"),
        (lambda c: declare(c, split={"csv": "~/x"}), r"split\.csv: DVC watches"),
        (lambda c: declare(c, window=[0, 1]), r"own\.images\.polyps\.window: Extra"),
        (
            lambda c: declare(c, "volumes", window=[9, 1]),
            r"volumes\.polyps: window: .*the lower one first",
        ),
    ],
)
def test_mistakes_in_own(root: Path, change, message: str) -> None:
    edit(root / "params.yaml", change)
    with pytest.raises(InputError, match=message):
        load_params(root)


def test_a_cell_may_train_in_its_own_way(root: Path) -> None:
    own = {"learning_rate": 2e-3}
    edit(root / "params.yaml", lambda c: c["cells"].update(tuned={"train": own}))
    params = load_params(root)
    budget = params.profile.train
    tuned = params.cell("tuned").settings(budget)
    assert (tuned.learning_rate, tuned.weight_decay) == (2e-3, budget.weight_decay)
    assert params.cell("base").settings(budget) == budget
    assert params.cell("base").weights == (1.0, 1.0)
    own["learning_rate"] = 1e-6
    edit(root / "params.yaml", lambda c: c["cells"].update(tuned={"train": own}))
    with pytest.raises(InputError, match=r"a cell's train: .*eta_min.*found"):
        load_params(root).cell("tuned").settings(budget)


def test_the_main_cell_is_the_papers_or_else_the_first(root: Path) -> None:
    grid = load_params(root).grid
    assert grid.main_cell == "base"
    assert grid.main_runs("isic17-64") == [
        ("isic17-64", "base", "paper", 42),
        ("isic17-64", "base", "sound", 42),
    ]
    assert grid.main_runs("isic17-96") == []
    switch_profile("small", root=root)
    grid = load_params(root).grid
    assert grid.main_cell == "scratch"
    assert {run[1:3] for run in grid.main_runs("isic17-128")} == {
        ("scratch", "paper"),
        ("scratch", "sound"),
    }


def test_a_profile_from_before_grid_cross_is_told_what_to_add(root: Path) -> None:
    edit(root / "profiles/small.yaml", lambda c: c["grid"].pop("cross"))
    with pytest.raises(
        InputError, match=r"small\.yaml: no grid\.cross; add the line `cross: \{\}`"
    ):
        load_profile("small", root)


def test_the_time_of_a_training(root: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(root)
    names = ["isic17-64", "base", "paper", "1"]
    assert parse_training(names, "train", "") == (Run("isic17-64", "base", "paper", 1), math.inf)
    assert parse_training([*names, "--seconds", "1.5"], "train", "")[1] == 1.5
    for wrong in ("0", "-1", "nan", "soon"):
        with pytest.raises(SystemExit) as ended:
            parse_training([*names, "--seconds", wrong], "train", "")
        assert ended.value.code == 2
        assert f"argument --seconds: invalid positive value: '{wrong}'" in capsys.readouterr().err
