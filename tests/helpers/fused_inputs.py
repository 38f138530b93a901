"""Inputs of the fused operators as the VSS block gives them, and how far results are from truth."""

import torch

import vmunet.fused

NAMES = {
    "conv_silu": ("x", "weight", "bias"),
    "gated_norm": ("y", "z", "weight", "bias"),
}


def fused_inputs(operator, shape, dtype, layout="projection", device="cpu"):
    """The operator's tensors, images in `dtype`, parameters in float32, and an output gradient.

    Layouts of the images: `projection`, halves of one (b, h, w, 2d); `transposed`, rows and
    columns exchanged in memory; `channels_first`, the last axis not contiguous.
    """
    generator = torch.Generator().manual_seed(0)
    d = shape[-1]

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    def image():
        return laid_out(draw(*shape).to(device, dtype), layout)

    parameters = [0.5 * draw(d, 1, 3, 3)] if operator == "conv_silu" else [1 + 0.1 * draw(d)]
    parameters = [tensor.to(device, torch.float32) for tensor in (*parameters, 0.5 * draw(d))]
    if operator == "conv_silu":
        images = [image()]
    elif layout == "projection":  # y is an output of the scan, z the second half
        images = [draw(*shape).to(device, dtype), torch.cat((image(), image()), -1)[..., d:]]
    else:
        images = [image(), image()]
    return [*images, *parameters], draw(*shape).to(device, dtype)


def laid_out(image, layout):
    if layout == "projection":
        return torch.cat((image, torch.full_like(image, torch.nan)), -1)[..., : image.shape[-1]]
    axes = {"transposed": (1, 2), "channels_first": (1, 3)}[layout]
    return image.transpose(*axes).contiguous().transpose(*axes)


def output_and_gradients(function, operator, inputs, gradient, dtype=None):
    """{"output": ..., name of an input: its gradient}; computed in `dtype` if that is given."""
    inputs = [tensor.detach().to(dtype or tensor.dtype) for tensor in inputs]
    inputs = [tensor.requires_grad_() for tensor in inputs]
    options = {"eps": 1e-5} if operator == "gated_norm" else {}
    output = function(*inputs, **options)
    gradients = torch.autograd.grad(output, inputs, gradient.to(output.dtype))
    return dict(zip(("output", *NAMES[operator]), (output.detach(), *gradients), strict=True))


def errors(function, operator, inputs, gradient):
    """The largest difference of every result from float64's, as a part of the largest value.

    Two runs must have equal bits, and each result the type of what it belongs to.
    """
    definition = getattr(vmunet.fused, operator)
    truth = output_and_gradients(definition, operator, inputs, gradient, torch.float64)
    results = output_and_gradients(function, operator, inputs, gradient)
    again = output_and_gradients(function, operator, inputs, gradient)
    found = {}
    for (name, value), like in zip(results.items(), (inputs[0], *inputs), strict=True):
        assert torch.equal(value, again[name]), f"{operator}: two runs differ in {name}"
        assert value.is_contiguous(), f"{operator}: {name} is not contiguous"
        assert value.dtype == like.dtype, f"{operator}: {name} is {value.dtype}"
        largest = truth[name].abs().max().clamp(min=1e-3)  # of one channel, norms are 0
        found[name] = ((value.double() - truth[name]).abs().max() / largest).item()
    return found
