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
from tests.helpers.fused_inputs import (
    arguments,
    differentiable,
    errors,
    fused_inputs,
    torch_operator,
)
from vmunet.fused import triton as compiled

NORMED = [(1, 1, 1, 1), (2, 3, 5, 1), (2, 5, 9, 24), (1, 1, 3, 1536), (1, 3, 3, 300)]
SHAPES = {
    "conv_silu": [
        (1, 1, 1, 1),
        (2, 3, 5, 1),
        (1, 1, 19, 24),
        (1, 17, 2, 32),
        (1, 9, 10, 70),  # two tiles along every axis, the last of them not full
    ],
    "gated_norm": NORMED,
    "layer_norm": NORMED,
    "add_layer_norm": NORMED,
}
HALF = (torch.bfloat16, torch.float16)


def accuracy():
    for operator, shapes in SHAPES.items():
        cases = [(shape, torch.float32, "projection") for shape in shapes]
        cases += [(shapes[2], dtype, "projection") for dtype in HALF]
        cases += [(shapes[2], torch.float32, layout) for layout in ("transposed", "channels_first")]
        for shape, dtype, layout in cases:
            found = errors(operator, *fused_inputs(operator, shape, dtype, layout))
            yield [f"{operator} {shape} {dtype} {layout}", found]


def mixed_types():
    """Types as autocast mixes them: one image in float32, the gate or the update in bfloat16."""
    inputs, gradients = fused_inputs("gated_norm", (1, 3, 3, 20), torch.float32)
    inputs[1] = inputs[1].bfloat16()
    yield ["z in bfloat16", errors("gated_norm", inputs, gradients)]
    with torch.autocast("cpu", torch.bfloat16):
        for operator in ("layer_norm", "add_layer_norm"):
            inputs, gradients = fused_inputs(operator, (3, 3, 3, 20), torch.float32)
            if operator == "add_layer_norm":
                inputs[1:3] = (tensor.bfloat16() for tensor in inputs[1:3])
            gradients[-1] = gradients[-1].bfloat16()  # as autograd gives it to both types
            yield [f"{operator} under autocast", errors(operator, inputs, gradients)]


def parts():
    """A sum without factors, and a gradient of only one of the two outputs."""
    inputs, gradients = fused_inputs("add_layer_norm", (2, 3, 4, 20), torch.float32)
    yield [
        "a sum without factors",
        errors("add_layer_norm", [*inputs[:2], None, *inputs[3:]], gradients),
    ]
    for used in (0, 1):
        leaves, named = differentiable("add_layer_norm", inputs)
        results = []
        for dtype in (torch.float64, torch.float32):
            outputs = vmunet.fused.add_layer_norm(*(t.to(dtype) for t in leaves), 1e-5)
            gradient = gradients[used].to(dtype)
            results.append(
                torch.autograd.grad(
                    outputs[used], list(named.values()), gradient, allow_unused=True
                )
            )
        for name, truth, value in zip(named, *results, strict=True):
            expected = torch.zeros_like(value) if truth is None else truth
            torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-5, msg=name)


def operators():
    """What torch itself checks of an operator, and that it stays in a compiled graph."""
    for operator in SHAPES:
        inputs, _ = fused_inputs(operator, (1, 2, 3, 4), torch.float32)
        leaves, named = differentiable(operator, inputs)
        torch.library.opcheck(*torch_operator(operator, leaves))
        function = getattr(vmunet.fused, operator)
        for autocast in (False, True):
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                graph = torch.compile(function, backend="aot_eager", fullgraph=True)
                results = []
                for run in (function, graph):
                    outputs = run(*arguments(operator, leaves))
                    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
                    loss = sum(output.square().sum() for output in outputs)
                    results.append([*outputs, *torch.autograd.grad(loss, list(named.values()))])
            for pair in zip(*results, strict=True):
                assert torch.equal(*pair)


if __name__ == "__main__":
    with patch("vmunet.fused._compiled", lambda *tensors: tensors[0].dtype != torch.float64):
        operators()
        compiled.PROGRAMS = 3  # so that in the backward passes each takes several tiles
        json.dump([*accuracy(), *mixed_types(), *parts()], sys.stdout)
