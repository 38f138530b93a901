"""`vmunet serve` as a person starts and ends it."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from tests.helpers.serving import write_weights
from vmunet import cli
from vmunet.serving.app import listen

SCRIPT = Path(sys.executable).with_name("vmunet")


@pytest.mark.parametrize("presses", [1, 2])
def test_it_starts_answers_and_ends_quietly(tmp_path, presses):
    weights = write_weights(tmp_path / "w.safetensors")
    process = subprocess.Popen(
        [SCRIPT, "serve", weights, "--port", "0", "--device", "cpu"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        match = re.match(r"http://127\.0\.0\.1:\d+", line)
        assert match, process.communicate(timeout=20)
        assert str(weights) in line
        about = requests.get(f"{match[0]}/about", timeout=20).json()
        assert about["weights"] == str(weights)
        for _ in range(presses):
            process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0
    assert out.strip() == ""
    # numba's cache may be cold, which is one line
    assert [line for line in err.splitlines() if not line.startswith("compiling")] == []


def failed(capsys, *arguments):
    assert cli.main(["serve", *map(str, arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    return line


def test_what_is_wrong_is_one_line(tmp_path, capsys):
    missing = tmp_path / "no.safetensors"
    assert failed(capsys, missing, "--port", 0).startswith(f"error: {missing}: no such weights")
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"nothing")
    assert str(damaged) in failed(capsys, damaged, "--port", 0)
    with listen(0) as taken:
        port = taken.getsockname()[1]
        assert f"--port {port}: the port is taken" in failed(capsys, missing, "--port", port)
    assert "cpu, cuda or cuda:N" in failed(
        capsys, write_weights(tmp_path / "w.safetensors"), "--port", 0, "--device", "tpu"
    )


def test_a_missing_package_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    line = failed(capsys, "w.safetensors")
    assert line == ("error: serve needs starlette and uvicorn: pip install 'vmunet[serve]'")


def test_the_library_does_not_import_the_server():
    code = (
        "import sys, vmunet.cli, vmunet.inference.predictor\n"
        "assert not {'starlette', 'uvicorn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
