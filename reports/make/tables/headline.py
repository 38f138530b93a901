"""A run's headline scores: so few that a person can read their difference between two revisions.

`dvc metrics diff` and `dvc exp show` print a line or column for every number in a metrics file,
and a run's metrics.json holds over a hundred.
"""

from collections.abc import Sequence

from reports.make.results.metrics import ImageResult, Result

OF_IMAGES = ("miou",)
OF_VOLUMES = ("dsc", "hd95")


def headline_scores(results: Sequence[Result]) -> dict[str, dict[str, dict[str, float]]]:
    """View -> cell, protocol and seed -> score: percent to 2 decimals, HD95 in voxels.

    For images these are the paper's mIoU and the sound mean Dice at the masks' own size; for
    volumes the paper's DSC and HD95.
    """
    by_view: dict[str, dict[str, dict[str, float]]] = {}
    for result in results:
        run = result.run
        names = OF_IMAGES if isinstance(result, ImageResult) else OF_VOLUMES
        scores = {
            name: round(result.scores[name] * (1 if name == "hd95" else 100), 2)
            for name in names
            if name in result.scores
        }
        if isinstance(result, ImageResult):
            mean = result.sound["native_size"]["mean_dice"].value
            if mean is not None:
                scores["mean_dice"] = round(100 * mean, 2)
        by_view.setdefault(run.view, {})[f"{run.cell}-{run.protocol}-{run.seed}"] = scores
    return by_view
