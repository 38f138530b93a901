"""The backward pass in two scans in Triton's interpreter, for `test_two_scans`: prints JSON.

With `--few`, some of the cases, which take half a minute instead of three.
"""

import json
import sys

import torch

from tests.helpers.interpreted_scan import SMALL, errors, halves, launches, layouts, same_bits
from tests.helpers.scan_inputs import NAMES, error, output_and_gradients, scan_inputs
from vmunet.scan import reference, triton, triton_tiles
from vmunet.scan.triton_tiles import TwoScans

BY_ONE = TwoScans(U=1, CH=1, LD=2)
BY_TWO = TwoScans(U=2, CH=2, LD=2, registers=128)
BY_FOUR = TwoScans(U=4, CH=1, LD=2)
# b, h, w, d, n, tile, segments
CASES = {
    "one column": (1, 9, 1, 2, 2, BY_TWO, 1),
    "two images, channels past a tile": (2, 3, 2, 3, 4, BY_ONE, 1),
    "odd steps by two, 3 states": (1, 5, 3, 3, 3, BY_TWO, 1),
    "four rows by four": (1, 4, 3, 2, 2, BY_FOUR, 1),
    "nine rows by four, one state": (1, 9, 1, 2, 1, BY_FOUR, 1),
    "three segments": (1, 5, 2, 2, 2, BY_TWO, 3),
    "no masks": (1, 4, 2, 4, 2, BY_TWO, 2),
    "one row goes by a single scan": (1, 1, 3, 2, 2, BY_TWO, 1),
}

FEW = ("odd steps by two, 3 states", "three segments", "one row goes by a single scan")


def strong_decay() -> float:
    """The error of dA where a state forgets within a few steps."""
    x, dt, A, B, C, D, dt_bias = scan_inputs(1, 8, 3, 2, 2)
    inputs = (x, dt, 8 * A, B, C, D, dt_bias + 3)
    truth = output_and_gradients(reference.ss2d, inputs, x, torch.float64)
    _, saved = triton.forward(*inputs, True, SMALL)
    return error(triton.backward(x, *inputs, saved, BY_TWO)[NAMES.index("A")], truth["A"])


def main() -> None:
    triton_tiles.SPAN = 4
    if sys.argv[1:] == ["--few"]:
        cases = {name: errors(CASES[name]) for name in FEW}
        print(json.dumps({"cases": cases, "strong decay": strong_decay()}))
        return
    results = {
        "cases": {name: errors(case) for name, case in CASES.items()},
        "strong decay": strong_decay(),
        "same bits": same_bits(BY_ONE),
        "layouts": layouts(BY_ONE),
        "half": halves(torch.bfloat16, BY_ONE),
        "launches": [
            launches(BY_ONE, segments, dtype)
            for segments, dtype in ((1, torch.float32), (2, torch.bfloat16))
        ],
    }
    print(json.dumps(results, default=str))


if __name__ == "__main__":
    main()
