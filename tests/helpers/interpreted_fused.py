"""Run the fused operators' kernels in Triton's interpreter, print their errors as JSON.

A program of its own: Triton reads the variable when kernels are defined, for the whole process.
"""

import json
import os
import sys
from unittest.mock import patch

os.environ["TRITON_INTERPRET"] = "1"

import torch

import vmunet.fused
from tests.helpers.fused_inputs import errors, fused_inputs
from vmunet.fused import triton as compiled

SHAPES = {
    "conv_silu": [
        (1, 1, 1, 1),
        (2, 3, 5, 1),
        (1, 1, 19, 24),
        (1, 17, 2, 32),
        (1, 9, 10, 70),  # two tiles along every axis, the last of them not full
    ],
    "gated_norm": [(1, 1, 1, 1), (2, 3, 5, 1), (1, 1, 3, 1536), (2, 5, 9, 24), (1, 3, 3, 300)],
}
HALF = (torch.bfloat16, torch.float16)


def accuracy():
    for operator, shapes in SHAPES.items():
        cases = [(shape, torch.float32, "projection") for shape in shapes]
        cases += [(shapes[3], dtype, "projection") for dtype in HALF]
        cases += [(shapes[3], torch.float32, layout) for layout in ("transposed", "channels_first")]
        for shape, dtype, layout in cases:
            inputs, gradient = fused_inputs(operator, shape, dtype, layout)
            found = errors(getattr(compiled, operator), operator, inputs, gradient)
            yield [operator, shape, str(dtype)[6:], layout, found]


def mixed_types():
    """y and z of different types, as a scan in float32 under autocast would give them."""
    inputs, gradient = fused_inputs("gated_norm", (1, 3, 3, 20), torch.float32)
    inputs[1] = inputs[1].bfloat16()
    found = errors(compiled.gated_norm, "gated_norm", inputs, gradient)
    found["z"] /= 2**16  # the one gradient that is rounded to bfloat16
    yield ["gated_norm", (1, 3, 3, 20), "float32", "z in bfloat16", found]


@patch("vmunet.fused._compiled", lambda *tensors: True)
def operators():
    """What torch itself checks of an operator, and that it stays in a compiled graph."""
    for operator in SHAPES:
        inputs, _ = fused_inputs(operator, (1, 2, 3, 4), torch.float32)
        inputs = [tensor.requires_grad_() for tensor in inputs]
        eps = (1e-5,) if operator == "gated_norm" else ()
        torch.library.opcheck(getattr(torch.ops.vmunet, operator).default, (*inputs, *eps))
        function = getattr(vmunet.fused, operator)
        graph = torch.compile(function, backend="aot_eager", fullgraph=True)
        expected, output = function(*inputs, *eps), graph(*inputs, *eps)
        assert torch.equal(output, expected)
        for pair in zip(
            torch.autograd.grad(output.square().sum(), inputs),
            torch.autograd.grad(expected.square().sum(), inputs),
            strict=True,
        ):
            assert torch.equal(*pair)


if __name__ == "__main__":
    operators()
    compiled.PROGRAMS = 3  # so that in the backward passes each takes several tiles
    json.dump([*accuracy(), *mixed_types()], sys.stdout)
