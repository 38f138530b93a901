"""Names that DVC writes into commands, and YAML files that are made to do harm."""

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from pipeline.config.names import NAME, check_name, check_names
from pipeline.config.params import load_params, load_profile
from pipeline.config.yaml_file import MOST_LEVELS, read_yaml
from tests.helpers.clone import copy_sources, demo_root
from tests.helpers.paths import ROOT
from vmunet.errors import InputError

HOSTILE = (
    "x; touch PWNED",
    "$(touch PWNED)",
    "`touch PWNED`",
    "x\ntouch PWNED",
    "x\n",
    "';touch PWNED;'",
    '";touch PWNED;"',
    "../x",
    "-x",
    "~",
    "${grid}",
    "",
    ["x"],
    None,
)


@settings(max_examples=50)
@given(st.text("aZ09-", min_size=1, max_size=9).filter(NAME.fullmatch))
def test_a_shell_reads_a_name_as_one_plain_word(name: str) -> None:
    check_name(name, "name")
    assert shlex.split(name) == [name]
    assert shlex.quote(name) == name


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize(
    "place",
    [
        "profile",
        "cells",
        "grid.datasets",
        "grid.views",
        "grid.ablations",
        "grid.cross",
        "own.cells",
        "own.images",
    ],
)
def test_other_names_are_refused_in_one_line(place: str, name: Any) -> None:
    section, _, key = place.partition(".")
    listed = isinstance(name, list) or key in ("datasets", "ablations", "cells")
    value: Any = name if place == "profile" else [name] if listed else {name: {}}
    with pytest.raises(InputError, match=f"^params.yaml: {place}: expected letters") as error:
        check_names({section: {key: value} if key else value}, Path("params.yaml"))
    assert "\n" not in str(error.value)


def test_the_names_of_the_repository_pass() -> None:
    for path in (ROOT / "params.yaml", *(ROOT / "profiles").glob("*.yaml")):
        check_names(read_yaml(path), path)


def test_the_stage_code_comes_before_each_command_that_holds_a_name() -> None:
    """So `dvc repro` refuses a wrong name there, before a shell sees it."""
    stages = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
    assert "$" not in stages["code"]["cmd"]
    written = {next(iter(out)) for out in stages["code"]["outs"]}
    for name, declared in stages.items():
        stage = declared.get("do", declared)
        if "$" in stage["cmd"]:
            assert written & {dep for dep in stage["deps"] if "$" not in dep}, name


@pytest.mark.slow
def test_dvc_repro_runs_nothing_of_a_hostile_name(tmp_path: Path) -> None:
    copy_sources(tmp_path)
    yaml = YAML()
    content = yaml.load(tmp_path / "params.yaml")
    for name in ("x; touch PWNED", "$(touch PWNED)", "x\ntouch PWNED\n", "'\"`touch PWNED`"):
        content["cells"][name] = {}
        content["grid"]["ablations"].insert(0, name)
        content["grid"]["datasets"].insert(0, name)
    yaml.dump(content, tmp_path / "params.yaml")
    for command in (["repro"], ["repro", "--keep-going"]):
        done = subprocess.run(
            [sys.executable, "-m", "dvc", *command], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode
        assert "error: params.yaml: cells: expected letters" in done.stdout + done.stderr
        assert "stages.download" not in done.stdout
    assert not list(tmp_path.rglob("PWNED"))


BOMB = "a: &a [1, 2, 3, 4, 5, 6, 7, 8, 9]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {x: 1}\n" + "".join(
    f"{new}: &{new}\n  <<: [{', '.join([f'*{old}'] * 9)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
HARMFUL = {
    "bomb": (BOMB.encode(), "more than 100,000 values"),
    "merges": (MERGES.encode(), "more than 100,000 values"),
    "latin-1": ("about: caf\u00e9\n".encode("latin-1"), "byte 11 is not UTF-8"),
    "utf-16": ("about: x\n".encode("utf-16"), "not UTF-8"),
    "deep list": (b"a: " + b"[" * 10_000, f"more than {MOST_LEVELS} levels"),
    "deep map": (b"{a: " * 10_000, f"more than {MOST_LEVELS} levels"),
    "deep block": (b"- " * 10_000, f"more than {MOST_LEVELS} levels"),
    "circle": (b"a: &a [*a]\n", "inside its own anchor"),
    "deepest": (b"[" * 100_000, "more than 65,536 bytes"),
    "list": (b"- a\n", "expected names and values"),
    "tag": (b"a: !!python/object/apply:os.system [ls]\n", "not YAML"),
    "number": (b"a: !!int x\n", "not YAML"),
    "zero": (b"a: \0\n", "not YAML"),
}


@pytest.mark.parametrize("name", HARMFUL)
def test_a_harmful_file_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    content, message = HARMFUL[name]
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles/bad.yaml").write_bytes(content)
    (tmp_path / "params.yaml").write_bytes(content)
    for load in (lambda: load_params(tmp_path), lambda: load_profile("bad", tmp_path)):
        with pytest.raises(InputError, match=message) as error:
            load()
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 400


def test_anchors_that_stay_small_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: [*a, *a]\n")
    assert read_yaml(tmp_path / "a.yaml") == {
        "a": {"x": 1},
        "b": {"x": 1, "y": 2},
        "c": [{"x": 1}, {"x": 1}],
    }


@pytest.mark.parametrize("section", ["grid", "own", "cell", "cells"])
@pytest.mark.parametrize("value", [[["x"]], [{"a": 1}], "x", 3, {"a": [["x"]]}, {1: 2}])
def test_a_list_where_names_belong_is_one_line(tmp_path: Path, section: str, value: Any) -> None:
    content = read_yaml(demo_root() / "params.yaml") | {section: value}
    (tmp_path / "profiles").symlink_to(demo_root() / "profiles")
    YAML(typ="safe").dump(content, tmp_path / "params.yaml")
    with pytest.raises(InputError) as error:
        load_params(tmp_path)
    assert "\n" not in str(error.value)
