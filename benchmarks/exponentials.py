"""A Triton kernel of independent exponentials: the rate of the GPU's special-function units."""

import torch
import triton
import triton.language as tl

BLOCK = 1024
STEPS = 4096
PROGRAMS = 64  # per multiprocessor: four times as many as it holds at once


@triton.jit
def kernel(out, steps, BLOCK: tl.constexpr):
    """x = 2^-x, `steps` times for each of BLOCK values in registers; they tend to 0.64."""
    where = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = 1.0 + where.to(tl.float32) * 1e-9
    for _ in range(steps):
        x = tl.exp2(-x)
    tl.store(out + where, x)


class Exponentials:
    """Runs the kernel when called; a call computes `count` exponentials."""

    def __init__(self) -> None:
        device = torch.cuda.get_device_properties(torch.cuda.current_device())
        self.programs = PROGRAMS * device.multi_processor_count
        self.out = torch.empty(self.programs * BLOCK, device="cuda")
        self.count = self.programs * BLOCK * STEPS

    def __call__(self) -> None:
        kernel[(self.programs,)](self.out, STEPS, BLOCK=BLOCK, num_warps=4)
