"""Figures of results: scan, training step, tests of methods, agreement, few units' intervals.

    python -m benchmarks.plot                 # every result file that exists
    python -m benchmarks.plot --format pdf

Draws `scan_gpu.json`, `step_gpu.json`, `methods.json`, `agreement.json` and `coverage.json` of
`benchmarks/results/`, each beside its file. Nothing is measured here: the benchmark of the same
name writes the file.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.measure import RESULTS

# Okabe and Ito's colours, which readers with colour-blindness can tell apart, and Tol's wine.
BLUE, ORANGE, GREY, SKY, GREEN, VERMILION, YELLOW, PURPLE, BLACK, WINE = (
    "#0072B2",
    "#E69F00",
    "#999999",
    "#56B4E9",
    "#009E73",
    "#D55E00",
    "#F0E442",
    "#CC79A7",
    "#000000",
    "#882255",
)
SCANS = {"triton": BLUE, "published": ORANGE, "reference": GREY}
VARIANTS = {
    "published-fp32": ORANGE,
    "fp32": BLUE,
    "fp32-compiled": SKY,
    "fp32-graph": PURPLE,
    "fp32-compiled-graph": WINE,
    "published-bf16": VERMILION,
    "bf16": GREEN,
    "bf16-compiled": GREY,
    "bf16-graph": YELLOW,
    "bf16-compiled-graph": BLACK,
}


def scan_figure(results: dict[str, Any]) -> Any:
    """Milliseconds of each scan by shape, with a mark for the floor; a panel per type and pass."""
    from matplotlib.figure import Figure

    kinds = list(dict.fromkeys((row["dtype"], row["pass"]) for row in results["rows"]))
    figure = Figure(figsize=(11, 2.6 * len(kinds)), layout="constrained")
    panels = figure.subplots(len(kinds), squeeze=False, sharex=False)[:, 0]
    for axes, kind in zip(panels, kinds, strict=True):
        rows = [row for row in results["rows"] if (row["dtype"], row["pass"]) == kind]
        width = 0.8 / len(SCANS)
        for i, (name, color) in enumerate(SCANS.items()):
            drawn = [(x, row[name]["seconds"]) for x, row in enumerate(rows) if row[name]]
            places = [x + (i - 1) * width for x, _ in drawn]
            heights = [1e3 * seconds for _, seconds in drawn]
            if drawn:
                axes.bar(places, heights, width, color=color, label=name)
        floors = [1e3 * row["floor"]["seconds"] for row in rows]
        axes.hlines(
            floors,
            [x - 0.45 for x in range(len(rows))],
            [x + 0.45 for x in range(len(rows))],
            color="black",
            linewidth=2,
            label="floor",
        )
        axes.set_yscale("log")
        axes.set_ylabel("ms")
        axes.set_title(f"{kind[0]}, {kind[1]}", loc="left", fontsize=10)
        axes.set_xticks(range(len(rows)), [shape(row) for row in rows], fontsize=8)
        axes.grid(axis="y", alpha=0.3)
    figure.legend(*panels[0].get_legend_handles_labels(), ncols=4, loc="outside lower center")
    figure.suptitle(f"2D selective scan, {about(results)}", fontsize=11)
    return figure


def step_figure(results: dict[str, Any]) -> Any:
    """Images per second, and peak memory, of each variant by size; a cross if it failed."""
    from matplotlib.figure import Figure

    rows = {(row["variant"], row["size"]): row for row in results["rows"]}
    sizes = sorted({size for _, size in rows})
    names = [name for name in VARIANTS if any(variant == name for variant, _ in rows)]
    figure = Figure(figsize=(11, 7), layout="constrained")
    panels = figure.subplots(2)
    shown = ((1.0, "images_per_second", "images a second"), (1e9, "peak_bytes", "peak memory, GB"))
    for axes, (unit, key, title) in zip(panels, shown, strict=True):
        width = 0.85 / len(names)
        for i, name in enumerate(names):
            for x, size in enumerate(sizes):
                row = rows.get((name, size))
                place = x + (i - (len(names) - 1) / 2) * width
                if row and row["seconds"] is not None:
                    label = name if x == first_drawn(rows, name, sizes) else None
                    bar = axes.bar(place, row[key] / unit, width, color=VARIANTS[name], label=label)
                    axes.bar_label(bar, fmt="%.3g", fontsize=7)
                elif row:
                    axes.plot(place, 0, "x", color=VARIANTS[name], clip_on=False)
        axes.set_xticks(range(len(sizes)), [f"{size} x {size}" for size in sizes])
        axes.set_ylabel(title)
        axes.grid(axis="y", alpha=0.3)
    figure.legend(*panels[0].get_legend_handles_labels(), ncols=6, loc="outside lower center")
    batch = results["rows"][0]["batch"]
    figure.suptitle(
        f"training step, batch {batch}, {about(results)} (a cross: it failed)", fontsize=11
    )
    return figure


TESTS = {"images": ORANGE, "seeds": GREY, "bootstrap": SKY, "methods": BLUE}
STATEMENTS = {"in": SKY, "equivalent": GREEN, "different": VERMILION, "undecided": GREY}
INTERVALS = {"percentile": ORANGE, "bca": SKY, "studentized": BLUE}


def methods_figure(results: dict[str, Any]) -> Any:
    """The share of simulations in which each test finds a difference, by number of seeds."""
    from matplotlib.figure import Figure

    kinds = list(dict.fromkeys((row["difference"], row["spread"]) for row in results["rows"]))
    figure = Figure(figsize=(11, 6), layout="constrained")
    panels = figure.subplots(2, -(-len(kinds) // 2), sharey=True).ravel()
    for axes, kind in zip(panels, kinds, strict=False):
        rows = [row for row in results["rows"] if (row["difference"], row["spread"]) == kind]
        draw_lines(axes, rows, "seeds", "found", TESTS)
        axes.axhline(results["level"], color=BLACK, linewidth=1, linestyle=":")
        title = f"spread of runs: {kind[1]}" if not kind[0] else f"{kind[0]:g} points apart (power)"
        axes.set_title(title, loc="left", fontsize=10)
        axes.set_xticks(sorted({row["seeds"] for row in rows}))
        axes.set_xlabel("seeds of each method")
    panels[0].set_ylabel("found different")
    figure.legend(*panels[0].get_legend_handles_labels(), ncols=4, loc="outside lower center")
    figure.suptitle(
        f"tests of two methods, {results['simulations']} simulations of {results['images']} test "
        "images; with no difference: the type I error",
        fontsize=11,
    )
    return figure


def agreement_figure(results: dict[str, Any]) -> Any:
    """The share of simulations with each statement, by how far the method lies below."""
    from matplotlib.figure import Figure

    counts = sorted({row["seeds"] for row in results["rows"]})
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    panels = figure.subplots(1, len(counts), sharey=True)
    for axes, seeds in zip(panels, counts, strict=True):
        rows = [row for row in results["rows"] if row["seeds"] == seeds]
        draw_lines(axes, rows, "below", "said", STATEMENTS)
        axes.axvline(results["margin"], color=BLACK, linewidth=1, linestyle=":")
        axes.set_title(f"{seeds} seeds", loc="left", fontsize=10)
        axes.set_xlabel("points below the published figure")
    panels[0].set_ylabel("stated")
    figure.legend(*panels[0].get_legend_handles_labels(), ncols=4, loc="outside lower center")
    figure.suptitle(
        f"statements of agreement, {results['simulations']} simulations; runs vary by "
        f"{results['spread']:g} points; dotted: the margin",
        fontsize=11,
    )
    return figure


def coverage_figure(results: dict[str, Any]) -> Any:
    """How often each interval holds the truth, by the number of units; a panel for each score."""
    from matplotlib.figure import Figure

    kinds = list(dict.fromkeys(row["kind"] for row in results["rows"]))
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    panels = figure.subplots(1, len(kinds), sharey=True)
    for axes, kind in zip(panels, kinds, strict=True):
        rows = [row for row in results["rows"] if row["kind"] == kind]
        draw_lines(axes, rows, "units", "coverage", INTERVALS)
        axes.axhline(results["level"], color=BLACK, linewidth=1, linestyle=":")
        axes.set_title(kind, loc="left", fontsize=10)
        axes.set_xticks([row["units"] for row in rows])
        axes.set_xlabel("units")
    panels[0].set_ylabel("holds the true score")
    figure.legend(*panels[0].get_legend_handles_labels(), ncols=3, loc="outside lower center")
    figure.suptitle(f"95% intervals, {results['simulations']} simulations", fontsize=11)
    return figure


def draw_lines(
    axes: Any, rows: list[dict[str, Any]], across: str, shares: str, colors: dict[str, str]
) -> None:
    """A line for each name of `colors`: its share in each row that has it."""
    for name, color in colors.items():
        drawn = [(row[across], row[shares][name]) for row in rows if name in row[shares]]
        axes.plot(*zip(*drawn, strict=True), "o-", color=color, label=name)
    axes.grid(axis="y", alpha=0.3)


def first_drawn(rows: dict[tuple[str, int], Any], name: str, sizes: list[int]) -> int:
    """Index of the first size at which a variant has a bar; that bar has the legend's entry."""
    has_bar = [rows.get((name, size), {}).get("seconds") is not None for size in sizes]
    return has_bar.index(True)


def shape(row: dict[str, Any]) -> str:
    return f"batch {row['batch']}\n{row['side']}x{row['side']}x{row['channels']}"


def about(results: dict[str, Any]) -> str:
    """The device and the date: without them a figure says nothing."""
    return f"{results['gpu']['name']}, {results['machine']['date']}"


FIGURES = {
    "scan_gpu.json": scan_figure,
    "step_gpu.json": step_figure,
    "methods.json": methods_figure,
    "agreement.json": agreement_figure,
    "coverage.json": coverage_figure,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="(default: results/)")
    parser.add_argument("--format", choices=("png", "pdf"), default="png", help="(default: png)")
    options = parser.parse_args()
    result_files = [name for name in FIGURES if (options.results / name).exists()]
    if not result_files:
        sys.exit(f"there is no {' or '.join(FIGURES)} in {options.results}: run a benchmark first")
    for name in result_files:
        results = json.loads((options.results / name).read_text())
        if not results["rows"]:
            sys.exit(f"{options.results / name} has no rows: its benchmark did not get that far")
        path = (options.results / name).with_suffix(f".{options.format}")
        FIGURES[name](results).savefig(path, dpi=150)
        print(f"written: {path}")


if __name__ == "__main__":
    main()
