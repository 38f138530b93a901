"""The Triton scan in Triton's interpreter, for `test_triton`: prints errors as JSON.

A process of its own, since TRITON_INTERPRET is read when a kernel is defined. The interpreter takes
milliseconds for each value of a scan, so images, states and tiles are as small as the rules allow,
and states are saved every 8 steps instead of every 32.
"""

import json
import os

os.environ["TRITON_INTERPRET"] = "1"

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from triton.runtime.interpreter import InterpretedFunction

from tests.helpers.scan_inputs import NAMES, error, output_and_gradients, scan_inputs
from vmunet.scan import backend, operator, reference, ss2d, triton, triton_tiles
from vmunet.scan.triton_tiles import Tile, TwoScans

SMALL = Tile(T=4, CH=1, LD=2)
WIDE = Tile(T=2, CH=2, LD=4)
# b, h, w, d, n, tile, segments
CASES = {
    "one pixel": (1, 1, 1, 1, 1, SMALL, 1),
    "one row": (1, 1, 9, 2, 2, SMALL, 1),
    "one column": (1, 9, 1, 2, 2, SMALL, 1),
    "odd sides, channels past a tile": (2, 3, 2, 3, 2, SMALL, 1),
    "channels in registers, 3 states": (1, 2, 3, 9, 3, WIDE, 1),
    "channels across lanes": (1, 2, 5, 5, 2, Tile(T=8, CH=1, LD=8), 1),
    "three segments": (1, 5, 3, 1, 2, SMALL, 3),
    "more segments than spans": (1, 3, 4, 1, 2, SMALL, 9),
}


def errors(case: tuple) -> dict[str, float]:
    """Of y and the seven gradients, against float64."""
    b, h, w, d, n, tile, segments = case
    forward_tile = SMALL if isinstance(tile, TwoScans) else tile
    inputs = scan_inputs(b, h, w, d, n, seed=h)
    gy = torch.randn(inputs[0].shape, generator=torch.Generator().manual_seed(1))
    truth = output_and_gradients(reference.ss2d, inputs, gy, torch.float64)

    def run() -> list[torch.Tensor]:
        y, saved = triton.forward(*inputs, True, forward_tile, segments)
        return [y, *triton.backward(gy, *inputs, saved, tile, segments)]

    got = dict(zip(("y", *NAMES), run(), strict=True))
    return {name: error(value, truth[name]) for name, value in got.items()}


def same_bits(tile: Tile | TwoScans) -> bool:
    inputs = scan_inputs(1, 3, 3, 1, 2)
    runs = []
    for _ in range(2):
        y, saved = triton.forward(*inputs, True, SMALL, 2)
        runs.append((y, saved, *triton.backward(y, *inputs, saved, tile, 2)))
    return all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def layouts(tile: Tile | TwoScans) -> float:
    """The largest difference that the inputs' layout makes: transposed, with gaps, expanded."""
    inputs = scan_inputs(2, 3, 2, 2, 2)
    inputs = (inputs[0][:1].expand(2, -1, -1, -1), *inputs[1:])

    def odd(tensor: torch.Tensor) -> torch.Tensor:
        wide = tensor.new_zeros(tensor.shape[-1], *tensor.shape[:-1], 2)
        wide[..., 0] = tensor.movedim(-1, 0)
        return wide[..., 0].movedim(0, -1)

    def run(change) -> tuple[torch.Tensor, ...]:
        changed = [change(tensor) for tensor in inputs]
        y, saved = triton.forward(*changed, True, SMALL)
        return (y, *triton.backward(change(y), *changed, saved, tile))

    plain, other = run(torch.Tensor.contiguous), run(odd)
    return max((a - b).abs().max().item() for a, b in zip(plain, other, strict=True))


def one_column() -> float:
    """An image of one column whose width has a stride of its own, as a transposed row has."""
    x, *others = scan_inputs(1, 5, 1, 3, 2)
    odd = x.transpose(1, 2).contiguous().transpose(1, 2)  # strides (15, 3, 15, 1)
    odd = odd.as_strided(odd.shape, (15, 3, 1, 1))
    y, _ = triton.forward(odd, *others, False, SMALL)
    return error(y, reference.ss2d(*(tensor.double() for tensor in (x, *others))))


def halves(dtype: torch.dtype, tile: Tile | TwoScans) -> dict[str, float]:
    """Errors of half-precision maps against the float32 scan of the same values."""
    x, dt, A, B, C, D, dt_bias = scan_inputs(1, 3, 3, 2, 2)
    inputs = (x.to(dtype), dt.to(dtype), A, B.to(dtype), C.to(dtype), D, dt_bias)
    gy = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    truth = output_and_gradients(reference.ss2d, inputs, gy, torch.float64)
    y, saved = triton.forward(*inputs, True, SMALL)
    got = dict(zip(("y", *NAMES), (y, *triton.backward(gy, *inputs, saved, tile)), strict=True))
    types = {name: str(value.dtype) for name, value in got.items()}
    assert set(types.values()) == {"torch.float32", str(dtype)}, types
    return {name: error(value, truth[name]) for name, value in got.items()}


class Launches(TorchDispatchMode):
    """Names of the kernels that a GPU would run: Triton's, and PyTorch's own."""

    FREE = ("empty", "empty_strided", "empty_like", "new_empty")
    FREE += ("split_with_sizes", "slice", "detach", "alias")

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.inside = False  # a Triton kernel, which the interpreter computes by other calls

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if not self.inside and name not in self.FREE:
            self.names.append(name)
        return function(*args, **kwargs or {})

    def __enter__(self):
        usual = self.usual = InterpretedFunction.run

        def run(kernel, *args, **kwargs):
            self.names.append(kernel.fn.__name__)
            self.inside = True
            try:
                return usual(kernel, *args, **kwargs)
            finally:
                self.inside = False

        InterpretedFunction.run = run
        return super().__enter__()

    def __exit__(self, *exception):
        InterpretedFunction.run = self.usual
        return super().__exit__(*exception)


def launches(tile: Tile | TwoScans, segments: int, dtype: torch.dtype) -> dict[str, list[str]]:
    """What a scan of the model's layouts starts: B and C are slices of a projection."""
    x, dt, A, B, C, D, dt_bias = scan_inputs(1, 9, 1, 2, 2)
    _, B, C = torch.cat((B[..., :1], B, C), dim=-1).to(dtype).split([1, 2, 2], dim=-1)
    inputs = (x.to(dtype), dt.to(dtype), A, B, C, D, dt_bias)
    with Launches() as forward:
        y, saved = triton.forward(*inputs, True, SMALL, segments)
    with Launches() as backward:
        gradients = triton.backward(y, *inputs, saved, tile, segments)
        for gradient, tensor in zip(gradients, inputs, strict=True):
            operator._laid_out_like(gradient, tensor)
    return {"forward": forward.names, "backward": backward.names}


def through_the_operator() -> dict[str, object]:
    """`ss2d` with the backend forced, autograd and opcheck around it."""
    triton_tiles.FORWARD.clear()
    triton_tiles.BACKWARD.clear()
    triton_tiles.FORWARD["small"] = triton_tiles.BACKWARD["small"] = SMALL
    inputs = [tensor.requires_grad_() for tensor in scan_inputs(1, 2, 2, 1, 1)]
    truth = output_and_gradients(reference.ss2d, inputs, torch.ones(1, 2, 2, 1), torch.float64)
    with backend("triton"):
        got = output_and_gradients(ss2d, inputs, torch.ones(1, 2, 2, 1), torch.float32)
    checks = torch.library.opcheck(
        torch.ops.vmunet.ss2d.default, (*inputs, "triton", True), raise_exception=False
    )
    return {
        "error": max(error(got[name], truth[name]) for name in got),
        "opcheck": checks,
    }


def main() -> None:
    triton_tiles.SPAN = 8
    results = {
        "cases": {name: errors(case) for name, case in CASES.items()},
        "same bits": same_bits(SMALL),
        "layouts": layouts(SMALL),
        "one column": one_column(),
        "halves": {str(dtype): halves(dtype, SMALL) for dtype in (torch.bfloat16, torch.float16)},
        "launches": [launches(SMALL, segments, torch.bfloat16) for segments in (1, 2)],
        "operator": through_the_operator(),
    }
    print(json.dumps(results, default=str))


if __name__ == "__main__":
    main()
