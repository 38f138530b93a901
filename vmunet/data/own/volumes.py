"""Your own volumes and label maps, for `vmunet.data.volumes.write_volumes`."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from vmunet.data.nifti import check_same_grid, read_labels, read_volume
from vmunet.data.own.split import Sample
from vmunet.data.slices import percentiles, window_ct
from vmunet.data.volumes import Case, Pixels

ADVICE = "name every label in params.yaml's classes, or set the others to 0"


def own_cases(
    samples: Sequence[Sample], classes: int, window: Sequence[float] | None
) -> list[Case]:
    """The samples as cases, not yet read; see `read_case`."""
    return [Case(sample.id, partial(read_case, sample, classes, window)) for sample in samples]


def read_case(sample: Sample, classes: int, window: Sequence[float] | None) -> Pixels:
    """A volume, scaled to 0..1, with its labels 0..classes.

    Args:
        sample: names the files.
        classes: the number of classes without the background.
        window: values that become 0 and 1 (HU, for CT), or None for each volume's own
            percentiles, because values of MR have no unit.

    Raises:
        InputError: a file is broken, a label is of no class, or the two have different grids.
    """
    scan = read_volume(Path(sample.image))
    labels = read_labels(Path(sample.mask), range(classes + 1), ADVICE)
    check_same_grid(scan, labels)
    low, high = window or percentiles(scan.voxels)
    return Pixels(window_ct(scan.voxels, low, high), labels.voxels, scan.spacing)
