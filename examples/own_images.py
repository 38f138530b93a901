"""An example of your own images: 48 phantom lesions of 24 patients, as plain folders.

    python examples/own_images.py [FOLDER]

Writes FOLDER/images/*.jpg, FOLDER/masks/*.png and FOLDER/patients.csv (id, patient), and prints
the lines that declare them in params.yaml. The default FOLDER is data/example. Phantoms
are procedural pictures: a model's scores on them say nothing about skin.
"""

import argparse
import csv
from pathlib import Path

import cv2

from vmunet.data.phantom.lesions import phantom

IMAGES, PER_PATIENT, SEED = 48, 2, 5
HEIGHT, WIDTH = 96, 128  # px
LINES = """\
Declare it in params.yaml, in place of own's `images: {{}}`:

  images:
    lesions:
      images: {folder}/images
      masks: {folder}/masks
      classes: [lesion]
      split: {{test: 0.25, csv: {folder}/patients.csv}}
      size: 64

Then: dvc repro evaluate_own_images@lesions-scratch-sound-42
"""


def main(folder: Path) -> None:
    """Write the example into `folder`."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    rows = [("id", "patient")]
    for index in range(IMAGES):
        made, key = phantom(SEED, index, HEIGHT, WIDTH), f"lesion{index:02}"
        image = cv2.cvtColor(made.image, cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(folder / "images" / f"{key}.jpg"), image)
        cv2.imwrite(str(folder / "masks" / f"{key}.png"), made.mask)
        rows.append((key, f"patient{index // PER_PATIENT:02}"))
    with open(folder / "patients.csv", "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    print(LINES.format(folder=folder.as_posix()), end="")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", metavar="FOLDER", type=Path, nargs="?", default="data/example")
    main(Path(parser.parse_args().folder))
