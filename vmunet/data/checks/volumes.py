"""A report that people read about a set of volumes before training: sizes, spacing, organs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vmunet.drawing.sheets.images import write as write_sheet
from vmunet.drawing.sheets.organs import draw_cases
from vmunet.files import whole_folder

ODD = 3.0  # robust standard deviations of log ml from the median; an organ beyond stands out


def write_report(arrays: Path, manifest: Mapping[str, Any], target: Path) -> None:
    """Write `target`/index.md and cases.png about data/arrays/<view>, both or neither."""
    with whole_folder(target) as folder:
        title = f"{manifest['view']}   source: {manifest['source']}   outlines: the true labels"
        sheet = draw_cases(arrays, manifest, list(manifest["cases"]), title)
        write_sheet(folder / "cases.png", sheet)
        (folder / "index.md").write_text(report(manifest))


def report(manifest: Mapping[str, Any]) -> str:
    """A Markdown page about data/arrays/<view>, from its manifest.

    Organs are in ml if the spacing is known, otherwise in voxels. The page begins with what is
    odd: organs that are missing, or far larger or smaller than in the other cases.
    """
    cases, classes = manifest["cases"], list(manifest["classes"])
    known = all(case["spacing"] for case in cases.values())
    sizes = {name: _sizes(case, classes, known) for name, case in cases.items()}
    unit = "ml" if known else "voxels"
    lines = [
        f"# Volumes: {manifest['view']} (source: {manifest['source']})",
        "",
        f"{manifest['n_train']} training cases with {manifest['train_slices']} slices, "
        f"{manifest['n_test']} test cases with {manifest['test_slices']}.",
        "",
        *(_findings(sizes, unit) or ["Nothing stands out."]),
        "",
        f"| case | part | slices | height x width | mm (z, y, x) | {' | '.join(classes)} |",
        "|---|---|---:|---:|---:|" + "---:|" * len(classes),
    ]
    for name, case in cases.items():
        depth, height, width = case["shape"]
        spacing = " ".join(f"{mm:.2f}" for mm in case["spacing"]) if case["spacing"] else "unknown"
        part = "train" if name in manifest["train"] else "test"
        organs = " | ".join(_number(value, known) for value in sizes[name].values())
        lines.append(f"| {name} | {part} | {depth} | {height}x{width} | {spacing} | {organs} |")
    lines += ["", f"Organs in {unit}.", "", "![slices of every case](cases.png)", ""]
    return "\n".join(lines)


def _sizes(case: Mapping[str, Any], classes: list[str], known: bool) -> dict[str, float]:
    voxel = float(np.prod(case["spacing"])) / 1000 if known else 1.0
    return {name: case["voxels"][name] * voxel for name in classes}


def _number(value: float, known: bool) -> str:
    return f"{value:.1f}" if known else f"{value:.0f}"


def _findings(sizes: Mapping[str, Mapping[str, float]], unit: str) -> list[str]:
    """A line for each organ that is missing in some case, and for each organ of an odd size."""
    lines = []
    for organ in next(iter(sizes.values())):
        missing = [name for name, of in sizes.items() if of[organ] == 0]
        if missing:
            lines.append(f"- {organ}: missing in {', '.join(missing)}")
        logs = {name: np.log(of[organ]) for name, of in sizes.items() if of[organ] > 0}
        if len(logs) < 5:  # too few to say what is usual
            continue
        middle = np.median(list(logs.values()))
        spread = 1.4826 * np.median([abs(value - middle) for value in logs.values()])
        lines += [
            f"- {organ}: {sizes[name][organ]:.3g} {unit} in {name}, the median is "
            f"{np.exp(middle):.3g}"
            for name, value in logs.items()
            if abs(value - middle) > ODD * spread
        ]
    return lines
