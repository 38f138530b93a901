"""Inputs of the fused operators as the model gives them, and how far results are from truth."""

import torch

import vmunet.fused

NAMES = {
    "conv_silu": ("x", "weight", "bias"),
    "gated_norm": ("y", "z", "weight", "bias"),
    "layer_norm": ("x", "weight", "bias"),
    "add_layer_norm": ("x", "update", "scale", "weight", "bias"),
}
# Relative to the largest value; two-byte values are rounded once, the convolution's gradient twice.
TOLERANCE = {torch.float32: 5e-6, torch.bfloat16: 2**-6, torch.float16: 2**-9}


def fused_inputs(operator, shape, dtype, layout="projection", device="cpu"):
    """The operator's tensors, images in `dtype`, parameters in float32, and output gradients.

    Layouts of the images: `projection`, halves of one (b, h, w, 2d); `transposed`, rows and
    columns exchanged in memory; `channels_first`, the last axis not contiguous.
    """
    generator = torch.Generator().manual_seed(0)
    b, d = shape[0], shape[-1]

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    def image():
        values = draw(*shape)
        if operator == "add_layer_norm":  # so that no type rounds x + 1.5 update
            values = (8 * values).round() / 8
        return laid_out(values.to(device, dtype), layout)

    parameters = [0.5 * draw(d, 1, 3, 3)] if operator == "conv_silu" else [1 + 0.1 * draw(d)]
    parameters = [tensor.to(device, torch.float32) for tensor in (*parameters, 0.5 * draw(d))]
    images = [image() for name in NAMES[operator] if name in ("x", "y", "z", "update")]
    if operator == "gated_norm" and layout == "projection":  # y is an output of the scan
        images = [images[0].contiguous(), torch.cat(images, -1)[..., d:]]
    if operator == "add_layer_norm":
        images.append(1.5 * (torch.arange(b, device=device) % 2 == 0).to(dtype))
    outputs = 2 if operator == "add_layer_norm" else 1
    return [*images, *parameters], [draw(*shape).to(device, dtype) for _ in range(outputs)]


def laid_out(image, layout):
    if layout == "projection":
        return torch.cat((image, torch.full_like(image, torch.nan)), -1)[..., : image.shape[-1]]
    axes = {"transposed": (1, 2), "channels_first": (1, 3)}[layout]
    return image.transpose(*axes).contiguous().transpose(*axes)


def differentiable(operator, inputs):
    """The inputs as leaves of a graph, and those of them that get a gradient, by name."""
    leaves = [None if tensor is None else tensor.detach() for tensor in inputs]
    named = dict(zip(NAMES[operator], leaves, strict=True))
    named.pop("scale", None)
    return leaves, {name: tensor.requires_grad_() for name, tensor in named.items()}


def arguments(operator, inputs):
    """The operator's arguments: the tensors, and an eps if it has one."""
    return list(inputs) if operator == "conv_silu" else [*inputs, 1e-5]


def torch_operator(operator, inputs):
    """The operator as torch knows it, and its arguments."""
    if operator == "conv_silu":
        return torch.ops.vmunet.conv_silu.default, inputs
    named = dict(zip(NAMES[operator], inputs, strict=True))
    image = named["y" if operator == "gated_norm" else "x"]
    images = image, *(named.get(name) for name in ("z", "update", "scale"))
    return torch.ops.vmunet.norm.default, (*images, *inputs[-2:], 1e-5, image.dtype)


def output_and_gradients(function, operator, inputs, gradients, dtype=None):
    """{"output": .., "total": .., name of an input: its gradient}; in `dtype` if that is given."""
    inputs = [None if tensor is None else tensor.to(dtype or tensor.dtype) for tensor in inputs]
    leaves, named = differentiable(operator, inputs)
    outputs = function(*arguments(operator, leaves))
    outputs = (outputs,) if isinstance(outputs, torch.Tensor) else outputs
    gradients = [g.to(output.dtype) for g, output in zip(gradients, outputs, strict=True)]
    found = torch.autograd.grad(outputs, list(named.values()), gradients)
    names = ("total", "output")[-len(outputs) :]
    return {
        **{name: output.detach() for name, output in zip(names, outputs, strict=True)},
        **dict(zip(named, found, strict=True)),
    }


def errors(operator, inputs, gradients):
    """The largest difference of every result from float64's, in parts of what is tolerated.

    Two runs must have equal bits, and each result the type of what it belongs to, outputs that of
    the first input; only a LayerNorm's own output is in autocast's.
    """
    function = getattr(vmunet.fused, operator)
    truth = output_and_gradients(function, operator, inputs, gradients, torch.float64)
    results = output_and_gradients(function, operator, inputs, gradients)
    again = output_and_gradients(function, operator, inputs, gradients)
    first = inputs[0].dtype
    narrow = operator.endswith("layer_norm") and torch.is_autocast_enabled("cpu")
    types = {"total": first, "output": torch.bfloat16 if narrow else first}
    named = zip(NAMES[operator], inputs, strict=True)
    types |= {name: tensor.dtype for name, tensor in named if tensor is not None}
    found = {}
    for name, value in results.items():
        assert torch.equal(value, again[name]), f"{operator}: two runs differ in {name}"
        assert value.is_contiguous(), f"{operator}: {name} is not contiguous"
        assert value.dtype == types[name], f"{operator}: {name} is {value.dtype}"
        largest = truth[name].abs().max().clamp(min=1.0)  # sums of gradients may cancel
        difference = (value.double() - truth[name]).abs().max() / largest
        found[name] = difference.item() / TOLERANCE[value.dtype]
    return found
