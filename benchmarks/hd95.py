"""Seconds to score a CT volume with eight organs: plain medpy, cropped, and in threads.

Run it on an idle machine, from the repository's root; it takes about ten minutes, nearly all of
them in medpy:

    python -m benchmarks.hd95

HD95 needs, for every surface voxel of the prediction, the distance to the nearest surface voxel of
the truth, and the reverse. `medpy` computes it as the published code does: for each organ two
distance transforms and four erosions of the whole volume. An organ fills a few percent of that, and
only its surface is needed. `vmunet.evaluation.volume_metrics.score_case` cuts each organ to its
box and computes distances only at the surface. The scores must be equal to the last bit; the
benchmark ends with an error if they are not.

There are two comparisons, with medians over rounds in which the candidates alternate. The first is
medpy against `score_case` in one thread, both for Dice and HD95 in voxels. The second is
`score_case` in one thread and in several, in voxels alone and with mm (a second pair of distance
transforms, and the normalised surface distance). scipy's distance transform releases Python's lock,
so that threads are as fast as processes, without copies. The liver is half of the work, so a
thread's task is not an organ, but one direction of one organ.

Organs are ellipsoids with a wavy surface, about as large and as far apart as in a body at
3 x 0.75 x 0.75 mm; predictions are the same, moved by a few voxels and with another wave.
"""

import importlib.metadata
import os

import numpy as np
import numpy.typing as npt

from benchmarks.measure import arguments, interleaved, write
from vmunet.evaluation.volume_metrics import score_case

SPACING = (3.0, 0.75, 0.75)  # mm along (depth, height, width)
SHAPE = (150, 512, 512)
# Centre and half axes as parts of the volume's (depth, height, width)
ORGANS = {
    "aorta": ((0.50, 0.58, 0.50), (0.40, 0.025, 0.025)),
    "gallbladder": ((0.45, 0.38, 0.36), (0.07, 0.035, 0.03)),
    "left kidney": ((0.40, 0.62, 0.68), (0.13, 0.07, 0.06)),
    "right kidney": ((0.37, 0.62, 0.32), (0.13, 0.07, 0.06)),
    "liver": ((0.62, 0.45, 0.28), (0.18, 0.19, 0.18)),
    "pancreas": ((0.46, 0.46, 0.52), (0.06, 0.04, 0.13)),
    "spleen": ((0.62, 0.60, 0.75), (0.13, 0.10, 0.06)),
    "stomach": ((0.62, 0.38, 0.62), (0.14, 0.10, 0.12)),
}


def organs(shape: tuple[int, int, int], shift: int, wave: float) -> npt.NDArray[np.uint8]:
    """Labels (depth, height, width): 0 the background, then `ORGANS` in their order.

    Args:
        shift: voxels by which every organ is moved along height and width.
        wave: phase of the surface's wave, in radians.
    """
    grid = np.ogrid[tuple(slice(length) for length in shape)]
    labels = np.zeros(shape, np.uint8)
    for label, (centre, half) in enumerate(ORGANS.values(), start=1):
        radius: npt.NDArray = np.zeros(1)
        ripple: npt.NDArray = np.zeros(1)
        for axis, length in enumerate(shape):
            x = (grid[axis] - centre[axis] * length - (shift if axis else 0)) / length
            radius = radius + (x / half[axis]) ** 2
            ripple = ripple + np.sin(9 * x / half[axis] + wave)
        labels[radius < 1 + 0.1 * ripple] = label
    return labels


def medpy_scores(prediction: npt.NDArray, truth: npt.NDArray) -> npt.NDArray[np.float64]:
    """Dice and HD95 in voxels of every organ over the whole volume: (2, organs)."""
    from medpy.metric import binary

    scores = []
    for organ in range(1, len(ORGANS) + 1):
        predicted, true = prediction == organ, truth == organ
        scores.append((binary.dc(predicted, true), binary.hd95(predicted, true)))
    return np.array(scores).T


def main() -> None:
    parser = arguments(__doc__, "hd95.json", rounds=3, threads=False)
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count(), help="threads (default: all cores)"
    )
    parser.add_argument("--shape", type=int, nargs=3, default=SHAPE, help="(default: 150 512 512)")
    options = parser.parse_args()
    truth, prediction = organs(options.shape, 0, 0.0), organs(options.shape, 3, 0.8)
    classes = len(ORGANS) + 1
    results: dict[str, npt.NDArray] = {}

    def medpy() -> None:
        results["medpy"] = medpy_scores(prediction, truth)

    def cropped(workers: int = 1, spacing: tuple[float, ...] | None = None) -> None:
        scores = score_case(prediction, truth, classes, spacing, workers=workers)
        results["cropped"] = np.stack([scores.paper_dice, scores.paper_hd95])

    against = interleaved({"medpy": medpy, "cropped": cropped}, options.rounds)
    if not np.array_equal(results["medpy"], results["cropped"]):
        raise SystemExit(f"scores differ: {results}")
    faster = against["medpy"] / against["cropped"]
    print(f"{'x'.join(map(str, options.shape))} voxels, {len(ORGANS)} organs, equal scores")
    print(f"medpy {against['medpy']:.2f} s, cropped {against['cropped']:.2f} s: {faster:.0f}x")

    threads = {}
    candidates = {
        f"{unit}, {workers}": lambda workers=workers, spacing=spacing: cropped(workers, spacing)
        for unit, spacing in (("voxels", None), ("voxels and mm", SPACING))
        for workers in dict.fromkeys((1, options.workers))
    }
    seconds = interleaved(candidates, 3 * options.rounds)  # they are short
    for unit in ("voxels", "voxels and mm"):
        one, several = seconds[f"{unit}, 1"], seconds[f"{unit}, {options.workers}"]
        threads[unit] = {"one": one, "several": several, "faster": one / several}
        print(f"{unit}: 1 thread {one:.2f} s, {options.workers} {several:.2f} s")
    write(
        options.output,
        {
            "libraries": {name: importlib.metadata.version(name) for name in ("medpy", "scipy")},
            "shape": list(options.shape),
            "organs": {
                name: int(np.count_nonzero(truth == label))
                for label, name in enumerate(ORGANS, start=1)
            },
            "rounds": options.rounds,
            "against_medpy": {"seconds": against, "faster": faster},
            "workers": options.workers,
            "threads_seconds": threads,
        },
    )


if __name__ == "__main__":
    main()
