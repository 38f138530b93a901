"""The checks in words: index.md for people, findings.csv for programs."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vmunet.csv_cells import UnixLines, to_row
from vmunet.data.checks import copies
from vmunet.data.checks.facts import SUBSETS, MeasuredDataset
from vmunet.data.checks.findings import KINDS, Finding, PairOfCopies, SharedIds
from vmunet.data.checks.published_split import SplitCheck

NAMED = 6  # the most ids in the report; findings.csv has all of them
LISTED = 40  # the most pairs in the report
COLUMNS = (
    *("finding", "dataset", "split", "id", "value", "detail"),
    *("other_dataset", "other_split", "other_id", "distance", "correlation", "gray_correlation"),
    *("turn", "mask_iou"),
)


def report(
    about: str,
    datasets: Sequence[MeasuredDataset],
    findings: Mapping[str, Sequence[Finding]],
    pairs: Sequence[PairOfCopies],
    shared: Sequence[SharedIds],
    sheets: Sequence[str],
    splits: Sequence[SplitCheck] = (),
) -> str:
    """The report as Markdown: leaks, a section for each dataset, copies between datasets.

    Args:
        about: one line that says what the data are.
        findings: of each dataset, by name.
        sheets: names of the contact sheets, `<dataset>` and `between`.
        splits: the comparisons with the published split, of whole datasets.
    """
    leaks = [pair for pair in pairs if pair.leak and not pair.across]
    text = ["# Data checks", about, "## Train and test show the same picture"]
    if leaks:
        names = {name: sum(p.first.dataset == name for p in leaks) for name in findings}
        counted = ", ".join(f"{name}: {count}" for name, count in names.items() if count)
        tests = len({(pair.second.dataset, pair.second.id) for pair in leaks})
        text += [
            f"**{_count(len(leaks), 'leak')}** ({counted}): {_count(tests, 'test image')} with a "
            "picture that is also trained on, which flatters every score.",
            _pairs(leaks),
        ]
    else:
        text.append("No leak found.")
    for measured in datasets:
        name = measured.dataset
        within = [p for p in pairs if p.first.dataset == name and not p.across and not p.leak]
        text += _dataset(measured, findings[name], within)
        text += [split.sentence for split in splits if split.dataset == name]
        if name in sheets:
            text.append(f"![images with their masks' outlines]({name}.png)")
    if len(datasets) > 1:
        text += _between([p for p in pairs if p.across], shared)
        if "between" in sheets:
            text.append("![copies across the datasets](between.png)")
    return "\n\n".join([*text, _how()]) + "\n"


def _dataset(
    measured: MeasuredDataset, findings: Sequence[Finding], within: Sequence[PairOfCopies]
) -> list[str]:
    source = measured.manifest.get("source", "unknown")
    splits = [[split, *_splits_row(measured, split)] for split in SUBSETS]
    head = ["split", "images", "width x height: min", "median", "max", "mask share: min"]
    head += ["5%", "median", "95%", "max"]
    text = [f"## {measured.dataset} (source: {source})"]
    if archives := measured.manifest.get("archives"):
        text.append(f"Made from {', '.join(map(_archive, archives))}.")
    text.append(_table(head, splits))
    if findings:
        kinds = [kind for kind in KINDS if any(f.kind == kind for f in findings)]
        rows = [
            (KINDS[kind], *_kind_row([f for f in findings if f.kind == kind])) for kind in kinds
        ]
        text += [
            _table(("finding", "train", "test", "which, the most extreme first"), rows),
            "A finding is a reason to look, not an error: nothing is left out for it.",
        ]
    else:
        text.append("Nothing was found wrong with an image or a mask.")
    if within:
        text += [f"Copies within a split: {_count(len(within), 'pair')}.", _pairs(within)]
    else:
        text.append("No copies within a split.")
    return text


def _archive(about: Mapping[str, Any]) -> str:
    return f"{about['name']} ({about['bytes']:,} bytes, sha256 {about['sha256'][:12]}...)"


def _splits_row(measured: MeasuredDataset, split: str) -> list[str]:
    facts = [each for each in measured.facts if each.split == split]
    photos = [each.photo for each in facts if each.photo]
    areas = [each.mask.area for each in facts if each.mask]
    sizes, shares = ["-"] * 3, ["-"] * 5
    if photos:
        by_area = sorted((p.width * p.height, p.width, p.height) for p in photos)
        chosen = (by_area[0], by_area[len(by_area) // 2], by_area[-1])
        sizes = [f"{width}x{height}" for _, width, height in chosen]
    if areas:
        shares = [f"{share:.1%}" for share in np.percentile(areas, (0, 5, 50, 95, 100))]
    return [str(len(facts)), *sizes, *shares]


def _kind_row(findings: Sequence[Finding]) -> tuple[str, str, str]:
    named = ", ".join(f"{f.id or f.dataset} ({f.detail})" for f in findings[:NAMED])
    more = f" and {len(findings) - NAMED} more" if len(findings) > NAMED else ""
    counts = [sum(f.split == split for f in findings) for split in SUBSETS]
    return (str(counts[0]), str(counts[1]), named + more)


def _between(across: Sequence[PairOfCopies], shared: Sequence[SharedIds]) -> list[str]:
    text = ["## Between the datasets"]
    for ids in shared:
        one, other = ids.datasets
        if not ids.count:
            text.append(f"{one} and {other} share no id.")
            continue
        text.append(f"{one} and {other} share {_count(ids.count, 'id')}.")
        alike = ids.count - len(ids.unlike)
        if alike:
            text.append(
                f"Under {alike} of them the picture is the same ({ids.identical}: every pixel). "
                f"{ids.crossing} of those train in one dataset and test in the other: a model "
                "trained on the one must not be scored on them in the other."
            )
        if ids.unlike:
            text.append(f"Under {len(ids.unlike)} of them the pictures differ: {_some(ids)}.")
    if across:
        text += [f"The same picture under two ids: {_count(len(across), 'pair')}.", _pairs(across)]
    else:
        text.append("No picture was found under two ids.")
    return text


def _pairs(pairs: Sequence[PairOfCopies]) -> str:
    head = ("image", "copy", "hash distance", "correlation", "in gray", "masks' IoU", "it matches")
    rows = []
    for pair in pairs[:LISTED]:
        names = [f"{each.dataset} {each.split} {each.id}" for each in (pair.first, pair.second)]
        copy = pair.copy
        figures = (str(copy.distance), f"{copy.detail:.3f}", f"{copy.gray:.3f}")
        overlap = "-" if pair.overlap is None else f"{pair.overlap:.2f}"
        matches = "in every pixel" if copy.identical else copy.turn.name
        rows.append((*names, *figures, overlap, matches))
    more = len(pairs) - LISTED
    return _table(head, rows) + (f"\n\nand {more} more in `findings.csv`" if more > 0 else "")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(c.replace("|", "/") for c in line) + " |" for line in lines)


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _some(ids: SharedIds) -> str:
    more = len(ids.unlike) - NAMED
    return ", ".join(ids.unlike[:NAMED]) + (f" and {more} more" if more > 0 else "")


def _how() -> str:
    return (
        "## How copies are found\n\n"
        f"Hash distance: bits between two 64-bit cosine hashes; pairs up to {copies.REACH} "
        f"({copies.TURNED_REACH} where one is mirrored or turned) are compared. Correlation: of "
        f"fine detail after the two were laid on each other, at least {copies.SAME:g}; in gray: as "
        f"they lie, at least {copies.GRAY:g}. Masks' IoU: as they lie, so a shift lowers it. "
        "A copy matches as it lies (upright), or once it is mirrored or turned as said. "
        "A copy that was cropped by more than a few percent, or turned by less than a right angle, "
        "is missed; so are other photographs of the same lesion.\n\n"
        "Everything that was found, with all ids: `findings.csv`."
    )


def write_findings(
    path: Path, findings: Mapping[str, Sequence[Finding]], pairs: Sequence[PairOfCopies]
) -> None:
    """Write findings.csv: a line for each pair of copies (leaks first), then for each finding."""
    rows: list[dict[str, object]] = []
    for pair in sorted(pairs, key=lambda p: (p.across, not p.leak)):
        first, second, copy = pair.first, pair.second, pair.copy
        row: dict[str, object] = {
            "finding": "across" if pair.across else "leak" if pair.leak else "copy",
            "dataset": first.dataset,
            "split": first.split,
            "id": first.id,
            "detail": "identical" if copy.identical else "",
            "other_dataset": second.dataset,
            "other_split": second.split,
            "other_id": second.id,
            "distance": copy.distance,
            "correlation": round(copy.detail, 4),
            "gray_correlation": round(copy.gray, 4),
            "turn": copy.turn.name,
        }
        rows.append(row | ({} if pair.overlap is None else {"mask_iou": round(pair.overlap, 4)}))
    for finding in (each for of_dataset in findings.values() for each in of_dataset):
        row = {"finding": finding.kind, "dataset": finding.dataset, "split": finding.split}
        row |= {"id": finding.id, "detail": finding.detail}
        rows.append(row | ({} if finding.value is None else {"value": round(finding.value, 6)}))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(UnixLines(file), COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(map(to_row, rows))
