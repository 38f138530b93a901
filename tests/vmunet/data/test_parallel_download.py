"""Several downloads at once: in threads, in processes, killed, and on a disk that is too small."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.http_server import Server, digest, serving, zip_bytes
from vmunet.data import transfer
from vmunet.data.download import PATIENCE, Internet, Wanted, fetch, fetch_all
from vmunet.errors import InputError

FETCH = """
import resource, sys
from pathlib import Path
from vmunet.data.download import Internet, Wanted, fetch_all
from vmunet.errors import InputError
folder, base, limit, *names = sys.argv[1:]
if int(limit):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
internet = Internet(Path(folder), (), Path(folder, "checksums.json"), wait=0)
try:
    fetch_all([Wanted(f"{base}/{name}", f"d/{name}") for name in names], internet)
except InputError as error:
    sys.exit(f"error: {error}")
"""


@pytest.fixture
def server():
    with serving() as running:
        yield running


@pytest.fixture
def internet(tmp_path) -> Internet:
    return Internet(tmp_path, (), tmp_path / "checksums.json", wait=0)


def start(folder: Path, server: Server, *names: str, limit: int = 0) -> subprocess.Popen:
    """A process that downloads these files into `folder`/d."""
    command = [sys.executable, "-c", FETCH, str(folder), server.base, str(limit), *names]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def wanted(server: Server, *names: str) -> list[Wanted]:
    return [Wanted(f"{server.base}/{name}", f"d/{name}") for name in names]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "d").iterdir() if path.suffix != ".lock")


def wait_until(condition, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def test_files_come_side_by_side(server, internet, tmp_path):
    server.files = {f"/{i}.zip": zip_bytes(seed=i) for i in range(4)}
    server.pause = 0.1  # 0.7 s a file
    before = time.monotonic()
    sums = fetch_all(wanted(server, *(f"{i}.zip" for i in range(4))), internet)
    assert time.monotonic() - before < 2
    assert sums == [digest(content) for content in server.files.values()]
    assert names(tmp_path) == ["0.zip", "1.zip", "2.zip", "3.zip"]


def test_a_second_start_downloads_nothing(server, internet):
    first = fetch_all(wanted(server, "a.zip", "b.zip"), internet)
    server.paths.clear()
    assert fetch_all(wanted(server, "a.zip", "b.zip"), internet) == first
    assert server.paths == []


def test_one_failure_stops_the_others_and_leaves_their_parts(server, internet, tmp_path):
    server.files = {"/slow.zip": zip_bytes(seed=1, size=20_000_000)}
    server.pause = 0.03  # 9 s for the slow one
    server.broken, server.retry_after = {"/late.zip": 503}, "1"  # given up after 4 s
    part = tmp_path / "d" / "slow.zip.part"
    before = time.monotonic()
    with pytest.raises(InputError, match=r"late\.zip: cannot be downloaded \(status 503"):
        fetch_all(wanted(server, "slow.zip", "late.zip"), internet)
    assert time.monotonic() - before < 7
    kept = size(part)
    assert 0 < kept < 20_000_000
    assert names(tmp_path) == ["slow.zip.part", "slow.zip.part.json"]
    server.pause, server.ranges = 0, []
    fetch_all(wanted(server, "slow.zip"), internet)
    assert server.ranges == [f"bytes={kept}-"]


def test_a_silent_server_delays_no_failure(server, internet, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "ATTEMPTS", 2)
    server.files = {"/slow.zip": zip_bytes(size=1_000_000)}
    server.silent, server.broken = {"/slow.zip"}, {"/late.zip": 503}
    server.retry_after = "1"
    before = time.monotonic()
    with pytest.raises(InputError, match=r"late\.zip: cannot be downloaded"):
        fetch_all(wanted(server, "slow.zip", "late.zip"), internet)
    assert PATIENCE < time.monotonic() - before < PATIENCE + 4
    assert 0 < size(tmp_path / "d" / "slow.zip.part") < 1_000_000


def test_a_silent_server_delays_no_interrupt(server, tmp_path):
    server.content, server.silent = zip_bytes(size=1_000_000), {"/x.zip"}
    process = start(tmp_path, server, "x.zip")
    wait_until(lambda: size(tmp_path / "d" / "x.zip.part") > 0)
    time.sleep(0.2)  # it waits for the second block
    process.send_signal(signal.SIGINT)
    before = time.monotonic()
    process.communicate(timeout=20)
    assert process.returncode != 0
    assert time.monotonic() - before < PATIENCE + 3


def test_two_processes_that_want_one_file_download_it_once(server, tmp_path):
    server.content, server.pause = zip_bytes(size=1_000_000), 0.05
    both = [start(tmp_path, server, "x.zip") for _ in range(2)]
    said = [process.communicate(timeout=60)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert (tmp_path / "d" / "x.zip").read_bytes() == server.content
    assert server.paths == ["/x.zip"]
    assert names(tmp_path) == ["x.zip"]


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_killed_process_is_resumed_by_the_next(server, internet, tmp_path, kill):
    server.content, server.pause = zip_bytes(size=2_000_000), 0.02
    process = start(tmp_path, server, "x.zip", "y.zip")
    parts = [tmp_path / "d" / f"{name}.zip.part" for name in "xy"]
    wait_until(lambda: all(size(part) > 300_000 for part in parts))
    process.send_signal(kill)
    process.communicate(timeout=20)
    assert process.returncode != 0
    assert names(tmp_path) == [f"{n}.zip.part{s}" for n in "xy" for s in ("", ".json")]
    kept = sorted(size(part) for part in parts)
    server.pause, server.ranges = 0, []
    fetch_all(wanted(server, "x.zip", "y.zip"), internet)
    assert sorted(int(r[6:-1]) for r in server.ranges) == kept
    assert all((tmp_path / "d" / f"{n}.zip").read_bytes() == server.content for n in "xy")


def test_no_room_is_said_before_the_first_byte(server, internet, tmp_path):
    server.announced = 1 << 60
    match = rf"{tmp_path}/d: x\.zip needs {1 << 60:,} more bytes, [\d,]+ are free; make room"
    with pytest.raises(InputError, match=match):
        fetch(wanted(server, "x.zip")[0], internet)
    assert names(tmp_path) == []


def test_room_is_counted_over_all_running_downloads(server, internet, tmp_path):
    server.announced = shutil.disk_usage(tmp_path).free * 3 // 5  # one fits, two do not
    server.pause, server.cuts = 0.2, [300_000, 300_000]
    with pytest.raises(InputError, match=r"[xy]\.zip and the downloads beside it need "):
        fetch_all(wanted(server, "x.zip", "y.zip"), internet)


def test_what_has_come_needs_no_more_room(server, internet, tmp_path):
    server.cuts = [200_000] + [0] * 20
    with pytest.raises(InputError):
        fetch(wanted(server, "x.zip")[0], internet)
    kept = size(tmp_path / "d" / "x.zip.part")
    server.cuts, server.announced = [], 1 << 60
    server.resumes = False  # it must start again, over what is there
    with pytest.raises(InputError, match=f"needs {(1 << 60) - kept:,} more bytes"):
        fetch(wanted(server, "x.zip")[0], internet)
    assert size(tmp_path / "d" / "x.zip.part") == kept


def test_a_disk_that_fills_up_meanwhile_keeps_what_came(server, internet, tmp_path):
    """A limit on the size of files replaces a full disk: writing gives the same error."""
    process = start(tmp_path, server, "x.zip", limit=200_000)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert "x.zip.part: cannot be written (File too large); make room and run again" in said
    assert names(tmp_path) == ["x.zip.part", "x.zip.part.json"]
    fetch(wanted(server, "x.zip")[0], internet)
    assert server.ranges[-1].startswith("bytes=")
    assert (tmp_path / "d" / "x.zip").read_bytes() == server.content


def test_a_small_file_system(server, tmp_path):
    """A real disk of a megabyte: too small for the file, then filled by another program."""
    mount = tmp_path / "small"
    mount.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mount)], capture_output=True
    )
    if made.returncode:
        pytest.skip("may not mount a tmpfs")
    try:
        internet = Internet(mount, (), tmp_path / "checksums.json", wait=0)
        server.files = {"/big.zip": zip_bytes(size=2_000_000), "/x.zip": zip_bytes(size=800_000)}
        with pytest.raises(InputError, match=r"small/d: big\.zip needs 2,0\d\d,\d+ more bytes"):
            fetch(wanted(server, "big.zip")[0], internet)
        assert names(mount) == []
        server.pause = 0.1
        process = start(mount, server, "x.zip")
        wait_until(lambda: size(mount / "d" / "x.zip.part") > 100_000)
        (mount / "filler").write_bytes(bytes(400_000))
        said = process.communicate(timeout=60)[1]
        assert "x.zip.part: cannot be written (No space left on device); make room" in said
        (mount / "filler").unlink()
        server.pause = 0
        fetch(wanted(server, "x.zip")[0], internet)
        assert (mount / "d" / "x.zip").read_bytes() == server.files["/x.zip"]
        assert os.stat(mount).st_dev != os.stat(tmp_path).st_dev
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=True)
