"""Compile Triton kernels for GPUs that need not be here, and count what comes out.

Triton brings the assembler and the disassembler; nothing is run.
"""

import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

TOOL = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"


@dataclass
class Compiled:
    """A kernel's resources, and the opcodes of each of its loops, the innermost first.

    Attributes:
        registers: of a thread.
        shared: bytes of a program.
        spills: loads and stores of registers that did not fit.
        loops: opcode counts, from shortest loop body to longest. What a loop does seldom is left
            out: a block that a branch skips and that has many accesses to global memory.
    """

    registers: int
    shared: int
    spills: int
    loops: list[Counter]

    @property
    def spills_in_loops(self) -> int:
        return max((loop["LDL"] + loop["STL"] for loop in self.loops), default=0)


def compile_for(
    capability: int, kernel, types: dict, constants: dict, warps: int = 1, **options: int
) -> Compiled:
    """Compile for compute capability `capability` / 10.

    Args:
        types: of the pointers, by name ("*fp32"); every other argument is an i32.
        constants: the constexpr arguments. Pointers, and the integers that the kernel is
            specialised for, are taken as multiples of 16.
        warps: of a program.
        options: Triton's own, such as maxnreg.
    """
    signature = {
        name: "constexpr" if name in constants else types.get(name, "i32")
        for name in kernel.arg_names
    }
    attributes = {
        (i,): [["tt.divisibility", 16]]
        for i, parameter in enumerate(kernel.params)
        if parameter.name not in constants and not parameter.do_not_specialize
    }
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=attributes)
    target = GPUTarget("cuda", capability, 32)
    compiled = triton.compile(source, target=target, options={"num_warps": warps, **options})
    usage, code = (disassemble(compiled.asm["cubin"], option) for option in ("-res-usage", "-sass"))
    match = re.search(r"REG:(\d+)", usage)
    assert match, usage
    instructions = [
        (int(at, 16), op, rest)
        for at, op, rest in re.findall(
            r"/\*([0-9a-f]{4,5})\*/\s+(?:@!?U?P[\dT]+\s+)?([A-Z0-9_.]+)([^;]*);", code
        )
    ]
    spills = sum(op.startswith(("LDL", "STL")) for _, op, _ in instructions)
    return Compiled(int(match[1]), compiled.metadata.shared, spills, _loops(instructions))


def disassemble(cubin: bytes, option: str = "-sass") -> str:
    """What cuobjdump says of a kernel: its instructions, or with -res-usage its registers."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(TOOL), option, file.name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


SELDOM = 8  # accesses to global memory of a block that is skipped in most steps


def _loops(instructions: list[tuple[int, str, str]]) -> list[Counter]:
    """What lies between the target of each backward branch and the branch."""
    jumps = []
    for at, op, rest in instructions:
        target = re.search(r"0x([0-9a-f]+)", rest)
        if op.startswith("BRA") and target:
            jumps.append((at, int(target[1], 16)))
    loops = []
    for at, first in jumps:
        if first < at:
            seldom = _seldom(instructions, [jump for jump in jumps if first <= jump[0] <= at], at)
            body = (
                o for place, o, _ in instructions if first <= place <= at and place not in seldom
            )
            loops.append(Counter("EX2" if o == "MUFU.EX2" else o.split(".")[0] for o in body))
    return sorted(loops, key=Counter.total)


def _seldom(
    instructions: list[tuple[int, str, str]], jumps: list[tuple[int, int]], end: int
) -> set[int]:
    """Where the instructions are that a loop up to `end` skips in most of its steps."""
    places: set[int] = set()
    for at, target in jumps:
        loops = any(at < other < target and back < other for other, back in jumps)
        if at < target <= end and not loops:
            inside = [(place, op) for place, op, _ in instructions if at < place < target]
            if sum(op.startswith(("LDG", "STG")) for _, op in inside) >= SELDOM:
                places |= {place for place, _ in inside}
    return places
