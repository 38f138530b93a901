"""A checkpoint as a service: an encoded image or volume in, an encoded mask or label map out.

What `vmunet.inference.images` and `vmunet.inference.volumes` say of sizes and values is true here
too.
"""

import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vmunet.errors import InputError

# The environment variable of a folder: who starts a server lets it read the volumes in there.
FOLDER = "VMUNET_SERVED_FOLDER"


@dataclass(frozen=True)
class Answer:
    """The result of a segmentation.

    Attributes:
        content: a PNG of the image's own size (one class: 0 or 255; several: labels), or a
            .nii.gz of labels on the volume's own grid.
        amounts: each class's share of the image's pixels, 0..1, or each organ's ml.
    """

    content: bytes
    amounts: dict[str, float]


class Segmenter:
    """The model of one checkpoint.

    Attributes:
        volumes: whether it takes volumes, and not images.
        windows: whether it sees volumes in windows, for which MONAI is needed.
        amounts: the keys of an answer's amounts: `<class>_fraction`, or `<organ>_ml`.

    Raises:
        InputError: see `vmunet.inference.predictor.Predictor.from_checkpoint`.
    """

    def __init__(self, weights: Path, device: str | None = None) -> None:
        from vmunet.inference.predictor import Predictor

        self._predictor = Predictor.from_checkpoint(weights, device)
        self.volumes = self._predictor.volumes
        self.windows = self._predictor.patch is not None
        unit = "ml" if self.volumes else "fraction"
        self.amounts = [f"{name}_{unit}" for name in self._predictor.classes]

    def __call__(self, content: bytes) -> Answer:
        """Segment a file's content: PNG, JPEG, TIFF, BMP or WebP, or .nii or .nii.gz.

        Raises:
            InputError: the content cannot be read.
        """
        with tempfile.TemporaryDirectory() as folder:
            # the readers need files, and their names tell .nii from .nii.gz
            suffix = ".nii.gz" if content[:2] == b"\x1f\x8b" else ".nii"
            path = Path(folder, f"volume{suffix}" if self.volumes else "image")
            path.write_bytes(content)
            return self._volume(path) if self.volumes else self._image(path)

    def _image(self, path: Path) -> Answer:
        import cv2

        from vmunet.inference.files import read_photo

        labels = self._predictor(read_photo(path)).labels
        fractions = [float((labels == k).mean()) for k in range(1, len(self.amounts) + 1)]
        _, png = cv2.imencode(".png", 255 * labels if len(self.amounts) == 1 else labels)
        return Answer(png.tobytes(), dict(zip(self.amounts, fractions, strict=True)))

    def _volume(self, path: Path) -> Answer:
        from vmunet.data.nifti import read_volume, write_labels
        from vmunet.inference.tables import VolumePrediction

        volume = read_volume(path)
        labels = self._predictor(volume.voxels).labels
        out = path.with_name("labels.nii.gz")
        write_labels(out, labels, volume)
        rows = VolumePrediction.each(path, labels, self._predictor.classes, volume.voxel_ml)
        return Answer(out.read_bytes(), {f"{row.organ}_ml": row.ml for row in rows})


def example(volumes: bool) -> bytes:
    """A small made-up input: a PNG of a dark disc on a bright ground, or a .nii.gz of 2 slices."""
    rows, columns = np.mgrid[:48, :64]
    disc = (rows - 24) ** 2 + (columns - 32) ** 2 < 14**2
    if not volumes:
        import cv2

        plane = np.where(disc, 90, 200).astype(np.uint8)
        _, png = cv2.imencode(".png", np.stack([plane // 2, plane // 2, plane], axis=-1))
        return png.tobytes()
    import nibabel

    voxels = np.where(disc, 60, -80).astype(np.int16)
    image = nibabel.Nifti1Image(np.stack([voxels, voxels], axis=-1), np.diag([1.0, 1.0, 3.0, 1.0]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "example.nii.gz")
        nibabel.save(image, path)
        return path.read_bytes()


def read_input(text: str, volumes: bool) -> bytes:
    """The content that a text stands for: base64, or a volume's path in the folder of FOLDER.

    Without that environment variable no path is read: who asks a server may not name its files.

    Raises:
        InputError: the text is neither. The message does not tell which files there are.
    """
    import base64
    import binascii

    folder = os.environ.get(FOLDER, "") if volumes else ""
    try:
        if folder and text.endswith((".nii", ".nii.gz")):
            return read_inside(Path(folder), text)
        return base64.b64decode(text, validate=True)
    except (OSError, binascii.Error, ValueError):
        paths = f", or the path of a .nii or .nii.gz file in the folder of {FOLDER}"
        expected = "base64" + (paths if folder else "")
        raise InputError(f"{text[:40]!r}: expected {expected}") from None


def read_inside(folder: Path, name: str) -> bytes:
    """The content of a plain file in `folder` or its subfolders, after links are resolved.

    Raises:
        OSError, ValueError: there is no such file, it lies outside, or it is no plain file.
    """
    inside = folder.resolve(strict=True)
    path = (inside / name).resolve(strict=True)
    if not path.is_relative_to(inside):
        raise ValueError("outside the folder")
    # a pipe would keep the server waiting, and a link may have come since
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    with open(number, "rb") as file:
        if not stat.S_ISREG(os.fstat(number).st_mode):
            raise ValueError("not a plain file")
        return file.read()
