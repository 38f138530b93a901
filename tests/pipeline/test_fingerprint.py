"""Fingerprints of stages: edits that change them, and edits that must not."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.config.yaml_file import read_yaml
from pipeline.fingerprint import (
    FOLDER,
    PACKAGES,
    QUOTED,
    WITHOUT_RESULT,
    Fingerprints,
    checked_fingerprint,
    fingerprint,
    stage_names,
    without_result,
    write_fingerprints,
)
from tests.helpers.paths import ROOT
from vmunet.errors import InputError

SCRIPT = Path("stages/train.py")
MODULE = '''"""A module."""

import vmunet.used


def scale(x: int, factor: "float" = 2) -> int:
    """Twice x."""
    assert factor, "no factor"
    if x < 0:
        raise ValueError(f"x is {x}")
    return x * factor  # the result
'''


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A small project: the script imports vmunet.loss, which imports vmunet.used."""
    files = {
        "stages/__init__.py": "",
        "stages/train.py": "import vmunet.loss\n",
        "vmunet/__init__.py": "names = {'VMUNet': 'vmunet.model'}\n",
        "vmunet/loss.py": MODULE,
        "vmunet/used.py": "value = 1\n",
        "vmunet/model.py": "width = 96\n",
        "vmunet/other.py": "value = 2\n",
        "pipeline/__init__.py": "",
        "pipeline/stage.py": "status = 2\n",
        "pipeline/tracking/__init__.py": "",
        "pipeline/tracking/run.py": "import vmunet.other\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def changes(project: Path, path: str, edit: Callable[[str], str]) -> bool:
    """Whether an edit changes the script's fingerprint; the file must really differ."""
    before, text = fingerprint(SCRIPT, project), (project / path).read_text()
    assert edit(text) != text
    (project / path).write_text(edit(text))
    return fingerprint(SCRIPT, project) != before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""A module."""', '"""Something else, in\n\nmore lines."""'),
        ('"""Twice x."""', '"""x times a factor."""'),
        ('    """Twice x."""\n', ""),
        ("  # the result", ""),
        ("x: int, factor", "x: int,\n    factor"),
        ('f"x is {x}"', '"negative: " + str(x)'),
        ('f"x is {x}"', '"negative"'),
        ('"no factor"', '"a factor of 0"'),
        ("\n\n\ndef", "\n\n\n\n# A function.\ndef"),
    ],
)
def test_words_and_formatting_change_nothing(project: Path, old: str, new: str) -> None:
    assert not changes(project, "vmunet/loss.py", lambda text: text.replace(old, new))


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("vmunet/loss.py", "x * factor", "x + factor"),
        ("vmunet/loss.py", "= 2)", "= 3)"),
        ("vmunet/loss.py", "x < 0", "x <= 0"),
        ("vmunet/loss.py", "raise ValueError(", "raise KeyError("),
        ("vmunet/loss.py", "assert factor", "assert x"),
        ("vmunet/loss.py", "def scale", "def twice"),
        ("vmunet/used.py", "1", "2"),
        ("vmunet/__init__.py", "VMUNet", "UNet"),
        ("stages/train.py", "loss\n", "loss\nprint(vmunet)\n"),
    ],
)
def test_any_other_edit_changes_it(project: Path, path: str, old: str, new: str) -> None:
    assert changes(project, path, lambda text: text.replace(old, new))


def test_what_is_not_imported_changes_nothing(project: Path) -> None:
    for path in ("vmunet/other.py", "vmunet/model.py"):  # one of them named in vmunet/__init__
        assert not changes(project, path, lambda text: text + "more = 1\n")


@pytest.mark.parametrize(
    "line",
    [
        "from . import other",
        "from .other import value",
        "from vmunet.other import value",
        "def late():\n    from vmunet import other",
        "BACKENDS = {'other': 'vmunet.other'}",
        "if True:\n    import vmunet.other as name",
        "class Lazy:\n    def load(self):\n        import vmunet.other",
    ],
)
def test_every_way_to_import_is_seen(project: Path, line: str) -> None:
    path = project / "vmunet/used.py"
    path.write_text(line + "\n")
    assert Path("vmunet/other.py") in Fingerprints(project).modules(SCRIPT)
    assert changes(project, "vmunet/other.py", lambda text: text + "more = 1\n")


def test_imports_for_types_only_are_ignored(project: Path) -> None:
    lines = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import vmunet.other\n"
    (project / "vmunet/used.py").write_text(lines)
    assert Path("vmunet/other.py") not in Fingerprints(project).modules(SCRIPT)


def test_the_else_of_imports_for_types_runs(project: Path) -> None:
    lines = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import vmunet.model\nelse:\n"
    (project / "vmunet/used.py").write_text(f"{lines}    import vmunet.other\n")
    assert Path("vmunet/other.py") in Fingerprints(project).modules(SCRIPT)
    before = fingerprint(SCRIPT, project)
    (project / "vmunet/used.py").write_text(
        "from typing import TYPE_CHECKING\nimport vmunet.other\n"
    )
    assert fingerprint(SCRIPT, project) == before


def test_words_of_errors_that_a_stage_quotes_count(project: Path) -> None:
    path = "vmunet/data/images.py"
    assert QUOTED == ("vmunet.data.images",)
    (project / "vmunet/used.py").write_text("import vmunet.data.images\n")
    (project / path).parent.mkdir()
    (project / "vmunet/data/__init__.py").write_text("")
    (project / path).write_text("raise ValueError('unreadable')\n")
    assert changes(project, path, lambda text: text.replace("unreadable", "not readable"))


def test_code_that_changes_after_its_fingerprint_is_refused(project: Path) -> None:
    write_fingerprints(project)
    before = checked_fingerprint("train", project)
    assert before == f"stages/train.py {fingerprint(SCRIPT, project)}\n"
    loss = project / "vmunet/loss.py"
    loss.write_text(loss.read_text() + "# a comment\n")
    assert checked_fingerprint("train", project) == before
    loss.write_text(loss.read_text() + "more = 1\n")
    with pytest.raises(InputError, match=r"stages/train\.py or a module that it imports changed"):
        checked_fingerprint("train", project)
    write_fingerprints(project)
    assert checked_fingerprint("train", project) != before
    assert checked_fingerprint("by_hand", project) == ""


def test_each_cell_has_its_models_fingerprint(project: Path) -> None:
    wide, other = Path("vmunet/model.py"), Path("vmunet/other.py")
    write_fingerprints(project, {"base": wide, "gone": wide, "rival": other})
    base, rival = (checked_fingerprint(f"models/{name}", project) for name in ("base", "rival"))
    assert base == f"vmunet/model.py {fingerprint(wide, project)}\n"
    train = checked_fingerprint("train", project)
    (project / wide).write_text("width = 48\n")
    with pytest.raises(InputError, match=r"vmunet/model\.py or a module that it imports changed"):
        checked_fingerprint("models/base", project)
    write_fingerprints(project, {"base": wide, "rival": other})
    assert checked_fingerprint("models/base", project) != base
    assert checked_fingerprint("models/rival", project) == rival
    assert checked_fingerprint("train", project) == train
    assert {path.name for path in (project / FOLDER / "models").iterdir()} == {"base", "rival"}


def test_relative_imports_from_a_package_above(project: Path) -> None:
    for name in ("vmunet/scan/__init__.py", "vmunet/scan/cpu.py"):
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text("")
    (project / "vmunet/used.py").write_text("from .scan import cpu\n")
    (project / "vmunet/scan/cpu.py").write_text("from ..other import value\nfrom .. import model\n")
    modules = Fingerprints(project).modules(SCRIPT)
    assert {Path("vmunet/other.py"), Path("vmunet/model.py")} <= set(modules)


def test_tracking_and_its_own_imports_change_nothing(project: Path) -> None:
    (project / "stages/train.py").write_text(
        "import vmunet.loss, pipeline.tracking.run, pipeline.stage\n"
    )
    for path in ("pipeline/tracking/run.py", "pipeline/stage.py", "vmunet/other.py"):
        assert not changes(project, path, lambda text: text + "more = 1\n")


def test_the_modules_without_a_result_are_few_and_exist() -> None:
    without = (
        "pipeline.tracking",
        "pipeline.stage",
        "pipeline.repair",
        "pipeline.install",
        "pipeline.owners",
        "pipeline.passwords",
        "pipeline.fingerprint",
        "vmunet.utf8",
        "vmunet.models.places",
    )
    assert without == WITHOUT_RESULT
    for name in WITHOUT_RESULT:
        place = ROOT.joinpath(*name.split("."))
        assert place.is_dir() or place.with_suffix(".py").is_file()


def test_a_fingerprint_does_not_depend_on_the_place(project: Path, tmp_path: Path) -> None:
    shutil.copytree(project, tmp_path / "moved" / "here")
    assert fingerprint(SCRIPT, tmp_path / "moved" / "here") == fingerprint(SCRIPT, project)


def test_a_new_module_of_the_same_name_as_a_package_counts(project: Path) -> None:
    (project / "vmunet/used.py").write_text("import vmunet.scan\n")
    before = fingerprint(SCRIPT, project)
    (project / "vmunet/scan").mkdir()
    (project / "vmunet/scan/__init__.py").write_text("value = 1\n")
    assert fingerprint(SCRIPT, project) != before


# ---- Of this project -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("copy")
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package, root / package, ignore=shutil.ignore_patterns("out", "*.pyc")
        )
    return root


@pytest.fixture(scope="module")
def before(copy: Path) -> dict[str, str]:
    return hashes(copy)


def hashes(root: Path, fingerprints: Fingerprints | None = None) -> dict[str, str]:
    fingerprints = fingerprints or Fingerprints(root)
    return {name: fingerprints.of(Path("stages", f"{name}.py")) for name in stage_names(root)}


@pytest.fixture(scope="module")
def stages_after(copy: Path) -> Callable[[str], set[str]]:
    """The stages whose fingerprint an edit of a module changes; the edit is undone."""
    fingerprints = Fingerprints(copy)
    before = hashes(copy, fingerprints)

    def stages(path: str) -> set[str]:
        content = (copy / path).read_text()
        try:
            (copy / path).write_text(content + "\nmore = 1\n")
            fingerprints._read.pop(Path(path), None)  # only this file is read again
            after = hashes(copy, fingerprints)
        finally:
            (copy / path).write_text(content)
            fingerprints._read.pop(Path(path), None)
        return {name for name, sha256 in after.items() if sha256 != before[name]}

    return stages


BUILDS_MODELS = {
    *("train", "train_volumes", "evaluate", "evaluate_volumes"),
    *("cross", "costs", "speed", "receptive_field"),
}
REPORT = {"tables", "figures", "pictures", "page", "pdf"}
TRAINING = {"train", "train_volumes"}


def test_an_edit_of_the_loss_changes_trainings(stages_after) -> None:
    stages = stages_after("vmunet/training/losses.py")
    assert stages >= TRAINING
    assert not stages & (REPORT | {"evaluate", "evaluate_volumes", "preprocess", "model_card"})


def test_an_edit_of_a_backend_named_in_a_table(stages_after) -> None:
    for path in ("vmunet/scan/cpu_kernels.py", "vmunet/scan/triton_kernels.py"):
        stages = stages_after(path)
        assert stages >= TRAINING | {"speed"}
        assert Path(path) in Fingerprints(ROOT).modules(Path("vmunet/model.py"))  # evaluate's too
        assert not stages & (REPORT - {"tables"} | {"preprocess", "model_card"})


def test_a_new_model_and_an_edit_of_one_change_no_stage_by_themselves(stages_after) -> None:
    assert stages_after("vmunet/models/places.py") == set()
    assert stages_after("vmunet/models/malunet.py") == set()


def test_an_edit_of_the_model_card_changes_only_the_cards(stages_after) -> None:
    assert stages_after("reports/make/model_card.py") == {"model_card"}


def test_an_edit_of_the_report_scores_nothing_again(copy: Path, stages_after) -> None:
    for path in sorted((copy / "reports/make").glob("*/*.py")):
        name = path.relative_to(copy).as_posix()
        assert stages_after(name) <= REPORT, name


def test_an_edit_of_the_sweep_changes_no_stage(copy: Path, stages_after) -> None:
    for folder in ("sweep", "search", "commands", "tracking"):
        for path in sorted((copy / "pipeline" / folder).glob("*.py")):
            name = path.relative_to(copy).as_posix()
            assert stages_after(name) == set(), name


def test_words_of_params_errors_change_no_stage(copy: Path, before: dict[str, str]) -> None:
    path = copy / "pipeline/config/yaml_file.py"
    content = path.read_text()
    path.write_text(content.replace("no such file; run from", "there is no such file; run from"))
    assert path.read_text() != content
    assert hashes(copy) == before
    path.write_text(content)


def test_each_stage_depends_on_its_own_fingerprint() -> None:
    declared = read_yaml(ROOT / "dvc.yaml")["stages"]
    for name, stage in declared.items():
        stage = stage.get("do", stage)
        script = stage["cmd"].split()[2].removeprefix("stages.")
        if name == "code":
            assert stage["always_changed"] is True
            written = {next(iter(out)) for out in stage["outs"]}
            assert written == {f"{FOLDER}/{name}" for name in (*stage_names(), "inits", "models")}
        else:
            prints = [dep for dep in stage["deps"] if dep.startswith(f"{FOLDER}/")]
            models = ["inits"] if name == "initial" else []
            if script in BUILDS_MODELS:
                models = ["models/${item.cell}" if "${item.cell}" in stage["cmd"] else "models"]
            assert prints == [f"{FOLDER}/{name}" for name in (script, *models)], name


def test_what_is_written(copy: Path, before: dict[str, str]) -> None:
    write_fingerprints(copy)
    written = {path.name: path.read_text() for path in (copy / FOLDER).glob("[!m]*")}
    written |= {"model_card": (copy / FOLDER / "model_card").read_text()}
    assert written == {name: f"stages/{name}.py {sha256}\n" for name, sha256 in before.items()}


def test_modules_are_those_that_a_stage_really_imports() -> None:
    """Run a stage's imports: every module of the project that they load is in the fingerprint."""
    code = (
        "import sys; import stages.train, pipeline.tracking, "
        "vmunet.weights.checkpoints, vmunet.training.loop, vmunet.weights.initial, "
        "vmunet.data.arrays, vmunet.data.augment, vmunet.model\n"
        f"names = [m for m in sys.modules if m.split('.')[0] in {PACKAGES}]\n"
        "print('\\n'.join(str(sys.modules[n].__file__) for n in names))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded = {Path(line).relative_to(ROOT) for line in done.stdout.splitlines()}
    modules = set(Fingerprints(ROOT).modules(SCRIPT))
    assert {path for path in loaded if not without_result(path)} <= modules
