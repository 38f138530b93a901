"""The GPU benchmarks' results as the tables of docs/kernels.md.

    python -m benchmarks.summary [--results FOLDER]

Prints Markdown: the scan against the published path and against the floor (`scan_gpu.json`), and
the training step (`step_gpu*.json`). Nothing is measured here.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import RESULTS


def table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> str:
    """A Markdown table; all columns but the first `left` are numbers."""
    rule = ["---"] * left + ["---:"] * (len(head) - left)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))


def scan_table(results: dict[str, Any], dtype: str = "float32") -> str:
    """A row for each shape: milliseconds of the published path and of ours, their ratio, and the
    share of the physical limit; first of the output, then of the output and the gradients."""
    shapes: dict[str, list[str]] = {}
    for row in results["rows"]:
        if row["dtype"] != dtype:
            continue
        cells = shapes.setdefault(
            f"{row['batch']} of {row['side']}x{row['side']}x{row['channels']}", []
        )
        published = row["published"]
        cells += [
            f"{1e3 * published['seconds']:.3g}" if published else "--",
            f"{1e3 * row['triton']['seconds']:.3g}",
            f"{row['faster']:.1f}" if published else "--",
            f"{100 * row['of_floor']:.0f}%",
        ]
    columns = ("published, ms", "ours, ms", "ratio", "of the limit")
    head = ("output of", *columns, "with gradients: published", *columns[1:])
    return table(head, [(shape, *cells) for shape, cells in shapes.items()], left=1)


def step_table(results: Sequence[dict[str, Any]]) -> str:
    """A row for each size and variant of all result files: images a second, and memory."""
    measured: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for row in (row for result in results for row in result["rows"]):
        measured.setdefault((row["size"], row["variant"]), []).append(row)
    rows = []
    for (size, variant), found in sorted(measured.items()):
        ran = [row for row in found if row["seconds"] is not None]
        speeds = sorted({f"{row['images_per_second']:.0f}" for row in ran}, key=int)
        speed = " to ".join((speeds[0], speeds[-1])[: len(speeds)]) if ran else "does not run"
        memory = f"{max(row['peak_bytes'] for row in ran) / 1e9:.1f}" if ran else "--"
        rows.append((f"{size}x{size}", variant, speed, memory))
    return table(("size", "variant", "images/s", "peak memory, GB"), rows, left=2)


def summary(folder: Path) -> str:
    """The tables of a folder of results."""
    read = {path.name: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    parts = []
    if "scan_gpu.json" in read:
        parts.append(scan_table(read["scan_gpu.json"]))
    if steps := [content for name, content in read.items() if name.startswith("step_gpu")]:
        parts.append(step_table(steps))
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="(default: results/)")
    print(summary(parser.parse_args().results))


if __name__ == "__main__":
    main()
