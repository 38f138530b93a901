"""The figure of effective receptive fields, if they were measured."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from reports.make.figures.runs import Drawn, Runs
from reports.make.files import trusted
from reports.make.results.metrics import Result
from reports.make.typeset.words import count
from vmunet.drawing.figures import fields
from vmunet.errors import InputError


def receptive_fields(runs: Runs) -> Iterator[Drawn]:
    """A figure for each view of grid.profiled that has a run to measure."""
    for view in runs.params.grid.profiled:
        metrics = runs.root / "metrics" / runs.params.profile_name
        path = metrics / view / "receptive_field.npz"
        again = f"run `python -m stages.receptive_field {view}`"
        arrays = _read(path, again) if path.exists() else None
        if arrays is None:
            continue
        name = str(arrays["run"])
        results = [result for result in runs.results if result.run.name == name]
        if not results:
            raise InputError(
                f"{path}: is of the run {name}, which the grid does not have; {again}, or delete "
                "the file"
            )
        yield _of_view(runs, view, results, arrays)


def _of_view(
    runs: Runs, view: str, results: Sequence[Result], arrays: Mapping[str, np.ndarray]
) -> Drawn:
    name = results[0].run.name
    maps = {key: arrays[key] for key in fields.NAMES if key in arrays}
    areas = {key: [float(value) for value in arrays[key]] for key in ("r50", "r99", "centres")}
    images = int(arrays["images"])
    before, after = (areas["r99"][list(maps).index(f"{m}_output")] for m in ("before", "after"))
    size = len(maps["before_output"])
    return Drawn(
        f"receptive-fields-{view}",
        f"Effective receptive fields: {runs.title(view)}",
        "How much each pixel of the input contributes to the central position of a map (of index "
        "n // 2 of n along both axes): the mean absolute gradient over "
        f"{count(images, 'image')} at {size}×{size}, on a logarithmic scale over {fields.DECADES} "
        f"decades, before and after training (run {name}). The squares "
        "are the smallest ones around that position that hold 50% (solid) and 99% (dashed) of the "
        f"contribution; beneath, their share of the image's area. {runs.source(results)}",
        f"{'Four' if len(maps) == 4 else 'Two'} heat maps of the image's pixels. At the output 99% "
        f"of the contribution lies in {fields.percent(before)} of the image before and "
        f"{fields.percent(after)} after training.",
        results,
        fields.draw(maps, areas, runs.warning(results)),
    )


def _read(path: Path, again: str) -> dict[str, np.ndarray] | None:
    """The file's arrays, of VM-UNet with the bottleneck's maps; None if no run was measured."""
    with trusted(path, "receptive fields", again), np.load(path, allow_pickle=False) as archive:
        if int(archive["images"]) == 0:
            return None
        maps = fields.NAMES if fields.NAMES[0] in archive else fields.NAMES[2:]
        names = (*maps, "r50", "r99", "centres", "images", "run")
        return {name: archive[name] for name in names}
