"""Published ImageNet files: what is read, what is recognised, and what is refused unread."""

from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.helpers.imagenet import save
from vmunet import InputError
from vmunet.weights.imagenet.files import FILES
from vmunet.weights.imagenet.read import check_is, read_published, recognise


def signature(name: str) -> dict[str, Tensor]:
    """The tensors by which a file is recognised."""
    return {key: torch.zeros(shape) for key, shape in FILES[name].shapes.items()}


class Evil:
    def __reduce__(self):
        return (print, ("code of a file ran",))


def test_arrays_keep_their_names_axes_and_values(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    np.savez(tmp_path / "x.npz", **{"a/b/kernel": array, "cls": array[0]})
    tensors, taken = read_published(tmp_path / "x.npz")
    assert taken == ""
    assert list(tensors) == ["a/b/kernel", "cls"]
    assert torch.equal(tensors["a/b/kernel"], torch.from_numpy(array))


@pytest.mark.parametrize(
    ("content", "taken"),
    [
        (OrderedDict(a=torch.ones(2)), ""),
        ({"model": {"a": torch.ones(2)}, "epoch": 3}, "model"),
        ({"state_dict": {"module.a": torch.ones(2)}}, "state_dict"),
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_both_formats_of_torch_are_read(tmp_path: Path, content, taken: str, zipped: bool) -> None:
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    tensors, found = read_published(tmp_path / "x.pth")
    assert (list(tensors), found) == (["a"], taken)


@pytest.mark.parametrize("name", FILES)
def test_each_file_is_recognised_by_its_shapes(name: str) -> None:
    tensors = signature(name)
    assert recognise(tensors) == name
    check_is(name, tensors, Path("x.pth"))
    tensors[FILES[name].lacks] = torch.zeros(1)
    assert recognise(tensors) is None
    assert recognise(dict(list(signature(name).items())[:1])) is None


def test_another_file_is_refused_with_both_names() -> None:
    with pytest.raises(
        InputError,
        match=r"^x\.pth: not swin_tiny_patch4_window7_224\.pth, which holds "
        r"patch_embed\.proj\.weight of \(96, 3, 4, 4\) and no layers\.2\.blocks\.6\.norm1\.weight, "
        r"but deit_small_patch16_224-cd65a155\.pth$",
    ):
        check_is("swin-tiny", signature("deit-small"), Path("x.pth"))
    with pytest.raises(
        InputError, match=r"but another network's, whose tensors are 1 \(conv1\.w\)$"
    ):
        check_is("resnet34", {"conv1.w": torch.zeros(1)}, Path("x.pth"))
    with pytest.raises(InputError, match=r"but another network's, whose tensors are 0$"):
        check_is("resnet34", {}, Path("x.pth"))


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ("missing", "no such file; give the .npz"),
        ("objects", "not loaded, because it is not an .npz of numbers alone"),
        ("texts", "not loaded, because it is not an .npz of numbers alone"),
        ("pickle", "not loaded, because it is not an .npz of numbers alone"),
        ("one array", "not loaded, because it is not an .npz of numbers alone"),
        ("cut", "damaged, cut short or no .npz"),
        ("empty", "damaged, cut short or no .npz"),
    ],
)
def test_other_npz_are_refused_in_a_sentence(
    tmp_path: Path, capfd: pytest.CaptureFixture, form: str, message: str
) -> None:
    path = tmp_path / "x.npz"
    if form == "objects":
        np.savez(path, a=np.array([Evil()], dtype=object), allow_pickle=True)
    elif form == "texts":
        np.savez(path, a=np.array(["text"]))
    elif form == "pickle":
        path.write_bytes(np.array([Evil()], dtype=object).dumps())
    elif form == "one array":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    elif form != "missing":
        save(path, {"a": torch.randn(1000)})
        path.write_bytes(path.read_bytes()[: 2000 if form == "cut" else 0])
    with pytest.raises(InputError) as caught:
        read_published(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)
    assert "ran" not in capfd.readouterr().out


def test_a_pickle_with_code_is_refused_unread(tmp_path: Path, capfd) -> None:
    torch.save({"model": {"a": torch.ones(1)}, "extra": Evil()}, tmp_path / "x.pth")
    with pytest.raises(InputError, match="not a file of tensors alone"):
        read_published(tmp_path / "x.pth")
    assert "ran" not in capfd.readouterr().out
