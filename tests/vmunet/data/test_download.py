"""Downloads from a server on this machine: resumed, retried, checked, and recorded."""

import json
import time
from email.utils import formatdate
from pathlib import Path

import pytest

from tests.helpers.http_server import LOGIN, Server, digest, serving, zip_bytes
from vmunet.data import transfer
from vmunet.data.checksums import recorded, remember
from vmunet.data.download import Internet, Wanted, fetch, from_mirror, mirror_urls
from vmunet.data.isic.official import ISIC17
from vmunet.errors import InputError


@pytest.fixture
def server():
    with serving() as running:
        yield running


@pytest.fixture
def internet(tmp_path) -> Internet:
    return Internet(tmp_path, (), tmp_path / "checksums.json", wait=0)


def take(server: Server, internet: Internet, sha256: str | None = None) -> str:
    return fetch(Wanted(server.url, "d/x.zip", sha256), internet)


def names(folder: Path) -> list[str]:
    """The files in the folder of downloads, without locks."""
    folder = folder / "d"
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def content(folder: Path) -> bytes:
    return (folder / "d" / "x.zip").read_bytes()


def test_a_download_is_complete_checked_and_recorded(server, internet, tmp_path):
    assert take(server, internet) == digest(server.content)
    assert content(tmp_path) == server.content
    assert names(tmp_path) == ["x.zip"]
    assert json.loads(internet.record.read_text()) == {server.url: digest(server.content)}


def test_a_published_checksum_is_not_recorded_again(server, internet):
    take(server, internet, digest(server.content))
    assert not internet.record.exists()


def test_a_finished_download_is_not_fetched_again(server, internet):
    for _ in range(2):
        take(server, internet)
    assert len(server.ranges) == 1


def test_a_cut_connection_is_resumed_where_it_broke(server, internet, tmp_path):
    server.cuts = [150_000, 150_000]
    take(server, internet, digest(server.content))
    assert content(tmp_path) == server.content
    starts = [int(r[6:-1]) for r in server.ranges[1:]]
    assert server.ranges[0] is None
    assert 0 < starts[0] <= 150_000 < starts[1] <= 300_000


def test_a_part_answer_without_a_validator_is_resumed_too(server, internet, tmp_path):
    """RFC 9110, 15.3.7: a 206 to If-Range need not repeat a Last-Modified."""
    server.dated, server.cuts = True, [150_000, 150_000]
    take(server, internet, digest(server.content))
    assert content(tmp_path) == server.content
    starts = [int(r[6:-1]) for r in server.ranges[1:]]
    assert 0 < starts[0] <= 150_000 < starts[1] <= 300_000


def test_a_later_run_resumes_what_an_earlier_one_left(server, internet, tmp_path):
    server.cuts = [200_000] + [0] * transfer.ATTEMPTS
    with pytest.raises(
        InputError, match=r"x\.zip: cannot be downloaded.*kept and the next start resumes"
    ):
        take(server, internet)
    assert names(tmp_path) == ["x.zip.part", "x.zip.part.json"]
    assert not internet.record.exists()
    server.cuts, server.ranges = [], []
    take(server, internet, digest(server.content))
    assert len(server.ranges) == 1
    assert server.ranges[0] != "bytes=0-"
    assert names(tmp_path) == ["x.zip"]


def test_a_validator_that_was_cut_short_starts_the_file_again(server, internet, tmp_path):
    server.cuts = [200_000] + [0] * transfer.ATTEMPTS
    with pytest.raises(InputError):
        take(server, internet)
    (tmp_path / "d" / "x.zip.part.json").write_text('{"url": "ht')
    server.cuts, server.ranges = [], []
    take(server, internet, digest(server.content))
    assert server.ranges == [None]


def test_a_file_that_changed_meanwhile_is_fetched_from_its_start(server, internet, tmp_path):
    server.cuts = [200_000] + [0] * transfer.ATTEMPTS
    with pytest.raises(InputError):
        take(server, internet)
    server.cuts, server.content, server.etag = [], zip_bytes(seed=1), '"two"'
    take(server, internet, digest(server.content))
    assert content(tmp_path) == server.content


def test_a_server_without_ranges_is_asked_again_from_the_start(server, internet, tmp_path):
    server.resumes, server.cuts = False, [150_000]
    take(server, internet, digest(server.content))
    assert content(tmp_path) == server.content


def test_a_server_without_ranges_that_always_cuts_is_given_up(server, internet):
    server.resumes, server.cuts = False, [150_000, 100_000] * 20
    with pytest.raises(InputError, match="cannot be downloaded"):
        take(server, internet)
    assert len(server.ranges) == transfer.ATTEMPTS + 1


def test_a_long_part_of_another_address_does_not_count_against_this_one(server, internet, tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "x.zip.part").write_bytes(bytes(10_000_000))
    server.cuts = [66_000] * 6  # more than ATTEMPTS, and each one brings some bytes
    take(server, internet, digest(server.content))
    assert content(tmp_path) == server.content


def test_a_complete_part_is_only_checked_and_renamed(server, internet, tmp_path):
    take(server, internet)
    (tmp_path / "d" / "x.zip").rename(tmp_path / "d" / "x.zip.part")
    known = {"url": server.url, "validator": server.etag, "total": len(server.content)}
    (tmp_path / "d" / "x.zip.part.json").write_text(json.dumps(known))
    take(server, internet)
    assert server.ranges[-1] == f"bytes={len(server.content)}-"
    assert names(tmp_path) == ["x.zip"]


def test_a_busy_server_is_tried_again(server, internet, tmp_path):
    server.failures = [503, 500]
    take(server, internet)
    assert names(tmp_path) == ["x.zip"]


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_honoured(server, internet, form):
    # A date has whole seconds: two of them are at least one.
    server.retry_after = "1" if form == "seconds" else formatdate(time.time() + 2, usegmt=True)
    server.failures = [429]
    take(server, internet)
    assert 0.9 < server.times[1] - server.times[0] < 3


def test_a_server_that_asks_to_wait_too_long_is_not_waited_for(server, internet):
    server.retry_after, server.failures = "86400", [503]
    with pytest.raises(InputError, match=r"x\.zip: cannot be downloaded \(status 503, wait 86400"):
        take(server, internet)
    assert len(server.ranges) == 1


def test_a_wrong_checksum_leaves_nothing(server, internet, tmp_path):
    with pytest.raises(
        InputError, match=f"sha256 is {digest(server.content)}, expected {'0' * 64}.*removed"
    ):
        take(server, internet, "0" * 64)
    assert names(tmp_path) == []


def test_an_archive_without_a_published_sum_is_held_to_its_first(server, internet, tmp_path):
    first = take(server, internet)
    (tmp_path / "d" / "x.zip").unlink()
    server.content, server.etag = zip_bytes(seed=1), '"two"'
    with pytest.raises(InputError, match=rf"expected {first}.*remove its entry from.*sums\.json"):
        take(server, internet)
    assert names(tmp_path) == []
    assert recorded(internet.record, server.url) == first


def test_a_damaged_file_is_never_the_first_on_record(server, internet, tmp_path):
    middle = len(server.content) // 2
    server.content = server.content[:middle] + bytes(9) + server.content[middle + 9 :]
    with pytest.raises(InputError, match=r"x\.zip: not a whole zip; the download was removed"):
        take(server, internet)
    assert names(tmp_path) == []
    assert not internet.record.exists()


def test_a_finished_file_that_was_changed_is_named(server, internet, tmp_path):
    take(server, internet)
    (tmp_path / "d" / "x.zip").write_bytes(zip_bytes(seed=2))
    with pytest.raises(InputError, match=r"x\.zip: its sha256 is .* delete it and run again"):
        take(server, internet)
    assert names(tmp_path) == ["x.zip"]


def test_a_file_put_there_by_hand_is_recorded_if_it_is_a_zip(server, internet, tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "x.zip").write_bytes(LOGIN)
    with pytest.raises(InputError, match=r"x\.zip: not a whole zip; delete it"):
        take(server, internet)
    (tmp_path / "d" / "x.zip").write_bytes(server.content)
    assert take(server, internet) == recorded(internet.record, server.url)
    assert server.ranges == []


@pytest.mark.parametrize(("status", "words"), [(404, "404 Not Found"), (403, "403 Forbidden")])
def test_a_refusal_is_said_at_once(server, internet, tmp_path, status, words):
    server.failures = [status]
    with pytest.raises(InputError, match=rf"x\.zip: the server answers {words}; check the address"):
        take(server, internet)
    assert len(server.ranges) == 1
    assert names(tmp_path) == []


@pytest.mark.parametrize("way", ["page", "redirect"])
def test_a_login_page_that_calls_itself_a_zip_is_not_kept(server, internet, tmp_path, way):
    server.content, where = LOGIN, ""
    if way == "redirect":
        server.redirects, where = {"/x.zip": "/login.zip"}, f".*leads to {server.base}/login.zip"
    match = rf"x\.zip: the server sent something that is not a zip \(a web page{where}"
    with pytest.raises(InputError, match=match):
        take(server, internet)
    assert names(tmp_path) == []
    assert not internet.record.exists()


def test_a_login_page_does_not_cost_what_came_before_it(server, internet, tmp_path):
    server.cuts = [200_000] + [0] * transfer.ATTEMPTS
    with pytest.raises(InputError):
        take(server, internet)
    kept = (tmp_path / "d" / "x.zip.part").read_bytes()
    content_before, etag = server.content, server.etag
    server.cuts, server.content, server.etag = [], LOGIN, '"login"'
    with pytest.raises(InputError, match="a web page"):
        take(server, internet)
    assert (tmp_path / "d" / "x.zip.part").read_bytes() == kept
    server.content, server.etag, server.ranges = content_before, etag, []
    take(server, internet, digest(server.content))
    assert server.ranges[0].startswith("bytes=")


def test_redirects_without_end_are_given_up(server, internet):
    server.redirects = {"/x.zip": "/y.zip", "/y.zip": "/x.zip"}
    with pytest.raises(InputError, match=r"x\.zip: cannot be downloaded \(Exceeded 30 redirects"):
        take(server, internet)


def test_the_mirrors_are_asked_in_order_before_the_publisher(server, internet, tmp_path):
    server.broken = {"/a/d/x.zip": 404}
    server.files = {"/b/d/x.zip": zip_bytes(seed=5)}
    mirrors = (f"{server.base}/a", f"{server.base}/b/", f"{server.base}/c")
    through = Internet(tmp_path, mirrors, internet.record, wait=0)
    take(server, through, digest(server.content))
    # The first mirror does not have the file, the second has another file, the third has it.
    assert server.paths == ["/a/d/x.zip", "/b/d/x.zip", "/c/d/x.zip"]
    assert content(tmp_path) == server.content


def test_every_address_that_failed_is_named(server, internet, tmp_path):
    server.broken = {"/a/d/x.zip": 404, "/x.zip": 403}
    through = Internet(tmp_path, (f"{server.base}/a",), internet.record, wait=0)
    with pytest.raises(InputError, match=r"/a/d/x\.zip: .* 404 .*; http\S*/x\.zip: .* 403 "):
        take(server, through, digest(server.content))


def test_a_mirror_is_never_the_first_to_say_what_a_file_holds(server, internet, tmp_path):
    through = Internet(tmp_path, (f"{server.base}/a",), internet.record, wait=0)
    server.broken = {"/x.zip": 404}
    with pytest.raises(InputError, match=r"404 .*mirrors were not tried, because no checksum"):
        take(server, through)
    assert server.paths == ["/x.zip"]
    remember(internet.record, server.url, digest(server.content))
    take(server, through)
    assert server.paths[1:] == ["/a/d/x.zip"]


def test_mirrors_are_addresses():
    assert mirror_urls(None) == mirror_urls("") == ()
    assert mirror_urls(" http://a/b  https://c ") == ("http://a/b", "https://c")
    with pytest.raises(InputError, match="VMUNET_MIRROR_URLS: '/srv/data' is not an address"):
        mirror_urls("http://a /srv/data")


def test_the_first_checksum_on_record_stays(tmp_path):
    record = tmp_path / "checksums.json"
    assert recorded(record, "http://a/x.zip") is None
    for sha256 in ("1" * 64, "2" * 64):
        remember(record, "http://a/x.zip", sha256)
    remember(record, "http://a/a.zip", "3" * 64)
    assert list(json.loads(record.read_text())) == ["http://a/a.zip", "http://a/x.zip"]
    assert recorded(record, "http://a/x.zip") == "1" * 64


@pytest.mark.parametrize("text", ["<<<<<<< HEAD", "[]", '{"http://a": 1}'])
def test_a_damaged_record_is_named(tmp_path, text):
    (tmp_path / "checksums.json").write_text(text)
    with pytest.raises(InputError, match=r"checksums\.json: expected .*; restore it from git"):
        recorded(tmp_path / "checksums.json", "http://a")


def test_an_unset_mirror_says_what_to_set():
    with pytest.raises(InputError, match=r"VMUNET_MIRROR is not set.*isic17/ISIC-2017_Training"):
        from_mirror(ISIC17, None)


def test_an_archive_missing_from_the_mirror_is_named(tmp_path):
    (tmp_path / "isic17").mkdir()
    (tmp_path / "isic17" / ISIC17.archives[0].name).write_bytes(zip_bytes())
    with pytest.raises(InputError, match=r"isic17/ISIC-2017_Training_Part1_GroundTruth\.zip: not"):
        from_mirror(ISIC17, str(tmp_path))


def old_torch_file() -> bytes:
    """What begins as PyTorch's files before 1.6 do, which are no zips."""
    return b"\x80\x02\x8a\nl\xfc\x9cF" + bytes(100_000)


def test_the_first_digits_of_a_checksum_are_enough_for_a_file_that_is_no_zip(server, internet):
    server.content = old_torch_file()
    sha256 = digest(server.content)
    wanted = Wanted(server.url, "d/x.zip", begins=sha256[:8])
    assert fetch(wanted, internet) == sha256
    assert fetch(wanted, internet) == sha256
    assert len(server.ranges) == 1
    assert recorded(internet.record, server.url) == sha256


def test_other_first_digits_are_refused(server, internet, tmp_path):
    wanted = Wanted(server.url, "d/x.zip", begins="0" * 8)
    sha256 = digest(server.content)
    with pytest.raises(
        InputError, match=rf"its sha256 is {sha256}, expected 00000000\.\.\.; the d"
    ):
        fetch(wanted, internet)
    assert names(tmp_path) == []
    assert not internet.record.exists()
    (tmp_path / "d" / "x.zip").write_bytes(server.content)
    with pytest.raises(
        InputError, match=r"x\.zip: its sha256 is .* expected 00000000\.\.\.; delete"
    ):
        fetch(wanted, internet)


def test_a_file_that_is_no_zip_needs_a_checksum(server, internet, tmp_path):
    server.content = old_torch_file()
    with pytest.raises(InputError, match=r"x\.zip: not a whole zip; the download was removed"):
        take(server, internet)
    assert names(tmp_path) == []
