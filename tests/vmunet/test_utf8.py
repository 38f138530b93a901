"""Files are UTF-8 in every locale, and no character ends a program."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

PROGRAM = """\
import sys
from vmunet.utf8 import use_utf8
use_utf8()
with open("\\u00e9.txt", "w") as file:
    file.write("32\\u00d732")
print("32\\u00d732", sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("variables", "printed"),
    [
        ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, "32×32"),
        ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}, "32?32"),
        ({"LC_ALL": "C.UTF-8"}, "32×32"),
    ],
)
def test_a_program_writes_utf8(tmp_path: Path, variables: dict[str, str], printed: str) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "LC_", "LANG"))}
    done = subprocess.run(
        [sys.executable, "program.py", "a b", "*"],
        cwd=tmp_path,
        env=kept | {"PYTHONPATH": str(ROOT)} | variables,
        capture_output=True,
        check=False,
    )
    assert done.stdout.decode() == f"{printed} ['a b', '*']\n", done.stderr.decode()
    assert (tmp_path / "é.txt").read_bytes() == "32×32".encode()
