"""How a GPU scan is divided into programs: tiles, measured once, and segments, by shape.

The backward pass exists twice: as one scan (`triton_kernels.backward_kernel`, a `Tile`) and as two
scans without a history of states (`triton_two_scans`, a `TwoScans`). No GPU has run the second one
yet, so it is not among the candidates, unless the environment variable VMUNET_TWO_SCANS is 1: then
its tiles are measured beside the others at the first call for a shape, and the fastest is used.
"""

import functools
import json
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch

SPAN = 32  # steps between saved states; a multiple of every tile's T
STATES = 16  # the state size that the tiles are made for
WARPS_PER_SCHEDULER = 3  # while one waits for memory, another computes
SCHEDULERS = 4  # in one multiprocessor
LEAST_STEPS = 64  # in a segment: computing the state that it starts with must stay cheap
LEAST_SEGMENTS = 4  # fewer do not pay: two passes take 1.8 times the exponentials of one
LEAST_OF_TWO_SCANS = 2  # their first scan only computes a fourth more for it


@dataclass(frozen=True)
class Tile:
    """A program's chunk: T steps of CH * LD channels, LD of them across the lanes of its warp."""

    T: int
    CH: int
    LD: int

    @property
    def channels(self) -> int:
        return self.CH * self.LD

    def fit(self, states: int) -> "Tile":
        """The tile for this state size: above 16, fewer steps, to keep within the registers."""
        return replace(self, T=max(1, self.T * STATES // max(STATES, power_of_two(states))))


@dataclass(frozen=True)
class TwoScans:
    """A program of `triton_two_scans`: CH * LD channels, LD of them across the lanes of its warp.

    U steps' inputs are on their way. `registers` is the most that a lane may take, None for 255:
    fewer let more programs be resident.
    """

    U: int
    CH: int
    LD: int
    registers: int | None = None

    @property
    def channels(self) -> int:
        return self.CH * self.LD

    @staticmethod
    def takes(height: int, states: int) -> bool:
        """Whether the two scans can run: an image of one row, or more than 16 states, cannot."""
        return height > 1 and power_of_two(states) <= STATES

    def fit(self, height: int) -> "TwoScans":
        """The tile for this image: a walk reads up to 2 U - 1 steps on, and must stay inside."""
        return replace(self, U=min(self.U, 1 << ((height // 2).bit_length() - 1)))


# Registers and instructions for each exponential are those of sm_90, from the compiled kernels.
FORWARD = {
    "4 steps of 32": Tile(T=4, CH=2, LD=16),  # 8.7 instructions; fewest
    "8 steps of 16": Tile(T=8, CH=1, LD=16),  # 9.6; twice the programs
    "4 steps of 16": Tile(T=4, CH=1, LD=16),  # 10.7; 108 registers, so more warps wait together
    "8 steps of 8": Tile(
        T=8, CH=1, LD=8
    ),  # 12.2; 127 registers; no GPU has timed this and the next
    "4 steps of 8": Tile(T=4, CH=1, LD=8),  # 13.4; 64 registers
}
BACKWARD = {
    "4 steps of 16": Tile(T=4, CH=2, LD=8),  # 23.5, and 8.3 to recompute the states
    "2 steps of 32": Tile(T=2, CH=2, LD=16),  # 24.2 and 9.2; half the partial sums of dB and dC
}
TWO_SCANS = {
    "two scans, 4 steps of 32": TwoScans(U=4, CH=1, LD=32, registers=168),  # 13.9 and 16.4
    "two scans, 2 steps of 32": TwoScans(U=2, CH=1, LD=32, registers=128),  # 14.6 and 16.9
}


def backward_tiles() -> dict[str, Tile | TwoScans]:
    """The candidates for a backward pass; see the module's docstring."""
    if os.environ.get("VMUNET_TWO_SCANS") == "1":
        return {**BACKWARD, **TWO_SCANS}
    return {**BACKWARD}


def power_of_two(number: int) -> int:
    """The least power of two that is not below `number`."""
    return 1 << (number - 1).bit_length()


def segments(walks: int, steps: int, device: torch.device, least: int = LEAST_SEGMENTS) -> int:
    """The number of parts of every walk, for `walks` programs of `steps` steps.

    One pass over a walk is sequential, so few images leave most of a GPU idle. In two passes the
    parts run in parallel, for nearly twice the work: that pays from four parts on. Fewer than
    `least` parts are none.
    """
    if device.type != "cuda":
        return 1
    processors = torch.cuda.get_device_properties(device).multi_processor_count
    wanted = processors * SCHEDULERS * WARPS_PER_SCHEDULER // walks
    parts = min(wanted, steps // LEAST_STEPS)
    return parts if parts >= least else 1


AnyTile = TypeVar("AnyTile", bound=Tile | TwoScans)


def choose(
    tiles: Mapping[str, AnyTile],
    key: str,
    run: Callable[[AnyTile], object],
    device: torch.device,
) -> AnyTile:
    """The fastest tile for this work on this GPU, measured at the first call, then kept in a file.

    Without a GPU, and for new work while a CUDA graph is captured, it is the first tile. The file
    is in the user's cache folder, so that later processes choose the same: another tile adds in
    another order, which may change the last bits.
    """
    first = next(iter(tiles.values()))
    if device.type != "cuda":
        return first
    gpu = torch.cuda.get_device_name(device)
    key = f"{key}: {', '.join(tiles)}"  # other candidates are another choice
    name = _known().get(gpu, {}).get(key, "")
    if name in tiles:
        return tiles[name]
    with torch.cuda.device(device):  # the events and streams below belong to it
        if torch.cuda.is_current_stream_capturing():
            return first
        name = _fastest(tiles, run)
    with _LOCK:
        _known().setdefault(gpu, {})[key] = name
        _keep(gpu, key, name)
    return tiles[name]


def _fastest(tiles: Mapping[str, AnyTile], run: Callable[[AnyTile], object]) -> str:
    from triton.testing import do_bench

    seconds = {name: do_bench(lambda t=tile: run(t), 5, 25) for name, tile in tiles.items()}
    return min(seconds, key=seconds.__getitem__)


_LOCK = threading.Lock()


def _file() -> Path:
    import triton

    folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(folder) / "vmunet" / f"scan-tiles-triton-{triton.__version__}.json"


@functools.cache
def _known() -> dict[str, dict[str, str]]:
    """{GPU: {work: name of the tile}}"""
    return _read()


def _read() -> dict[str, dict[str, str]]:
    try:
        known = json.loads(_file().read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _keep(gpu: str, key: str, name: str) -> None:
    """Add a choice to the file, which other processes may have changed.

    If the file cannot be written, the choice holds for this process.
    """
    known = _read()
    known.setdefault(gpu, {})[key] = name
    path = _file()
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
        os.replace(partial, path)
    except OSError:
        partial.unlink(missing_ok=True)
