"""The figure of effective receptive fields, where they were measured."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from reports.make.figures.runs import Drawn, Runs
from reports.make.results.data import count
from vmunet.drawing.figures import fields
from vmunet.errors import InputError

AGAIN = "measure it again, or delete the file"


def receptive_fields(runs: Runs) -> Iterator[Drawn]:
    """A figure for each view of grid.profiled that has a run to measure."""
    for view in runs.params.grid.profiled:
        metrics = runs.root / "metrics" / runs.params.profile_name
        path = metrics / view / "receptive_field.npz"
        found = _read(path) if path.exists() else None
        if found is not None:
            yield _of_view(runs, view, path, found)


def _of_view(runs: Runs, view: str, path: Path, found: dict[str, np.ndarray]) -> Drawn:
    name = str(found["run"])
    results = [result for result in runs.results if result.run.name == name]
    if not results:
        raise InputError(f"{path}: is of the run {name}, which the grid does not have; {AGAIN}")
    maps = {key: found[key] for key in fields.NAMES}
    areas = {key: [float(value) for value in found[key]] for key in ("r50", "r99", "centres")}
    images = int(found["images"])
    before, after = (areas["r99"][fields.NAMES.index(f"{m}_output")] for m in ("before", "after"))
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
        "Four heat maps of the image's pixels. At the output 99% of the contribution lies in "
        f"{fields.percent(before)} of the image before and {fields.percent(after)} after training.",
        results,
        fields.draw(maps, areas, runs.warning(results)),
    )


def _read(path: Path) -> dict[str, np.ndarray] | None:
    """The file's arrays; None where it says that no run was measured."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            if int(archive["images"]) == 0:
                return None
            found = {
                name: archive[name]
                for name in (*fields.NAMES, "r50", "r99", "centres", "images", "run")
            }
    except (KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not receptive fields ({error}); {AGAIN}") from None
    squares = [found[name] for name in fields.NAMES]
    fit = all(m.ndim == 2 and m.shape == squares[0].shape for m in squares)
    if not fit or squares[0].shape[0] != squares[0].shape[1]:
        raise InputError(f"{path}: its maps are not squares of one size; {AGAIN}")
    if not all(np.isfinite(m).all() and (m >= 0).all() and m.max() > 0 for m in squares):
        raise InputError(f"{path}: a map holds other things than contributions; {AGAIN}")
    for name in ("r50", "r99"):
        share = found[name]
        if share.shape != (len(fields.NAMES),) or not ((share > 0) & (share <= 1)).all():
            raise InputError(f"{path}: '{name}' does not hold four shares of an area; {AGAIN}")
    if not ((found["centres"] >= 0) & (found["centres"] < len(squares[0]))).all():
        raise InputError(f"{path}: 'centres' lie outside of the maps; {AGAIN}")
    return found
