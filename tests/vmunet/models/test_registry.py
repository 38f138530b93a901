"""The registry of models: names, sizes, widths, one sentence for a mistake, the docs' example."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.helpers.clone import copy_sources
from tests.helpers.paths import ROOT
from vmunet.architecture import Model, scaled
from vmunet.errors import InputError
from vmunet.models import MODELS, build, name_of
from vmunet.weights.checkpoints import load_checkpoint, save_checkpoint

NARROW = 0.13  # MEW-UNet needs more than an eighth
SMALL_AS_IT_IS = "malunet"  # 8 channels at its published width
FACTS = {"normalisation": "minmax", "size": 64, "protocol": "paper"}
TABLE = re.compile(r"^\| `([a-z0-9-]+)` \| .+? \| ([\d,]+) \|", re.MULTILINE)
TWO_TABLES = ["transunet", "transnorm", "swin-unet", "transdeeplab", "uctransnet", "mt-unet"]


def images(model: Model, size: int = 64, batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, model.in_channels, *(size,) * model.dimensions)


@pytest.fixture(params=list(MODELS))
def narrow(request) -> Model:
    torch.manual_seed(0)
    classes = MODELS[request.param].min_classes
    width = 1.0 if request.param == SMALL_AS_IT_IS else NARROW
    return build(request.param, classes, size=64, width=width)


def test_a_checkpoint_names_its_model_and_gives_its_logits(narrow: Model, tmp_path) -> None:
    path = tmp_path / "weights.safetensors"
    save_checkpoint(path, narrow, FACTS)
    loaded, metadata = load_checkpoint(path)
    assert name_of(loaded) == name_of(narrow)
    assert metadata["size"] == 64
    given = images(narrow, 32 if narrow.dimensions == 3 else 64)
    with torch.no_grad():
        logits = narrow.eval()(given)
        assert logits.shape == (2, narrow.config["num_classes"], *given.shape[2:])
        torch.testing.assert_close(loaded(given), logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "parameters"), TABLE.findall((ROOT / "docs/models.md").read_text())
)
def test_the_parameters_of_the_docs(name: str, parameters: str) -> None:
    with torch.device("meta"):
        second = name in TWO_TABLES or name in ("vnet", "r50-unet", "mew-unet")
        model = build(name, 9, 224) if second else build(name, 1, 256)
    assert sum(p.numel() for p in model.parameters()) == int(parameters.replace(",", ""))


def test_the_docs_list_every_model() -> None:
    assert [name for name, _ in TABLE.findall((ROOT / "docs/models.md").read_text())] == list(
        MODELS
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "u-net"}, r"unknown model 'u-net'; known: vmunet, unet"),
        ({"name": "vnet", "num_classes": 1}, r"V-Net needs at least 2 classes, not 1"),
        ({"name": "unet", "size": 100}, r"UNet takes sizes divisible by 16, not 100x100"),
        ({"name": "sanet", "size": 16}, r"SANet takes sizes divisible by 32, not 16x16"),
        (
            {"name": "malunet", "width": 0.01},
            r"width 0\.01 leaves no channel .* take a width above",
        ),
        ({"name": "vmunet", "width": 0.01}, r"width 0\.01 leaves no channel"),
    ],
)
def test_mistakes_are_one_sentence(arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        build(**arguments)
    assert "\n" not in str(error.value)


def test_another_size_than_the_models_own_is_refused() -> None:
    model = build("transunet", 9, 64, NARROW)
    with pytest.raises(InputError, match=r"built for images of 64x64, not 96x96"):
        model(torch.zeros(1, 3, 96, 96))


def test_weights_under_another_models_name_are_refused(tmp_path) -> None:
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    path = tmp_path / "weights.safetensors"
    save_checkpoint(path, build("unet", width=NARROW), FACTS)
    with safe_open(path, framework="pt") as file:
        header = file.metadata()
    header = {key: text.replace('"unet"', '"att-unet"') for key, text in header.items()}
    header = {
        key: re.sub(r'"config": \{.*?\}', '"config": {"width": 0.125}', text)
        for key, text in header.items()
    }
    save_file(load_file(path), path, metadata=header)
    with pytest.raises(InputError, match=r"of another architecture than Att-UNet's"):
        load_checkpoint(path)
    wrong = {key: text.replace('"att-unet"', '"att-net"') for key, text in header.items()}
    save_file(load_file(path), path, metadata=wrong)
    with pytest.raises(InputError, match=r"unknown model 'att-net'"):
        load_checkpoint(path)


def test_scaled_keeps_the_multiple() -> None:
    assert [scaled(64, w, 4) for w in (1.0, 0.5, 0.3, 0.0625)] == [64, 32, 20, 4]
    with pytest.raises(
        InputError, match=r"channel of a layer that has 64; take a width above 0\.0"
    ):
        scaled(64, 0.01, 4)


EXAMPLE = """
import torch
from pipeline.config.params import load_params
from pipeline.config.runs import runs
from stages.common.initial_model import initial_model

params = load_params()
cell = params.cell("tiny")
model, _ = initial_model(cell, 1, cell.settings(params.profile.train), 64)
print(type(model).__name__, tuple(model(torch.zeros(1, 3, 64, 64)).shape))
print([run.name for run in runs(params) if run.cell == "tiny"][0])
"""


def test_the_docs_example_adds_a_model_and_changes_no_other(tmp_path: Path) -> None:
    project = copy_sources(tmp_path / "project")
    text = (project / "docs/models.md").read_text()
    code, line, row = re.findall(
        r"```(?:python|yaml)\n(.*?)```", text.split("## Add a model")[1], re.S
    )

    def python(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, *words], cwd=project, capture_output=True, text=True, check=True
        )
        return done.stdout

    def prints() -> dict[str, str]:
        folder = project / ".fingerprints"
        return {
            p.relative_to(folder).as_posix(): p.read_text()
            for p in folder.rglob("[a-z]*")
            if p.is_file() and p.name != "inits"  # of all cells, for the stage `initial` alone
        }

    python("-m", "stages.code")
    before = prints()
    (project / "vmunet/models/tiny.py").write_text(code)
    places = project / "vmunet/models/places.py"
    places.write_text(places.read_text().replace("PLACES = {\n", f"PLACES = {{\n{line}"))
    params = project / "params.yaml"
    added = params.read_text().replace("\ncells:\n", f"\ncells:\n{row}")
    params.write_text(added.replace("  rivals:", "  rivals: [tiny] #"))
    assert python("-c", EXAMPLE).split("\n")[:2] == [
        "Tiny (1, 1, 64, 64)",
        "isic17-64-tiny-paper-42",
    ]
    python("-m", "stages.code")
    after = prints()
    assert set(after) - set(before) == {"models/tiny"}
    assert {name: after[name] for name in before} == before
