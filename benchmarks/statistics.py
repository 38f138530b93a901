"""Seconds for intervals and paired tests of 808 images: one draw at a time, and by matrix products.

Run it on an idle machine, from the repository's root; it takes half a minute:

    python -m benchmarks.statistics

A bootstrap resample is a number of times that each image counts, a permutation is a 0 or 1 for
each image: every score of all draws comes from a few matrix products. The plain way draws,
indexes and scores one after the other. Both compute all eleven scores of the images; the bootstraps
use the same draws, and the benchmark ends with an error if the intervals differ.

ISIC18 has 808 test images, the most of the paper's data; Synapse has 12 test cases, of which all
4096 swaps are made. Seconds are medians over rounds in which the candidates alternate.
"""

import numpy as np
import numpy.typing as npt

from benchmarks.measure import arguments, interleaved, write
from vmunet.evaluation.metrics import interval, mean_scores, pooled_scores
from vmunet.evaluation.samples import RESAMPLES, CaseSample, ImageSample
from vmunet.evaluation.statistics import DRAWS, intervals, paired, permutation_p

IMAGES, CASES, ORGANS = 808, 12, 8
SIDE = 256


def counts(seeds: int, shift: float) -> npt.NDArray[np.int64]:
    """Counts (seeds, images, 4) of lesions of many sizes; a larger `shift` gives lower scores."""
    rng = np.random.default_rng(0)
    lesion = rng.integers(1, SIDE**2 // 2, IMAGES)
    missed = (lesion * np.clip(shift + rng.normal(0.1, 0.1, (seeds, IMAGES)), 0, 1)).astype(int)
    added = (lesion * np.clip(rng.normal(0.1, 0.1, (seeds, IMAGES)), 0, 1)).astype(int)
    tp = lesion - missed
    return np.stack([tp, added, missed, SIDE**2 - tp - added - missed], axis=-1)


def plain_intervals(of: npt.NDArray[np.int64]) -> dict[str, tuple[float, float]]:
    """The result of `intervals` for one seed, one resample at a time."""
    rng = np.random.default_rng(0)
    resamples = []
    for _ in range(RESAMPLES):
        drawn = of[rng.integers(len(of), size=len(of))]
        resamples.append(pooled_scores(drawn) | mean_scores(drawn))
    return {name: interval(np.array([s[name] for s in resamples])) for name in resamples[0]}


def plain_test(a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]) -> dict[str, float]:
    """The result of `permutation_p` for one seed each, one permutation at a time."""
    rng = np.random.default_rng(0)

    def differences(one: npt.NDArray, other: npt.NDArray) -> npt.NDArray[np.float64]:
        first = pooled_scores(one) | mean_scores(one)
        second = pooled_scores(other) | mean_scores(other)
        return np.array([second[name] - first[name] for name in first])

    observed = abs(differences(a, b))
    hits = np.zeros(len(observed))
    for _ in range(DRAWS):
        swapped = (rng.random(len(a)) < 0.5)[:, None]
        hits += abs(differences(np.where(swapped, b, a), np.where(swapped, a, b))) >= observed
    names = pooled_scores(a) | mean_scores(a)
    return dict(zip(names, (1 + hits) / (1 + DRAWS), strict=True))


def main() -> None:
    options = arguments(__doc__, "statistics.json", rounds=3, threads=False).parse_args()
    a, b = ImageSample(counts(1, 0.0)), ImageSample(counts(1, 0.01))
    three = ImageSample(counts(3, 0.01))
    rng = np.random.default_rng(1)
    organs = tuple(f"organ {i}" for i in range(ORGANS))
    dice = rng.random((1, CASES, ORGANS))
    cases, others = (CaseSample(values, organs) for values in (dice, dice**1.1))
    slow, fast = plain_intervals(a.counts[0]), intervals(a)
    for name, ends in slow.items():
        if not np.allclose(ends, fast[name]):
            raise SystemExit(f"intervals of {name} differ: {ends} and {fast[name]}")
    seconds = interleaved(
        {
            "intervals, plain": lambda: plain_intervals(a.counts[0]),
            "intervals": lambda: intervals(a),
            "intervals, 3 seeds": lambda: intervals(three),
            "test, plain": lambda: plain_test(a.counts[0], b.counts[0]),
            "test": lambda: permutation_p(a, b),
            "test, 3 seeds against 1": lambda: permutation_p(a, three),
            "paired difference with interval and test": lambda: paired(a, b),
            "12 cases: intervals": lambda: intervals(cases),
            "12 cases: test": lambda: permutation_p(cases, others),
        },
        options.rounds,
    )
    for name, value in seconds.items():
        print(f"{name:42} {value:7.3f} s")
    write(
        options.output,
        {
            "images": IMAGES,
            "cases": CASES,
            "organs": ORGANS,
            "resamples": RESAMPLES,
            "draws": DRAWS,
            "scores": len(fast),
            "rounds": options.rounds,
            "seconds": seconds,
            "faster": {
                name: seconds[f"{name}, plain"] / seconds[name] for name in ("intervals", "test")
            },
        },
    )


if __name__ == "__main__":
    main()
