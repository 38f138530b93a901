"""Weights from a server: taken once, asked for again, and refused if they are none."""

import numpy as np
import pytest
import torch

from tests.helpers.http_server import LOGIN, serving
from vmunet import InputError, Predictor, VMUNet
from vmunet.weights import remote
from vmunet.weights.checkpoints import save_checkpoint

IMAGE = {"normalisation": "minmax", "size": 32, "protocol": "paper"}


@pytest.fixture
def server():
    with serving() as running:
        yield running


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(remote.CACHE, str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "one.safetensors"
    blocks = {"depths": (1, 1, 1, 1), "depths_decoder": (1, 1, 1, 1)}
    save_checkpoint(path, VMUNet(dims=(8, 16, 32, 64), **blocks), IMAGE)
    return path.read_bytes()


def files_in(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_predictor_from_an_address(server, content, cache, tmp_path):
    query = "/some/model.safetensors?download=true"
    server.files |= {"/some/model.safetensors": content, query: content}
    server.redirects["/short.safetensors"] = "/some/model.safetensors"
    (tmp_path / "one.safetensors").write_bytes(content)
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    expected = Predictor.from_checkpoint(tmp_path / "one.safetensors")(image).probability
    for path in (query, "/short.safetensors"):
        found = Predictor.from_checkpoint(server.base + path)(image).probability
        np.testing.assert_array_equal(found, expected)


def test_a_file_is_downloaded_again_only_if_it_has_changed(server, content, cache):
    url = server.base + "/model.safetensors"
    server.files["/model.safetensors"] = content
    first = remote.download(url)
    times = first.stat().st_mtime_ns
    assert remote.download(url) == first
    assert first.stat().st_mtime_ns == times  # the server answered 304
    server.etag = '"two"'
    remote.download(url)
    assert first.stat().st_mtime_ns > times
    assert files_in(cache) == ["model.safetensors", "validator.txt"]


def test_without_an_answer_the_kept_file_is_used(content, cache):
    with serving() as server:
        url = server.base + "/model.safetensors"
        server.files["/model.safetensors"] = content
        kept = remote.download(url)
    with pytest.warns(UserWarning, match="no answer; the copy"):
        assert remote.download(url) == kept
    with pytest.raises(InputError, match=r"other.safetensors: cannot be downloaded \("):
        remote.download(url.replace("model", "other"))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (LOGIN, "no safetensors file but a web page"),
        (b"PK\x03\x04" * 100, "no safetensors file; check"),
        (None, "no whole safetensors file; try again"),
    ],
)
def test_what_is_no_checkpoint_is_not_kept(server, content, cache, body, message):
    server.files["/m.safetensors"] = content[:-10] if body is None else body
    with pytest.raises(InputError, match=rf"m\.safetensors: .*{message}"):
        remote.download(server.base + "/m.safetensors")
    assert files_in(cache) == []


def test_an_answer_that_breaks_off_is_not_kept(server, content, cache):
    server.files["/m.safetensors"] = content
    server.cuts = [70_000]
    with pytest.raises(InputError, match=r"m\.safetensors: "):
        remote.download(server.base + "/m.safetensors")
    assert files_in(cache) == []


def test_other_formats_sizes_and_statuses_are_refused(server, content, cache, monkeypatch):
    with pytest.raises(InputError, match=r"m\.pth: not the address of a \.safetensors file"):
        Predictor.from_checkpoint(server.base + "/m.pth")
    assert server.paths == []
    server.broken["/gone.safetensors"] = 404
    with pytest.raises(InputError, match="the server answers 404"):
        remote.download(server.base + "/gone.safetensors")
    monkeypatch.setattr(remote, "MOST_BYTES", 1000)
    server.files["/m.safetensors"] = content
    with pytest.raises(InputError, match="GiB; expected the weights of one model"):
        remote.download(server.base + "/m.safetensors")
    assert files_in(cache) == []


def test_another_architecture_is_named_by_its_address(server, tmp_path):
    from safetensors.torch import save

    server.files["/m.safetensors"] = save({"x": torch.zeros(3)})
    with pytest.raises(InputError, match=rf"^{server.base}/m\.safetensors: not a VM-UNet"):
        Predictor.from_checkpoint(server.base + "/m.safetensors")
