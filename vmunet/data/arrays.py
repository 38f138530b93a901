"""The preprocessed arrays as a torch Dataset.

data/arrays/<view>/<protocol>/{train,test}/images.npy  uint8 (n, size, size, 3), 0..255
data/arrays/<view>/<protocol>/{train,test}/masks.npy   uint8 (n, size, size), 255 x target;
                                                               labels if there are several classes
data/arrays/<view>/<protocol>/{train,test}/ids.txt     one id a line, in the arrays' order
data/arrays/<view>/<protocol>/{train,test}/groups.txt  the patient of each image, if known
data/arrays/<view>/<protocol>/manifest.json
"""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from vmunet.errors import InputError

STAGE = "the stage of this view (preprocess, volumes, own_images or own_volumes)"  # it makes arrays
BINARY_LEVEL = 128  # the lowest of the levels 0..255 that is >= 0.5
HELD_OUT_SEED = 20240204  # fixed, so that every run of every seed holds out the same images


class Ids(list[str]):
    """Ids of samples, in order, and the patient of each if they are known."""

    def __init__(self, ids: Iterable[str] = (), patients: Sequence[str] | None = None) -> None:
        super().__init__(ids)
        self.patients = patients


class ArrayDataset(Dataset[tuple[Tensor, Tensor]]):
    """Samples of one subset: `[i] -> (image, mask)`.

    Image float32 (3, size, size), 0..255, min-max normalised; mask float32 (1, size, size), 0..1,
    or, with several classes, labels int64 (size, size), 0 the background.
    Sample i in epoch e is a pure function of (seed, e, i): any number of workers, any order and
    any resume point give the same bits.

    Args:
        folder: data/arrays/<view>/<protocol>.
        subset: `train` or `test`.
        transform: `vmunet.data.augment.Augment`, or None to leave the samples as they are.
        seed: the run's, from which the augmentation of every sample follows.
        classes: the number of classes in the masks, without the background.

    Raises:
        InputError: the arrays are missing or do not fit one another; on reading a sample: its mask
            has a label that is not a class's.
    """

    def __init__(
        self,
        folder: Path | str,
        subset: str,
        transform: Callable[..., tuple[NDArray, NDArray]] | None = None,
        seed: int = 0,
        classes: int = 1,
    ) -> None:
        self.folder = Path(folder) / subset
        self.ids = _read_ids(self.folder)
        self.transform = transform
        self.seed = seed
        self.classes = classes
        # In shared memory: workers that outlive an epoch see `set_epoch` too.
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()
        self._open()

    def _open(self) -> None:
        self.images = _mapped(self.folder / "images.npy")
        self.masks = _mapped(self.folder / "masks.npy")
        if not len(self.ids) == len(self.images) == len(self.masks):
            raise InputError(
                f"{self.folder}: {len(self.ids)} ids, {len(self.images)} images and "
                f"{len(self.masks)} masks; run {STAGE} again"
            )

    def __getstate__(self) -> dict[str, Any]:
        # A worker that is sent this dataset maps the files itself instead of getting a copy.
        return {k: v for k, v in self.__dict__.items() if k not in ("images", "masks")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def __len__(self) -> int:
        return len(self.ids)

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch's augmentation to draw; call it before iterating over a loader."""
        self._epoch[0] = epoch

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, mask = self.images[index], self.masks[index]
        if self.transform is not None:
            image, mask = self.transform(
                np.asarray(image), np.asarray(mask), self.sample_seed(index)
            )
        channels_first = image.transpose(2, 0, 1).astype(np.float32, order="C")
        if self.classes > 1:
            # Checked here, because on a GPU the loss would end the process without a message.
            if (highest := int(mask.max())) > self.classes:
                raise InputError(
                    f"{self.folder}: the mask of {self.ids[index]} has label {highest} and there "
                    f"are {self.classes} classes; make the arrays again"
                )
            return torch.from_numpy(channels_first), torch.from_numpy(mask.astype(np.int64))
        return torch.from_numpy(channels_first), torch.from_numpy(
            mask.astype(np.float32) / np.float32(255)
        )[None]

    def sample_seed(self, index: int) -> int:
        """The seed of sample `index` in the current epoch, 64 bits."""
        words = (self.seed, int(self._epoch[0]), index)
        return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0])


def load_manifest(folder: Path | str) -> dict[str, Any]:
    """The manifest of data/arrays/<view>/<protocol>: what the arrays were made from.

    Raises:
        InputError: the manifest is missing, or it is not JSON.
    """
    path = Path(folder) / "manifest.json"
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{path}: not found; run {STAGE} first") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: not valid JSON ({error}); run {STAGE} again") from None


def held_out(
    ids: Sequence[str], fraction: float = 0.1, seed: int = HELD_OUT_SEED
) -> tuple[list[int], list[int]]:
    """Hold out a part of the training images, by which an epoch is selected (protocol `sound`).

    The choice depends only on the ids, not on their order or the run's seed. If the `Ids` have
    patients, whole patients are held out, and `fraction` is the share of the patients.

    Args:
        ids: of the training images, at least two.
        fraction: share to hold out, in (0, 1); at least one image, and at least one stays.
        seed: a constant.

    Returns:
        (indices that train, indices held out), each ascending.

    Raises:
        InputError: fewer than two ids or patients, or a fraction outside (0, 1).
    """
    patients = ids.patients if isinstance(ids, Ids) else None
    if patients is not None:
        return _held_out_patients(patients, fraction, seed)
    if len(ids) < 2 or not 0 < fraction < 1:
        raise InputError(
            f"cannot hold out {fraction} of {len(ids)} training images; "
            "at least two images and a fraction between 0 and 1 are needed"
        )
    by_id = np.argsort(np.asarray(ids))
    count = min(max(1, round(fraction * len(ids))), len(ids) - 1)
    chosen = by_id[np.random.default_rng(seed).permutation(len(ids))[:count]]
    held = set(chosen.tolist())
    return [i for i in range(len(ids)) if i not in held], sorted(held)


def _held_out_patients(
    patients: Sequence[str], fraction: float, seed: int
) -> tuple[list[int], list[int]]:
    names = sorted(set(patients))
    if len(names) < 2:
        raise InputError(
            "all training images are of one patient; to hold some out (the sound protocol), at "
            "least two patients are needed"
        )
    held_names = {names[i] for i in held_out(names, fraction, seed)[1]}
    training = [i for i, name in enumerate(patients) if name not in held_names]
    held = [i for i, name in enumerate(patients) if name in held_names]
    return training, held


def _read_ids(folder: Path) -> Ids:
    path = folder / "ids.txt"
    if not path.exists():
        raise InputError(f"{path}: not found; run {STAGE} first")
    ids, groups = path.read_text().split(), folder / "groups.txt"
    if not groups.exists():
        return Ids(ids)
    patients = groups.read_text(encoding="utf-8").split("\n")[:-1]
    if len(patients) != len(ids):
        raise InputError(f"{groups}: {len(patients)} lines for {len(ids)} ids; run {STAGE} again")
    return Ids(ids, patients)


def _mapped(path: Path) -> NDArray[np.uint8]:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: cannot be read ({error}); run {STAGE} again") from None
