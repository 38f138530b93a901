"""The page's server, asked over HTTP and by a browser."""

import base64
import contextlib
import http.client
import json
import socket
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
import requests

from tests.helpers.browser import Browser, needs_driver
from tests.helpers.classes import scene
from tests.helpers.data import encoded
from tests.helpers.serving import served, write_weights
from vmunet import InputError, Predictor
from vmunet.serving import uploads
from vmunet.serving.app import listen
from vmunet.serving.segmenter import Segmenter

IMAGE, _ = scene(1, 60, 90)
PHOTO = encoded(IMAGE[..., ::-1])


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_weights(tmp_path_factory.mktemp("weights") / "w.safetensors")


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photos") / "my photo.png"
    path.write_bytes(PHOTO)
    return path


@pytest.fixture(scope="module")
def url(weights, photo):
    with served(Segmenter(weights), [photo]) as address:
        yield address


def post(url, content, headers=None, **query):
    return requests.post(f"{url}/segment", content, params=query, headers=headers, timeout=60)


def test_an_upload_gets_its_mask(url, weights):
    reply = post(url, PHOTO, name="a.png", threshold="0.45")
    assert reply.status_code == 200
    answer = reply.json()
    png = base64.b64decode(answer["download"].split(",")[1])
    mask = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    expected = Predictor.from_checkpoint(weights)(IMAGE).probability >= 0.45
    np.testing.assert_array_equal(mask, 255 * expected)
    assert answer["areas"][0]["pixels"] == expected.sum()


@pytest.mark.parametrize(
    ("content", "query", "sentence"),
    [
        (b"hello", {"name": "text.png"}, "text.png: not a readable image"),
        (b"", {"name": "none.png"}, "none.png: the file is empty"),
        (PHOTO, {"threshold": "2"}, "threshold 2.0: expected a number between 0 and 1"),
        (PHOTO, {"threshold": "half"}, "threshold half: expected a number between 0 and 1"),
    ],
)
def test_wrong_input_is_one_sentence(url, content, query, sentence):
    reply = post(url, content, **query)
    assert reply.status_code == 400
    assert reply.json()["error"].startswith(sentence)
    assert post(url, PHOTO).ok  # and the server lives on


def test_too_many_bytes_are_refused(url, monkeypatch):
    monkeypatch.setattr(uploads, "MOST_BYTES", len(PHOTO) - 1)
    reply = post(url, PHOTO)
    assert reply.status_code == 413
    assert "the file is larger than" in reply.json()["error"]
    # a body that does not announce its length is refused on the way
    reply = post(url, iter([PHOTO[:100], PHOTO[100:]]))
    assert reply.status_code == 413


def test_a_huge_upload_is_refused_before_it_is_sent(url):
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    connection.putrequest("POST", "/segment")
    connection.putheader("Content-Length", str(10**12))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


def test_an_upload_that_breaks_off_harms_nobody(url, capfd):
    with contextlib.closing(socket.create_connection(urlsplit(url).netloc.split(":"))) as line:
        line.sendall(b"POST /segment HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\nab")
    assert post(url, PHOTO).ok
    assert "Traceback" not in capfd.readouterr().err


def test_other_sites_can_neither_ask_nor_embed(url):
    assert post(url, PHOTO, {"Origin": "https://example.com"}).status_code == 403
    assert post(url, PHOTO, {"Origin": url}).ok
    assert (
        requests.get(f"{url}/about", headers={"Host": "example.com"}, timeout=9).status_code == 400
    )
    policy = requests.get(url, timeout=9).headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "http" not in policy


def test_a_bug_is_told_in_the_page_and_shown_in_the_terminal(weights, monkeypatch, capfd):
    def broken(*arguments):
        raise RuntimeError("a bug")

    segmenter = Segmenter(weights)
    monkeypatch.setattr(segmenter, "_segmented", broken)
    with served(segmenter) as address:
        reply = post(address, PHOTO)
    assert reply.status_code == 500
    assert "its terminal" in reply.json()["error"]
    assert "RuntimeError: a bug" in capfd.readouterr().err


def test_files_outside_of_the_page_are_not_served(url):
    for path in ("/../app.py", "/%2e%2e/app.py", "/examples/1", "/page.py"):
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=9)
        connection.request("GET", path)
        assert connection.getresponse().status == 404, path
        connection.close()
    assert requests.get(f"{url}/examples/0", timeout=9).content == PHOTO


def test_a_port_can_be_taken_once():
    with listen(0) as first:
        port = first.getsockname()[1]
        with pytest.raises(InputError, match=rf"--port {port}: the port is taken; choose another"):
            listen(port)
    listen(port).close()
    for number in (-1, 65_536):
        with pytest.raises(InputError, match="from 0 to 65535"):
            listen(number)


SHOWN = "return !document.getElementById('result').hidden"
STATUS = "return document.getElementById('status').textContent"
ERROR = "return document.getElementById('error').textContent"


@pytest.fixture(scope="module")
def browser():
    with Browser() as opened:
        yield opened


@needs_driver
def test_a_browser_shows_the_mask(browser, url, photo, tmp_path):
    browser.open(url)
    browser.until("return document.body.dataset.ready")
    browser.log("performance")
    assert "some weights · 1 model, 64 × 64 px · class: lesion" in browser.run(
        "return document.getElementById('about').textContent"
    )
    browser.type("#file", str(photo))
    browser.until(SHOWN, 60)
    sides = browser.until(
        "const sides = [...document.querySelectorAll('figure img')].map(i => i.naturalWidth);"
        "return sides.every(Boolean) && sides"
    )
    assert sides == [800] * 3
    share = "return document.querySelector('#result td').textContent"
    before = browser.run(share)
    expected = post(url, PHOTO).json()["areas"][0]
    assert before == f"{100 * expected['share']:.2f} %"
    assert browser.run("return document.getElementById('download').download") == "my photo_mask.png"
    # the slider by keyboard: a lower threshold, a larger area
    browser.run("document.getElementById('level').focus()")
    browser.press("\ue012")  # arrow to the left
    browser.until(f"return (() => {{ {share} }})() !== '{before}'")
    lower = post(url, PHOTO, threshold="0.45").json()["areas"][0]
    assert browser.run(share) == f"{100 * lower['share']:.2f} %"
    # an error replaces the result, in one sentence
    text = tmp_path / "text.png"
    text.write_text("hello")
    browser.type("#file", str(text))
    assert browser.until(ERROR).startswith("text.png: not a readable image")
    assert not browser.run(SHOWN)
    # an example by keyboard
    browser.run("document.querySelector('#examples button').focus()")
    browser.press("\ue007")
    browser.until(SHOWN, 60)
    assert browser.run(STATUS).startswith("my photo.png: 90 × 60 px")
    assert browser.run(ERROR) == ""
    # every request went to this server, and the only complaint is about the refused file
    messages = [json.loads(entry["message"])["message"] for entry in browser.log("performance")]
    sent = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    addresses = {entry["request"]["url"] for entry in sent}
    assert addresses
    assert all(address.startswith((url, "data:")) for address in addresses)
    complaints = [entry["message"] for entry in browser.log()]
    assert all("400 (Bad Request)" in message for message in complaints), complaints


@needs_driver
def test_a_dropped_file_is_segmented_wherever_it_falls(browser, url):
    drop = """
        const [bytes, names] = arguments;
        const transfer = new DataTransfer();
        for (const name of names) transfer.items.add(new File([new Uint8Array(bytes)], name));
        const options = {dataTransfer: transfer, bubbles: true, cancelable: true};
        const event = new DragEvent("drop", options);
        return !document.querySelector("footer").dispatchEvent(event);
    """
    browser.open(url)
    browser.until("return document.body.dataset.ready")
    assert browser.run(drop, list(PHOTO), ["dropped.png"])  # the browser itself does not open it
    browser.until(SHOWN, 60)
    assert browser.run(STATUS).startswith("dropped.png")
    assert browser.run(drop, list(PHOTO), ["a.png", "b.png"])
    assert "one image at a time" in browser.run(ERROR)


@needs_driver
@pytest.mark.parametrize("dark", [False, True])
def test_a_phone_needs_no_scrolling_sideways(browser, url, photo, dark):
    browser.open(url, 360, 740, dark)
    browser.until("return document.body.dataset.ready")
    browser.type("#file", str(photo))
    browser.until(SHOWN, 60)
    assert browser.run("return document.documentElement.scrollWidth") == 360
    ground, ink = browser.run(
        "const style = getComputedStyle(document.body);"
        "return [style.backgroundColor, style.color].map(c => Number(c.match(/\\d+/)[0]))"
    )
    assert (ground < 60 and ink > 200) if dark else (ground > 200 and ink < 60)
