"""JPEG files whose data are damaged, although they can be decoded.

libjpeg decodes what it can and complains on the standard error of the process, which OpenCV does
not pass on. So other processes decode the files, and their complaints are read there. Damage that
leaves a valid code is not noticed: the picture is then wrong, and no decoder can say so.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

COMPLAINTS = ("Corrupt JPEG data", "Premature end of JPEG file")  # libjpeg's, of jerror.h
EACH = 500  # files of a process


def complaints(paths: Sequence[Path]) -> dict[Path, str]:
    """libjpeg's first complaint about each file that it decodes only in part.

    Args:
        paths: JPEG files; others, and those that are not there, have none.
    """
    from vmunet.threads import in_threads

    groups = [paths[start : start + EACH] for start in range(0, len(paths), EACH)]
    found: dict[Path, str] = {}
    for group, texts in zip(groups, in_threads(_ask, groups, "decoding"), strict=True):
        found |= {path: text for path, text in zip(group, texts, strict=True) if text}
    return found


def _ask(paths: Sequence[Path]) -> list[str]:
    command = [sys.executable, "-P", __file__]  # -P: without this file's folder in the path
    names = json.dumps([str(path) for path in paths])
    done = subprocess.run(command, input=names, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def main() -> None:
    """Decode the files that standard input names, and write the complaints about each."""
    texts = []
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        for name in json.load(sys.stdin):
            said.seek(0)
            said.truncate()
            if os.path.isfile(name):
                cv2.imdecode(np.fromfile(name, np.uint8), cv2.IMREAD_UNCHANGED)
            said.seek(0)
            lines = said.read().decode(errors="replace").splitlines()
            texts.append(next((line for line in lines if line.startswith(COMPLAINTS)), ""))
    print(json.dumps(texts))


if __name__ == "__main__":
    main()
