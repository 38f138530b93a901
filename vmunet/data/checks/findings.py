"""What may be wrong with a dataset, from its measurements: findings, and pairs of copies."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from vmunet.data.checks.copies import Copy, find_copies
from vmunet.data.checks.facts import SUBSETS, Mask, MeasuredDataset, PairFacts, Photo
from vmunet.data.checks.hashes import distance, hash_of, waves_of

# The limits lie outside the values of the 2,150 photographs of ISIC 2017 (gray means 75 to 240,
# contrast above 5.9, colour above 2.4), except those of a mask's area: the smallest percent.
FLAT = 3.0  # contrast, 0..255
BLACK, WHITE = 20.0, 245.0  # mean brightness, 0..255
COLOURLESS = 1.0  # mean difference of the channels, 0..255
LONG = 2.0  # longer side by shorter side; cameras make 4:3 and 3:2
TINY, FULL = 0.005, 0.95  # a mask's share of its image


@dataclass(frozen=True)
class Finding:
    """A finding about one image, or about a dataset if `id` is empty.

    Attributes:
        kind: one of KINDS.
        value: the measured number, None if there is none; `detail` says it in words.
    """

    kind: str
    dataset: str
    split: str
    id: str
    value: float | None
    detail: str


@dataclass(frozen=True)
class PairOfCopies:
    """Two photographs that show the same picture, or the same id in two datasets.

    Attributes:
        first, second: the training image is first, if they are of different splits.
        copy: the comparison that shows that they are the same.
        overlap: IoU of their masks at 64x64, the second turned like its photograph; None if a mask
            is missing or both are empty.
    """

    first: PairFacts
    second: PairFacts
    copy: Copy
    overlap: float | None

    @property
    def leak(self) -> bool:
        return self.first.split != self.second.split

    @property
    def across(self) -> bool:
        return self.first.dataset != self.second.dataset


@dataclass(frozen=True)
class SharedIds:
    """Ids that two datasets share.

    Attributes:
        count: the number of shared ids.
        identical: the number of them with the same pixels in both datasets.
        unlike: ids whose pictures differ by more bits than saving again can explain.
        crossing: the number of the others that train in one dataset and test in the other.
    """

    datasets: tuple[str, str]
    count: int
    identical: int
    unlike: list[str]
    crossing: int


KINDS = {
    "count": "other counts than declared",
    "twice": "an id in both splits, or twice in one",
    "unreadable": "missing or unreadable files",
    "damaged": "JPEG with damaged data, of which a part may be shown wrong",
    "stray": "files of no id in the split",
    "size": "mask of another size than its image",
    "values": "mask of other values than 0 and 255",
    "empty": "empty mask",
    "full": f"mask over more than {FULL:.0%} of the image",
    "tiny": f"mask under {TINY:.1%} of the image",
    "flat": f"image of one colour (contrast under {FLAT:g} of 255)",
    "dark": f"nearly black image (mean under {BLACK:g} of 255)",
    "bright": f"nearly white image (mean over {WHITE:g} of 255)",
    "channel": "image with one colour channel alone, or without colour",
    "aspect": f"image over {LONG:g} times as long as wide",
    "pieces": "mask in several pieces",
    "border": "mask that touches the image's border",
}
SMALL = ("tiny", "flat", "dark", "channel")  # kinds whose small values are the extreme ones
RESAVED = 10  # bits that resizing and JPEG change: up to 8 at a quarter of the size and quality 50


def find(measured: MeasuredDataset, declared: dict[str, int]) -> list[Finding]:
    """All findings about a dataset and its images: in the order of KINDS, the most extreme first.

    Args:
        measured: the dataset.
        declared: the number of images that each split should have.
    """
    name = measured.dataset
    findings: list[Finding] = []
    for split in SUBSETS:
        count = len(measured.manifest[split])
        if count != declared[split]:
            text = f"{count} images, declared {declared[split]}"
            findings.append(Finding("count", name, split, "", count, text))
    for key, count in Counter(facts.id for facts in measured.facts).items():
        if count > 1:
            places = [facts.split for facts in measured.facts if facts.id == key]
            text = f"in {' and '.join(places)}"
            findings.append(Finding("twice", name, places[0], key, count, text))
    findings += [Finding("stray", name, "", path, None, path) for path in measured.strays]
    for facts in measured.facts:
        for kind, value, detail in _about(facts):
            findings.append(Finding(kind, name, facts.split, facts.id, value, detail))
    order = list(KINDS)
    return sorted(findings, key=lambda f: (order.index(f.kind), _rank(f)))


def _rank(finding: Finding) -> float:
    """Smaller is more extreme."""
    value = finding.value or 0.0
    return value if finding.kind in SMALL else -value


Remark = tuple[str, float | None, str]  # kind, value and detail of a finding


def _about(facts: PairFacts) -> list[Remark]:
    remarks: list[Remark] = [("unreadable", None, error) for error in facts.errors]
    if facts.damage:
        remarks.append(("damaged", None, facts.damage))
    if facts.photo:
        remarks += _about_photo(facts.photo)
    if facts.mask:
        remarks += _about_mask(facts.mask)
    if facts.photo and facts.mask:
        sizes = [f"{part.width}x{part.height}" for part in (facts.photo, facts.mask)]
        if sizes[0] != sizes[1]:
            remarks.append(("size", None, f"image {sizes[0]}, mask {sizes[1]}"))
    return remarks


def _about_photo(photo: Photo) -> list[Remark]:
    remarks: list[Remark] = []
    long = max(photo.width, photo.height) / min(photo.width, photo.height)
    if long > LONG:
        remarks.append(("aspect", long, f"{photo.width}x{photo.height}"))
    if photo.contrast < FLAT:
        remarks.append(("flat", photo.contrast, f"contrast {photo.contrast:.1f}"))
    if photo.brightness < BLACK:
        remarks.append(("dark", photo.brightness, f"mean {photo.brightness:.1f}"))
    elif photo.brightness > WHITE:
        remarks.append(("bright", photo.brightness, f"mean {photo.brightness:.1f}"))
    elif photo.colour < COLOURLESS:
        remarks.append(("channel", photo.colour, "without colour"))
    elif sorted(photo.channels)[1] < COLOURLESS:
        strongest = ("red", "green", "blue")[int(np.argmax(photo.channels))]
        remarks.append(("channel", photo.colour, f"{strongest} alone"))
    return remarks


def _about_mask(mask: Mask) -> list[Remark]:
    remarks: list[Remark] = []
    if mask.doubt:
        remarks.append(("values", None, mask.doubt))
    if mask.area == 0:
        remarks.append(("empty", 0.0, "nothing marked"))
    elif mask.area < TINY:
        remarks.append(("tiny", mask.area, f"{mask.area:.2%} of the image"))
    elif mask.area > FULL:
        remarks.append(("full", mask.area, f"{mask.area:.1%} of the image"))
    if mask.pieces > 1:
        text = f"{mask.pieces} pieces, {mask.loose:.2%} split off"
        remarks.append(("pieces", mask.loose, text))
    if mask.border > 0:
        remarks.append(("border", mask.border, f"{mask.border:.1%} of the border"))
    return remarks


def find_pairs(datasets: Sequence[MeasuredDataset]) -> list[PairOfCopies]:
    """Pairs that show the same picture, within and across splits and datasets.

    `shared_ids` compares the same id in two datasets; this function does not.
    """
    everything = [facts for measured in datasets for facts in measured.facts]
    everything.sort(key=lambda facts: SUBSETS.index(facts.split))  # the first of a pair trains
    readable = [(facts, facts.photo) for facts in everything if facts.photo]
    if len(readable) < 2:
        return []
    thumbnails = np.stack([photo.thumbnail for _, photo in readable])
    numbers: dict[str, int] = {}
    apart = np.array([numbers.setdefault(facts.id, len(numbers)) for facts, _ in readable])
    pairs = []
    for copy in find_copies(thumbnails, [photo.digest for _, photo in readable], apart):
        first, second = readable[copy.first][0], readable[copy.second][0]
        overlap = _overlap(first.mask, second.mask, copy.turn.of)
        pairs.append(PairOfCopies(first, second, copy, overlap))
    return pairs


def _overlap(one: Mask | None, other: Mask | None, turn: Callable) -> float | None:
    if one is None or other is None:
        return None
    a, b = one.thumbnail, turn(other.thumbnail)
    either = int((a | b).sum())
    return int((a & b).sum()) / either if either else None


def shared_ids(one: MeasuredDataset, other: MeasuredDataset) -> SharedIds:
    """Compare the images of two datasets that have the same ids."""
    by_id = {facts.id: facts for facts in other.facts}
    pairs = [(facts, by_id[facts.id]) for facts in one.facts if facts.id in by_id]
    photos = [(a.id, a.photo, b.photo) for a, b in pairs if a.photo and b.photo]
    unlike: list[str] = []
    if photos:
        ours = hash_of(waves_of(np.stack([a.thumbnail for _, a, _ in photos])))
        theirs = hash_of(waves_of(np.stack([b.thumbnail for _, _, b in photos])))
        bits = distance(ours, theirs)
        unlike = [key for (key, _, _), n in zip(photos, bits, strict=True) if n > RESAVED]
    crossing = {a.id for a, b in pairs if a.split != b.split} - set(unlike)
    identical = sum(a.digest == b.digest for _, a, b in photos)
    return SharedIds((one.dataset, other.dataset), len(pairs), identical, unlike, len(crossing))
