"""The sample of ISIC 2017 in examples/isic17/: how it was drawn, and how to make it again.

    VMUNET_MIRROR=/your/mirror python examples/isic17_sample.py [FOLDER]

The rule, for each of the challenge's two parts (training and validation) alone:

1. Of photographs that show the same picture (the repository's own check), one remains: that with
   the lowest id.
2. Only the first series of ids remains: up to ISIC_0000999 in training, and as validation has none
   of these, up to ISIC_0009999 there. The ids are in the order of the challenge's sources. By the
   paper's split the last ids test, so that a small sample of all ids would train on the pictures of
   one source and test on those of others, which 168 images are too few for.
3. All others are put in the order of their lesion's share of the image, and cut into as many equal
   groups as the sample has images. One image of each group is drawn, with a fixed seed. So lesions
   of all sizes are in the sample, as often as they occur.
4. Photographs and masks are resized to 128x128 and written as archives with the official names and
   layout.

Reads  $VMUNET_MIRROR/isic17/: the four archives of the whole challenge. The committed sample was
       made from photographs that were stored at 256x256.
Writes FOLDER (default: examples/isic17): the four archives and ids.txt. It prints the archives'
       SHA-256, which vmunet/data/isic/sample.py holds. The same mirror gives the same bytes.
"""

import argparse
import os
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from vmunet.data.archives import sha256_of
from vmunet.data.checks.copies import find_copies
from vmunet.data.checks.facts import measure_photo
from vmunet.data.download import from_mirror
from vmunet.data.images import read_mask, read_rgb
from vmunet.data.isic.official import ISIC17, MASK_SUFFIX, Archive, Pair
from vmunet.data.isic.raw import from_archives
from vmunet.threads import in_threads

# Images of the two parts, and the first id that is not in their series.
COUNTS = {"training": 228, "validation": 12}
SERIES = {"training": "ISIC_0001000", "validation": "ISIC_0010000"}
SEED, SIDE, QUALITY = 2017, 128, 84  # SIDE in px; QUALITY of JPEG: about 3.5 KB a photograph
FIXED_DATE = (2017, 1, 1, 0, 0, 0)  # in every zip entry, so that a rerun gives the same bytes


def main(folder: Path) -> None:
    """Draw the sample and write it into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        archives = from_mirror(ISIC17, os.environ.get("VMUNET_MIRROR"))
        whole = from_archives(ISIC17, archives, Path(temporary) / "unpacked")
        copies = copies_of(whole.training + whole.validation)
        parts = {"training": whole.training, "validation": whole.validation}
        drawn = {}
        for part, pairs in parts.items():
            series = [p for p in pairs if p.id not in copies and p.id < SERIES[part]]
            drawn[part] = draw(series, COUNTS[part])
        for archive in ISIC17.archives:
            write_archive(folder / archive.name, archive, drawn[archive.part])
            print(f'"{archive.name}": "{sha256_of(folder / archive.name)}",')
    lines = [f"{pair.id} {part}\n" for part, pairs in drawn.items() for pair in pairs]
    (folder / "ids.txt").write_text("".join(lines))


def copies_of(pairs: Sequence[Pair]) -> set[str]:
    """The ids whose photograph shows the same picture as one with a lower id."""
    pairs = sorted(pairs, key=lambda pair: pair.id)
    photos = in_threads(lambda pair: measure_photo(read_rgb(pair.image)[0]), pairs, "measuring")
    thumbnails = np.stack([photo.thumbnail for photo in photos])
    copies = find_copies(thumbnails, [photo.digest for photo in photos])
    return {pairs[copy.second].id for copy in copies}


def draw(pairs: Sequence[Pair], count: int) -> list[Pair]:
    """One pair of each of `count` equal groups by the lesion's share of the image, sorted by id."""
    by_share = sorted(pairs, key=lambda pair: ((read_mask(pair.mask)[0] > 0).mean(), pair.id))
    rng = np.random.default_rng([SEED, count])
    groups = np.array_split(np.arange(len(by_share)), count)
    return sorted((by_share[rng.choice(group)] for group in groups), key=lambda pair: pair.id)


def write_archive(path: Path, archive: Archive, pairs: Sequence[Pair]) -> None:
    """Write the photographs or the masks of `pairs` as the official archive of that kind."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as opened:  # JPEG and PNG are compressed
        for pair in pairs:
            photographs = archive.kind == "images"
            name = f"{pair.id}.jpg" if photographs else f"{pair.id}{MASK_SUFFIX}"
            content = photograph(pair.image) if photographs else mask(pair.mask)
            opened.writestr(zipfile.ZipInfo(f"{archive.folder}/{name}", FIXED_DATE), content)


def photograph(path: Path) -> bytes:
    """The photograph as JPEG, 128x128."""
    pixels = cv2.cvtColor(smaller(read_rgb(path)[0]), cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()


def mask(path: Path) -> bytes:
    """The mask as PNG, 128x128: a pixel is 255 if at least half of it was lesion, otherwise 0."""
    pixels = np.where(smaller(read_mask(path)[0]) >= 128, 255, 0).astype(np.uint8)
    return cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes()


def smaller(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The pixels (height, width, ...) averaged over squares, (128, 128, ...)."""
    return np.asarray(cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", metavar="FOLDER", type=Path, nargs="?", default="examples/isic17")
    main(Path(parser.parse_args().folder))
