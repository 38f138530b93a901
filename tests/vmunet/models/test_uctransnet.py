"""UCTransNet against its authors' code, at other sizes and widths."""

import re

import pytest
import torch

from tests.helpers.rivals import check
from vmunet.errors import InputError
from vmunet.models.uctransnet import UCTransNet

# Ours: the authors', who count scales from 1.
NAMES = {
    r"^first\.": "inc.",
    r"^downs\.(\d)\.": "down{1}.nConvs.",
    r"^transformer\.": "mtc.",
    r"^mtc\.embeddings\.(\d)": "mtc.embeddings_{1}",
    r"^mtc\.norms\.(\d)": "mtc.encoder.encoder_norm{1}",
    r"^mtc\.reconstructions\.(\d)": "mtc.reconstruct_{1}",
    r"^mtc\.layers\.": "mtc.encoder.layer.",
    r"\.attention_norms\.(\d)": ".attn_norm{1}",
    r"\.joint_norm\.": ".attn_norm.",
    r"\.attention\.": ".channel_attn.",
    r"\.(query|out)\.(\d)\.": ".{1}{2}.",
    r"\.mlp_norms\.(\d)": ".ffn_norm{1}",
    r"\.mlps\.(\d)": ".ffn{1}",
    r"^head\.": "outc.",
}


def published(name):
    """The authors' name of an entry of the state dict."""
    up = re.match(r"ups\.(\d)\.(\w+)\.(.*)", name)
    if up:
        part = {"of_skip": "coatt.mlp_x.1", "of_x": "coatt.mlp_g.1", "convs": "nConvs"}[up[2]]
        return f"up{4 - int(up[1])}.{part}.{up[3]}"
    for ours, theirs in NAMES.items():

        def substitute(match, theirs=theirs):
            groups = [str(int(g) + 1) if g.isdigit() else g for g in match.groups()]
            return theirs.format(None, *groups)

        name = re.sub(ours, substitute, name)
    return name


@pytest.mark.parametrize(
    ("file", "size"),
    [
        ("UCTransNet_64.json", 64),
        pytest.param("UCTransNet.json", 224, marks=pytest.mark.slow),
    ],
)
def test_it_is_the_authors_model(file, size, whole: bool):
    check(lambda: UCTransNet(size=size), file, rename=published, whole=whole)


@pytest.mark.parametrize(("width", "num_classes"), [(0.0625, 1), (0.125, 4)])
def test_small_models_of_other_sizes_train_every_parameter(width, num_classes):
    torch.manual_seed(0)
    model = UCTransNet(num_classes=num_classes, width=width, size=(32, 48))
    images = torch.rand(2, 1, 32, 48)
    logits = model(images)
    assert logits.shape == (2, num_classes, 32, 48)
    logits.square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    again = UCTransNet(**model.config)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.eval()(images), model.eval()(images))


def test_sizes_that_it_cannot_take_are_refused():
    model = UCTransNet(width=0.0625, size=32)
    with pytest.raises(InputError, match="UCTransNet takes sizes divisible by 16, not 40x64"):
        model(torch.rand(1, 3, 40, 64))
    with pytest.raises(InputError, match="UCTransNet was built for images of 32x32, not 32x48"):
        model(torch.rand(1, 3, 32, 48))


def test_a_width_that_leaves_nothing_is_refused():
    with pytest.raises(InputError, match=r"width 0\.007 leaves no channel"):
        UCTransNet(width=0.007)
