"""The switch from one profile to another, which never overwrites a person's edits silently.

The grid is in params.yaml, for a person to change, and in its profile, from which a switch copies
it. The copy is needed because dvc.yaml can only read a file with a fixed name.
"""

import codecs
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipeline.config.params import PROFILES, load_profile
from pipeline.config.yaml_file import read_yaml
from vmunet.errors import InputError


def grid_edits(root: Path = Path(".")) -> list[str]:
    """How the grid in params.yaml differs from the active profile's, a line for each key.

    Raises:
        InputError: params.yaml or the active profile cannot be read.
    """
    params = read_yaml(root / "params.yaml")
    name = params.get("profile")
    path = root / PROFILES / f"{name}.yaml"
    if not path.is_file():  # the profile was removed: the person wrote the complete grid
        return [f"grid (profile {name} no longer exists)"]
    return [
        f"grid.{key}: {here} (in profile {name}: {there})"
        for key, here, there in differences(params.get("grid") or {}, read_yaml(path)["grid"])
    ]


def differences(
    here: Mapping[str, Any], there: Mapping[str, Any]
) -> list[tuple[str, object, object]]:
    """(key, value here, value there) of each key that differs; a missing value is `nothing`."""
    return [
        (key, here.get(key, "nothing"), there.get(key, "nothing"))
        for key in {**there, **here}
        if here.get(key, "nothing") != there.get(key, "nothing")
    ]


def switch_profile(name: str, replace: bool = False, root: Path = Path(".")) -> None:
    """Make `name` the active profile: rewrite only `profile` and `grid` of params.yaml.

    A switch to the active profile changes nothing, so that a grid that was edited by hand remains.

    Args:
        name: a file of profiles/, without its suffix.
        replace: whether a grid that was edited by hand may be replaced.
        root: the repository's root.

    Raises:
        InputError: there is no such profile, or the grid was edited by hand and `replace` is not
            given.
    """
    path = root / "params.yaml"
    active = read_yaml(path).get("profile")
    load_profile(name, root)  # one clear error if it has a mistake
    if name == active and not replace:
        return
    edits = grid_edits(root)
    if edits and not replace:
        raise InputError(
            f"params.yaml: the grid was edited by hand, and profile {name} would replace it:\n  "
            + "\n  ".join(edits)
            + f"\n`vmunet profile {name} --replace` does so; to keep the edits, write them into "
            f"{PROFILES / f'{active}.yaml'} first"
        )
    yaml = YAML()  # keeps comments and order
    yaml.width = 100
    yaml.indent(mapping=2, sequence=4, offset=2)
    content = path.read_bytes()
    params = yaml.load(content.decode("utf-8-sig").replace("\r\n", "\n"))
    params["profile"] = name
    profile = (root / PROFILES / f"{name}.yaml").read_text(encoding="utf-8-sig")
    params["grid"] = yaml.load(profile)["grid"]
    temporary = path.with_name("params.yaml.tmp")
    # in the form that the person's editor gave it: a byte order mark, Windows' line ends
    encoding = "utf-8-sig" if content.startswith(codecs.BOM_UTF8) else "utf-8"
    newline = "\r\n" if b"\r\n" in content else "\n"
    with open(temporary, "w", encoding=encoding, newline=newline) as file:
        yaml.dump(params, file)
    os.replace(temporary, path)
