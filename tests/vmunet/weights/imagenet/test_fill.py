"""ImageNet weights in the models: every mapping value by value, on made-up narrow files."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.helpers import imagenet as made
from tests.helpers.imagenet import save, tensors
from vmunet import InputError
from vmunet.models import MODELS, build
from vmunet.weights.imagenet.files import FILES, files_for
from vmunet.weights.imagenet.fill import Filled, fill_from_imagenet
from vmunet.weights.imagenet.resize import resized_bias_table, resized_positions
from vmunet.weights.imagenet.rules import RULES

PUBLISHED = {
    "r50-vit-b16": made.r50_vit_b16,
    "swin-tiny": made.swin_tiny,
    "res2net50": made.res2net50,
    "resnet34": made.resnet34,
    "deit-small": made.deit_small,
}
NARROW = {  # for models of the width below
    "r50-vit-b16": tensors(made.r50_vit_b16(base=4, dim=48)),
    "swin-tiny": tensors(made.swin_tiny(dim=12)),
    "res2net50": tensors(made.res2net50(base=8, inner=3)),
    "resnet34": tensors(made.resnet34(base=8)),
    "deit-small": tensors(made.deit_small(dim=48)),
}
WIDTH = {"r50-unet": 1 / 16, "transunet": 1 / 16, "transnorm": 1 / 16} | dict.fromkeys(
    ("swin-unet", "transdeeplab", "transfuse", "sanet"), 1 / 8
)
# Tensors of the model that are filled, and tensors of the files that fill them or do not.
COUNTS = {
    "r50-unet": (156, 156, 358 - 156),
    "transunet": (353, 353, 5),  # class token, two classifiers
    "transnorm": (353, 353, 5),
    "swin-unet": (119 + 3 * 2 * 13, 119, 190 - 119),
    "transdeeplab": (140 + 2 * 13 + 2 * 12, 140, 190 - 140),
    "transfuse": (174 + 102, 174 + 102, 44 + 4 * 12 + 2),
    "sanet": (522, 522, 2),
}
JOINED = tuple(f"decoder.last_layers_up.0.blocks.{i}." for i in (0, 1))  # TransDeepLab's


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The narrow files in the published formats."""
    folder = tmp_path_factory.mktemp("imagenet")
    contents = {
        name: {"model": content} if name in ("swin-tiny", "deit-small") else content
        for name, content in NARROW.items()
    }
    return {name: save(folder / FILES[name].file, content) for name, content in contents.items()}


def filled_model(
    name: str, files: dict[str, Path], size: int = 64
) -> tuple[dict[str, Tensor], dict[str, Tensor], Filled]:
    """The state dict before and after, and what was filled."""
    torch.manual_seed(0)
    model = build(name, 2, size, WIDTH[name])
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    filled = fill_from_imagenet(model, files)
    return before, model.state_dict(), filled


def test_the_made_up_files_have_the_published_numbers_of_parameters() -> None:
    """torchvision's, DeiT's and Swin Transformer's own tables; timm's for the other two."""
    millions = {name: made.parameters(shapes()) / 1e6 for name, shapes in PUBLISHED.items()}
    assert millions["resnet34"] == 21.797672
    assert millions["deit-small"] == pytest.approx(22.05, abs=0.005)
    assert millions["swin-tiny"] == pytest.approx(28.29, abs=0.005)
    assert millions["res2net50"] == pytest.approx(25.72, abs=0.005)
    hidden = (768 * 768 + 768) / 1e6  # before the classifier; timm leaves it out
    assert millions["r50-vit-b16"] - hidden == pytest.approx(114.69, abs=0.005)


@pytest.mark.parametrize("name", RULES)
def test_published_files_fit_the_published_models(name: str) -> None:
    with torch.device("meta"):
        model = build(name, 9, 224)
    shapes = {file: PUBLISHED[file]() for file in files_for(name)}
    fitting, required = 0, 0
    for target, tensor in model.state_dict().items():
        source = RULES[name](model, target)
        if source is None:
            continue
        required += source.required
        shape = shapes[source.file].get(source.name)
        if shape is None:
            assert not source.required
            continue
        fits = source.convert(torch.empty(shape, device="meta")).shape == tensor.shape
        assert fits or not source.required, target
        fitting += fits
    assert fitting == COUNTS[name][0]
    assert required


def test_every_rule_has_files_and_every_file_a_model() -> None:
    assert {name for name in MODELS if files_for(name)} == set(RULES)
    assert {model for published in FILES.values() for model in published.models} == set(RULES)


@pytest.mark.parametrize("name", RULES)
def test_what_has_a_source_is_filled_and_nothing_else(name: str, files) -> None:
    before, after, filled = filled_model(name, files)
    assert (len(filled.filled), len(filled.taken), len(filled.unused)) == COUNTS[name]
    assert sum(len(NARROW[file]) for file in files_for(name)) == len(filled.taken + filled.unused)
    for key in before:
        changed = not torch.equal(before[key], after[key])
        assert changed == (key in filled.filled), key


@pytest.mark.parametrize(
    ("name", "prefix"), [("transunet", "transformer.embeddings."), ("r50-unet", "")]
)
def test_the_resnet_of_googles_file(name: str, prefix: str, files) -> None:
    _, model, _ = filled_model(name, files)
    google = NARROW["r50-vit-b16"]
    resnet = {
        key.removeprefix(f"{prefix}hybrid_model."): value
        for key, value in model.items()
        if key.startswith(f"{prefix}hybrid_model.")
    }

    def conv(key: str) -> Tensor:
        """(height, width, in, out) to (out, in, height, width), entry by entry."""
        return torch.from_numpy(np.einsum("hwio->oihw", google[key].numpy()))

    assert torch.equal(resnet.pop("root.conv.weight"), conv("conv_root/kernel"))
    assert torch.equal(resnet.pop("root.gn.weight"), google["gn_root/scale"][0, 0, 0])
    assert torch.equal(resnet.pop("root.gn.bias"), google["gn_root/bias"][0, 0, 0])
    for block, units in (("block1", 3), ("block2", 4), ("block3", 9)):
        for unit in range(1, units + 1):
            ours, theirs = f"body.{block}.unit{unit}", f"{block}/unit{unit}"
            layers = [("conv1", "conv1"), ("conv2", "conv2"), ("conv3", "conv3")]
            norms = [("gn1", "gn1"), ("gn2", "gn2"), ("gn3", "gn3")]
            if unit == 1:
                layers.append(("downsample", "conv_proj"))
                norms.append(("gn_proj", "gn_proj"))
            for our, their in layers:
                assert torch.equal(
                    resnet.pop(f"{ours}.{our}.weight"), conv(f"{theirs}/{their}/kernel")
                )
            for our, their in norms:
                scale, bias = google[f"{theirs}/{their}/scale"], google[f"{theirs}/{their}/bias"]
                assert torch.equal(resnet.pop(f"{ours}.{our}.weight"), scale.flatten())
                assert torch.equal(resnet.pop(f"{ours}.{our}.bias"), bias.flatten())
    assert not resnet


@pytest.mark.parametrize("name", ["transunet", "transnorm"])
def test_the_transformer_of_googles_file(name: str, files) -> None:
    before, model, _ = filled_model(name, files)
    google, tokens = NARROW["r50-vit-b16"], torch.randn(5, 48, dtype=torch.float64)

    def linear(key: str, x: Tensor) -> Tensor:
        return x @ model[f"{key}.weight"].double().T + model[f"{key}.bias"].double()

    for i in range(12):
        ours = f"transformer.encoder.layer.{i}"
        theirs = {
            key.removeprefix(f"Transformer/encoderblock_{i}/"): value.double()
            for key, value in google.items()
            if key.startswith(f"Transformer/encoderblock_{i}/")
        }
        attention = "MultiHeadDotProductAttention_1"
        for part in ("query", "key", "value"):
            kernel, bias = theirs[f"{attention}/{part}/kernel"], theirs[f"{attention}/{part}/bias"]
            expected = torch.einsum("nd,dhk->nhk", tokens, kernel) + bias
            found = linear(f"{ours}.attn.{part}", tokens).view(5, 12, 4)  # heads, their channels
            torch.testing.assert_close(found, expected)
        heads = torch.randn(5, 12, 4, dtype=torch.float64)
        kernel, bias = theirs[f"{attention}/out/kernel"], theirs[f"{attention}/out/bias"]
        expected = torch.einsum("nhk,hkd->nd", heads, kernel) + bias
        torch.testing.assert_close(linear(f"{ours}.attn.out", heads.flatten(1)), expected)
        for our, their, x in (("fc1", "Dense_0", tokens), ("fc2", "Dense_1", tokens.repeat(1, 4))):
            dense = theirs[f"MlpBlock_3/{their}/kernel"], theirs[f"MlpBlock_3/{their}/bias"]
            torch.testing.assert_close(linear(f"{ours}.ffn.{our}", x), x @ dense[0] + dense[1])
        for our, their in (("attention_norm", "LayerNorm_0"), ("ffn_norm", "LayerNorm_2")):
            assert torch.equal(model[f"{ours}.{our}.weight"].double(), theirs[f"{their}/scale"])
            assert torch.equal(model[f"{ours}.{our}.bias"].double(), theirs[f"{their}/bias"])
    embeddings = "transformer.embeddings"
    kernel = google["embedding/kernel"][0, 0].T[:, :, None, None]
    assert torch.equal(model[f"{embeddings}.patch_embeddings.weight"], kernel)
    assert torch.equal(model[f"{embeddings}.patch_embeddings.bias"], google["embedding/bias"])
    positions = google["Transformer/posembed_input/pos_embedding"]
    found = model[f"{embeddings}.position_embeddings"]
    assert torch.equal(found, resized_positions(positions, (4, 4)))
    norm = "transformer.encoder.encoder_norm"
    assert torch.equal(model[f"{norm}.weight"], google["Transformer/encoder_norm/scale"])
    assert torch.equal(model[f"{norm}.bias"], google["Transformer/encoder_norm/bias"])
    if name == "transnorm":  # its own layers keep their random values
        spatial = [key for key in model if ".spatial." in key]
        assert len(spatial) == 24
        assert all(torch.equal(model[key], before[key]) for key in spatial)


def test_positions_at_224_px_are_the_published_ones_without_the_class_token(files) -> None:
    _, model, _ = filled_model("transunet", files, size=224)
    positions = NARROW["r50-vit-b16"]["Transformer/posembed_input/pos_embedding"]
    assert torch.equal(model["transformer.embeddings.position_embeddings"], positions[:, 1:])


def test_transfuse_takes_three_stages_and_eight_layers(files) -> None:
    _, model, filled = filled_model("transfuse", files, size=256)
    for key, value in NARROW["resnet34"].items():
        part = key.partition(".")[0]
        if part in ("layer4", "fc"):
            assert f"resnet34: {key}" in filled.unused
        else:
            assert torch.equal(model[f"resnet.{key}"], value), key
    for key, value in NARROW["deit-small"].items():
        if key.startswith("head.") or (key.startswith("blocks.") and int(key.split(".")[1]) > 7):
            assert f"deit-small: {key}" in filled.unused
        elif key == "pos_embed":
            assert torch.equal(model[f"transformer.{key}"], resized_positions(value, (16, 16)))
        elif not key.startswith("patch_embed."):  # the next test
            assert torch.equal(model[f"transformer.{key}"], value), key


@pytest.mark.parametrize("brightest", [255.0, 1.0])
def test_deit_sees_raw_images_as_it_saw_normalised_ones(brightest: float, files) -> None:
    model = build("transfuse", size=64, width=WIDTH["transfuse"])
    fill_from_imagenet(model, files, brightest)
    random = np.random.default_rng(0)
    colours = random.random((2, 3, 64, 64), dtype=np.float32)
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    normalised = (colours - mean[:, None, None]) / deviation[:, None, None]
    published = (NARROW["deit-small"][f"patch_embed.proj.{kind}"] for kind in ("weight", "bias"))
    expected = F.conv2d(torch.from_numpy(normalised).float(), *published, stride=16)
    found = model.transformer.patch_embed.proj(torch.from_numpy(colours * np.float32(brightest)))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_files_whose_norms_count_no_batches_are_taken(files, tmp_path: Path) -> None:
    old = {k: v for k, v in NARROW["resnet34"].items() if not k.endswith("num_batches_tracked")}
    assert len(old) == 182
    path = save(tmp_path / "resnet34-333f7ec4.pth", old)
    _, model, filled = filled_model("transfuse", files | {"resnet34": path})
    assert model["resnet.bn1.num_batches_tracked"] == 0
    assert len(filled.filled) == COUNTS["transfuse"][0] - 29


def test_sanet_takes_all_but_the_classifier(files) -> None:
    _, model, filled = filled_model("sanet", files)
    assert filled.unused == ["res2net50: fc.weight", "res2net50: fc.bias"]
    for key, value in NARROW["res2net50"].items():
        if not key.startswith("fc."):
            assert torch.equal(model[f"bkbone.{key}"], value), key


def test_swin_unet_fills_the_encoder_and_the_mirrored_stages(files) -> None:
    before, model, filled = filled_model("swin-unet", files, size=224)
    swin = NARROW["swin-tiny"]
    for key in model:
        part, _, rest = key.partition(".")
        if key.endswith(("relative_position_index", "attn_mask")):
            expected = before[key]
        elif part in ("patch_embed", "layers", "norm"):
            expected = swin[key]
        elif part == "layers_up" and ".blocks." in key:
            stage, _, rest = rest.partition(".")
            expected = swin[f"layers.{3 - int(stage)}.{rest}"]
        else:
            expected = before[key]
        assert torch.equal(model[key], expected), key
    deep = [f"swin-tiny: layers.2.blocks.{i}.norm1.weight" for i in range(2, 6)]
    assert set(deep) <= set(filled.unused)


def test_transdeeplab_fills_what_fits_of_its_decoder(files) -> None:
    before, model, filled = filled_model("transdeeplab", files, size=224)
    swin = NARROW["swin-tiny"]
    for key in model:
        expected = before[key]
        if key.endswith(("relative_position_index", "attn_mask")):
            pass
        elif key.startswith(("encoder.patch_embed.", "encoder.layers.")):
            expected = swin[key.removeprefix("encoder.")]
        elif key.startswith("decoder.layers_up.1.blocks."):
            expected = swin[key.replace("decoder.layers_up.1", "layers.0")]
        elif key.startswith(JOINED) and not key.endswith("bias_table"):  # it has 6 heads there
            expected = swin[key.replace("decoder.last_layers_up.0", "layers.1")]
        assert torch.equal(model[key], expected), key
    assert not any(key.startswith(("aspp.", "decoder.layers_up.0.")) for key in filled.filled)


@pytest.mark.parametrize("name", ["swin-unet", "transdeeplab"])
def test_bias_tables_are_resized_to_each_stages_window(name: str, files) -> None:
    _, model, filled = filled_model(name, files, size=64)
    prefix = "" if name == "swin-unet" else "encoder."
    tables = {
        key: (int(key.removeprefix(prefix).split(".")[1]), key)
        for key in filled.filled
        if key.startswith(f"{prefix}layers.") and key.endswith("bias_table")
    }
    assert len(tables) == (8 if name == "swin-unet" else 10)
    for key, (stage, _) in tables.items():
        side = min(8, 16 // 2**stage)  # the window, cut to the map
        table = NARROW["swin-tiny"][key.removeprefix(prefix)]
        expected = resized_bias_table(table, (side, side))
        assert model[key].shape == ((2 * side - 1) ** 2, 3 * 2**stage)
        assert torch.equal(model[key], expected)


@pytest.mark.parametrize("name", RULES)
def test_the_filled_model_gives_finite_logits_and_gradients(name: str, files) -> None:
    torch.manual_seed(0)
    model = build(name, 2, 64, WIDTH[name]).eval()
    fill_from_imagenet(model, files)
    logits = model(torch.rand(1, 3, 64, 64))
    assert logits.shape == (1, 2, 64, 64)
    assert logits.isfinite().all()
    logits.sum().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def refused(name: str, files: dict[str, Path], width: float | None = None, **arguments) -> str:
    """The message of a filling that is refused; the model stays as it was."""
    model = build(name, 1, 64, WIDTH[name] if width is None else width, **arguments)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(InputError) as caught:
        fill_from_imagenet(model, files)
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_another_width_is_refused(files) -> None:
    message = refused("transfuse", files, width=0.25)
    assert f"{files['resnet34']}: does not fit" in message
    assert "tensors, the first conv1.weight of (8, 3, 7, 7) for resnet.conv1.weight of" in message
    assert message.endswith("; published weights fit the width 1, this one is 0.25")


def test_another_number_of_channels_is_refused(files) -> None:
    message = refused("sanet", files, in_channels=4)
    assert "conv1.0.weight of (4, 3, 3, 3) for bkbone.conv1.0.weight of (4, 4, 3, 3)" in message


def test_a_file_of_another_layout_is_refused(files) -> None:
    message = refused("swin-unet", files | {"swin-tiny": files["deit-small"]})
    assert "deit_small_patch16_224-cd65a155.pth: not swin_tiny_patch4_window7_224.pth: " in message
    assert "missing, the first patch_embed.norm.weight" in message


def test_kernels_of_other_axes_are_refused(files, tmp_path: Path) -> None:
    google = dict(NARROW["r50-vit-b16"])
    google["conv_root/kernel"] = google["conv_root/kernel"].flatten()
    google["Transformer/encoderblock_0/MlpBlock_3/Dense_0/kernel"] = torch.zeros(192, 48)
    path = save(tmp_path / "x.npz", google)
    message = refused("transunet", {"r50-vit-b16": path})
    assert (
        f"{path}: does not fit 2 of TransUnet's tensors, the first conv_root/kernel of (588,)"
        in message
    )


def test_a_deeper_network_is_refused(files, tmp_path: Path) -> None:
    deeper = tensors(made.swin_tiny(dim=12, depths=(2, 2, 18, 2)))
    path = save(tmp_path / "swin_small.pth", {"model": deeper})
    message = refused("swin-unet", {"swin-tiny": path})
    assert message == (
        f"{path}: not swin_tiny_patch4_window7_224.pth but a deeper network, which has "
        "layers.2.blocks.6.norm1.weight"
    )


def test_a_file_that_is_not_given_is_named(files) -> None:
    one = {"resnet34": files["resnet34"]}
    assert refused("transfuse", one).startswith("TransFuse starts from deit_small_patch16_224-")


def test_a_file_that_is_not_there_is_named(files, tmp_path: Path) -> None:
    for name in ("x.npz", "x.pth"):
        message = refused("r50-unet", {"r50-vit-b16": tmp_path / name})
        assert message.startswith(f"{tmp_path / name}: no such file; give")


def test_a_model_that_starts_at_random_is_refused() -> None:
    with pytest.raises(InputError, match=r"^UNet: no ImageNet weights are known; start it at"):
        fill_from_imagenet(build("unet", width=1 / 16), {})


def test_a_grid_needs_a_square_of_positions(files, tmp_path: Path) -> None:
    deit = dict(NARROW["deit-small"])
    deit["pos_embed"] = torch.zeros(1, 1 + math.prod((12, 16)), 48)
    path = save(tmp_path / "deit.pth", deit)
    message = refused("transfuse", files | {"deit-small": path})
    assert "the first pos_embed of (1, 193, 48) for transformer.pos_embed of (1, 16, 48)" in message
