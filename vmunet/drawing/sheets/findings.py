"""One picture of a dataset: copies beside their originals, findings, and a sample by rule."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from vmunet.data.checks.facts import SUBSETS, MeasuredDataset, PairFacts, image_path
from vmunet.data.checks.findings import KINDS, Finding, PairOfCopies
from vmunet.data.checks.hashes import UPRIGHT
from vmunet.data.images import decode, read_rgb
from vmunet.drawing.sheets.images import (
    COLUMNS,
    GAP,
    TILE,
    TRUTH,
    Pixels,
    blank,
    draw_groups,
    fit,
    tile,
    write_text,
)
from vmunet.errors import InputError
from vmunet.threads import in_threads

SAMPLE = COLUMNS  # images of each split in the sample
MOST_PAIRS = 32  # of a kind; the report's table and findings.csv have all of them
HEADER = 32
LINE = 34  # the number of characters of the second line that fit below a tile


@dataclass(frozen=True)
class Shown:
    """An image on the sheet, and the two lines below it."""

    facts: PairFacts
    lines: tuple[str, str]


Groups = list[tuple[str, list[Shown]]]


def dataset_groups(
    measured: MeasuredDataset, findings: Sequence[Finding], pairs: Sequence[PairOfCopies]
) -> Groups:
    """The groups of a dataset's sheet: leaks and other copies, findings, a sample of each split.

    The sheet shows the first row of a finding's images. The sample has SAMPLE images of a split,
    evenly spaced in the order of the manifest, whatever they show.
    """
    within = [pair for pair in pairs if not pair.across]
    groups = pair_groups("train and test show the same picture", [p for p in within if p.leak])
    groups += pair_groups("copies within a split", [p for p in within if not p.leak])
    by_id = {facts.id: facts for facts in measured.facts}
    for kind, title in KINDS.items():
        of_kind = [f for f in findings if f.kind == kind and f.id in by_id]
        shown = [Shown(by_id[f.id], (f.id, f"{f.split}: {f.detail}")) for f in of_kind[:COLUMNS]]
        groups.append((_heading(title, len(of_kind), len(shown), "image"), shown))
    for split in SUBSETS:
        members = [facts for facts in measured.facts if facts.split == split]
        places = np.linspace(0, len(members) - 1, min(SAMPLE, len(members))).round().astype(int)
        shown = [Shown(members[i], (members[i].id, _area(members[i]))) for i in places]
        groups.append((f"{split}: {len(shown)} of {len(members)}, evenly spaced", shown))
    return [(title, shown) for title, shown in groups if shown]


def pair_groups(title: str, pairs: Sequence[PairOfCopies]) -> Groups:
    """Copies, each beside its original."""
    shown = []
    for pair in pairs[:MOST_PAIRS]:
        copy = pair.copy
        how = "identical" if copy.identical else f"distance {copy.distance}, r {copy.detail:.2f}"
        masks = "" if pair.overlap is None else f"masks' IoU {pair.overlap:.2f}"
        then = masks if copy.turn == UPRIGHT else f"if {copy.turn.name}"
        for facts, line in ((pair.first, how), (pair.second, then)):
            place = f"{facts.dataset} {facts.split}" if pair.across else facts.split
            shown.append(Shown(facts, (facts.id, f"{place}: {line}")))
    return [(_heading(title, len(pairs), len(shown) // 2, "pair"), shown)] if shown else []


def _heading(title: str, count: int, shown: int, thing: str) -> str:
    several = "" if count == 1 else "s"
    return f"{title}: {count} {thing}{several}" + (f", the first {shown}" if shown < count else "")


def _area(facts: PairFacts) -> str:
    return f"mask {facts.mask.area:.1%} of the image" if facts.mask else ""


def draw(groups: Groups, title: str, raw: Callable[[str], Path]) -> Pixels:
    """Draw a sheet.

    Args:
        groups: headings with their images, from top to bottom.
        title: one line; ASCII.
        raw: a function from a dataset's name to its folder.

    Returns:
        uint8 (height, width, 3), RGB.
    """
    sheet = blank(groups, HEADER)
    write_text(sheet, title, (GAP, 22), scale=0.55)
    everything = [shown.facts for _, members in groups for shown in members]
    tiles = iter(in_threads(lambda f: _tile(f, raw(f.dataset)), everything, "drawing"))

    def draw_shown(shown: Shown, x: int, y: int) -> None:
        sheet[y : y + TILE, x : x + TILE] = next(tiles)
        write_text(sheet, fit(shown.lines[0]), (x, y + TILE + 13))
        write_text(sheet, shown.lines[1][:LINE], (x, y + TILE + 28), scale=0.38)

    draw_groups(sheet, HEADER, groups, draw_shown)
    return sheet


def _tile(facts: PairFacts, raw: Path) -> Pixels:
    """The image with its mask's outline; gray if the image cannot be read."""
    try:
        image = read_rgb(image_path(raw, facts.id))[0]
    except (InputError, OSError):
        image = np.full((TILE, TILE, 3), 128, np.uint8)
    if facts.mask is None:
        return tile(image, ())
    mask = decode(raw / "masks" / f"{facts.id}.png")
    mask = mask[..., :3].max(axis=2) if mask.ndim == 3 else mask
    lesion = (mask > mask.max() / 2).astype(np.uint8)
    height, width = image.shape[:2]
    if lesion.shape != (height, width):
        lesion = cv2.resize(lesion, (width, height), interpolation=cv2.INTER_NEAREST)
    return tile(image, ((lesion > 0, TRUTH, 2),))
