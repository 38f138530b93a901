"""Unpacking: a hostile or broken zip writes nothing and says what to do."""

import stat
import subprocess
import sys
import zipfile

import pytest

from tests.helpers.data import write_zip
from vmunet.data import archives
from vmunet.errors import InputError


def test_members_are_unpacked_whole(tmp_path):
    members = {"inner/a.txt": b"a" * 10, "inner/deep/b.bin": bytes(range(256)) * 9000}
    archives.extract(write_zip(tmp_path / "x.zip", members), tmp_path / "out")
    content = {
        str(p.relative_to(tmp_path / "out")): p.read_bytes()
        for p in (tmp_path / "out").rglob("*")
        if p.is_file()
    }
    assert content == members
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "x.zip"]


def refused(archive, tmp_path, match, **limits):
    """Extraction fails with this message, names the archive, and leaves nothing anywhere."""
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(InputError, match=match) as caught:
        archives.extract(archive, tmp_path / "box" / "out", **limits)
    assert str(caught.value).startswith(archive.name)
    left = sorted(p.name for p in tmp_path.rglob("*") if p.is_file())
    assert left == [archive.name]
    assert not (tmp_path / "box" / "out").exists()
    assert set(before) <= {p.name for p in tmp_path.iterdir()}


@pytest.mark.parametrize(
    "name", ["../evil.txt", "a/../../evil.txt", "/evil.txt", "a\\..\\evil.txt", "C:/evil.txt"]
)
def test_a_member_outside_the_folder_is_refused(tmp_path, name):
    archive = write_zip(tmp_path / "x.zip", {"a/good.txt": b"1", name: b"2"})
    refused(archive, tmp_path, "points outside the folder.*download it again")


def test_folders_that_are_written_as_on_windows_are_named(tmp_path):
    archive = write_zip(tmp_path / "x.zip", {"a\\b.png": b"1"})
    refused(archive, tmp_path, r"member 'a\\\\b.png' has \\ in its name in place of /")


def test_a_symbolic_link_is_refused(tmp_path):
    link = zipfile.ZipInfo("a/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    refused(tmp_path / "x.zip", tmp_path, "a/link.*is a link")


def test_more_than_the_limit_is_refused(tmp_path):
    archive = write_zip(tmp_path / "x.zip", {"a": b"1" * 600, "b": b"1" * 600})
    refused(archive, tmp_path, r"unpacks to 1,200 bytes, more than the 1,000", most_bytes=1000)


def test_a_bomb_is_refused_by_its_ratio(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "RATIO_FROM", 1 << 16)
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(1 << 20))
    refused(tmp_path / "x.zip", tmp_path, "zip bomb")


def test_a_bomb_of_many_small_members_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "RATIO_FROM", 1 << 16)
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(40):
            archive.writestr(str(number), bytes(1 << 16))
    refused(tmp_path / "x.zip", tmp_path, "unpacks from .* to 2,621,440 bytes, as a zip bomb")


def test_a_member_that_lies_about_its_size_is_held_to_it(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(1 << 20))
    content = (tmp_path / "x.zip").read_bytes()
    real, told = (1 << 20).to_bytes(4, "little"), (1000).to_bytes(4, "little")
    assert content.count(real) == 2  # the local header and the directory
    (tmp_path / "x.zip").write_bytes(content.replace(real, told))
    refused(tmp_path / "x.zip", tmp_path, "truncated or damaged.*CRC")


UNPACK = """
import resource, sys
from pathlib import Path
from vmunet.data.archives import extract
from vmunet.errors import InputError
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
try:
    extract(Path(sys.argv[1]), Path(sys.argv[2]))
except InputError as error:
    sys.exit(f"error: {error}")
"""


def unpack_in_64_kib(archive, target) -> str:
    """The output of a process that cannot write files longer than 64 KiB."""
    done = subprocess.run(
        [sys.executable, "-c", UNPACK, archive, target], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    return done.stderr


@pytest.mark.parametrize("way", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
def test_no_more_is_written_than_a_lying_header_declares(tmp_path, way):
    """A file of more than 64 KiB would give 'File too large', not a wrong checksum."""
    with zipfile.ZipFile(tmp_path / "x.zip", "w", way) as archive:
        archive.writestr("zeros", bytes(1 << 20))
        archive.infolist()[0].file_size = 1000  # in the directory, which readers use
    said = unpack_in_64_kib(tmp_path / "x.zip", tmp_path / "out")
    assert "x.zip: truncated or damaged" in said
    assert [path.name for path in tmp_path.iterdir()] == ["x.zip"]


def test_a_disk_that_is_full_while_unpacking_leaves_nothing(tmp_path):
    archive = write_zip(tmp_path / "x.zip", {"a": b"1", "b": bytes(100_000)})
    said = unpack_in_64_kib(archive, tmp_path / "out")
    assert f"x.zip: cannot be unpacked into {tmp_path} (File too large); nothing was kept" in said
    assert [path.name for path in tmp_path.iterdir()] == ["x.zip"]


def test_a_second_name_for_the_same_bytes_is_refused(tmp_path):
    """Some zip bombs unpack one member many times."""
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a", b"1" * 5000)
        archive.writestr("b", b"1" * 5000)
        first, second = archive.infolist()
        second.header_offset, second.filename = first.header_offset, "b"
    refused(tmp_path / "x.zip", tmp_path, "truncated or damaged")


def test_no_room_on_the_disk_is_said_before_writing(tmp_path, monkeypatch):
    usage = archives.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: usage._replace(free=5))
    refused(write_zip(tmp_path / "x.zip", {"a": b"123456"}), tmp_path, "6 bytes.*5 free")


@pytest.mark.parametrize("keep", [0.3, 0.9, 0.99])
def test_a_truncated_archive_is_refused(tmp_path, keep):
    archive = write_zip(tmp_path / "x.zip", {f"a/{i}": bytes(range(256)) * 20 for i in range(20)})
    content = archive.read_bytes()
    archive.write_bytes(content[: int(len(content) * keep)])
    refused(archive, tmp_path, "truncated or damaged.*download it again")


def test_a_damaged_member_is_refused(tmp_path):
    archive = write_zip(tmp_path / "x.zip", {"a/1": b"first", "a/2": b"second member"})
    archive.write_bytes(archive.read_bytes().replace(b"second", b"sEcond", 1))
    refused(archive, tmp_path, "truncated or damaged.*CRC.*a/2")


@pytest.mark.parametrize("way", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_damage_anywhere_is_one_sentence(tmp_path, way):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", way) as archive:
        archive.writestr("a", bytes(range(256)) * 2)
    whole = (tmp_path / "x.zip").read_bytes()
    assert archives.is_whole_zip(tmp_path / "x.zip")
    refused = 0
    for place in range(0, len(whole), 3):
        changed = whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :]
        (tmp_path / "x.zip").write_bytes(changed)
        archives.is_whole_zip(tmp_path / "x.zip")
        try:
            archives.extract(tmp_path / "x.zip", tmp_path / "out")
        except InputError:
            refused += 1
    assert refused > len(whole) / 3 / 2  # some bytes may have any value, such as a date


def test_a_web_page_under_a_zips_name_is_told_as_such(tmp_path):
    archive = tmp_path / "x.zip"
    archive.write_text("\n<!DOCTYPE html><html>Sign in</html>")
    refused(archive, tmp_path, "a web page saved under a zip's name")


@pytest.mark.parametrize("content", [b"", b"not a zip at all"])
def test_another_file_is_not_a_zip(tmp_path, content):
    archive = tmp_path / "x.zip"
    archive.write_bytes(content)
    refused(archive, tmp_path, f"not a zip file \\({len(content)} bytes\\)")


@pytest.mark.parametrize(
    ("first", "second"),
    [("A.png", "a.png"), ("x/A.png", "X/a.png"), ("\u00e9.png", "e\u0301.png"), ("ss", "\u00df")],
)
def test_names_that_are_one_file_on_some_disks_are_refused(tmp_path, first, second):
    archive = write_zip(tmp_path / "x.zip", {first: b"1", second: b"2"})
    refused(archive, tmp_path, "are one file on some disks")


def test_one_path_twice_or_both_file_and_folder_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a", b"1")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a", b"2")
    refused(tmp_path / "x.zip", tmp_path, "holds 'a' twice")
    refused(write_zip(tmp_path / "x.zip", {"a": b"1", "a/b": b"2"}), tmp_path, "cannot be unpacked")


def test_an_error_leaves_an_earlier_result_as_it_was(tmp_path):
    archives.extract(write_zip(tmp_path / "x.zip", {"a": b"old"}), tmp_path / "out")
    (tmp_path / "x.zip").write_bytes(b"junk")
    with pytest.raises(InputError):
        archives.extract(tmp_path / "x.zip", tmp_path / "out")
    assert (tmp_path / "out" / "a").read_bytes() == b"old"
