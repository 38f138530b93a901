"""How often intervals from few test units hold the true score: a simulation.

Run it from the repository's root; it takes a few minutes of one core:

    python -m benchmarks.coverage         # then: python -m benchmarks.plot

Draws small test sets again and again: cases of CT with the Dice of eight organs, of which a few
fail; cases with the HD95 of eight organs, which is skewed; images, scored by the pooled DSC; images
of which one in twelve is missed, scored by the mean Dice. For each the 95% interval is computed in
three ways, and counted is how often it holds the score of all cases that there could be:

percentile    the middle 95% of the scores of resamples
bca           the same, corrected for bias and acceleration (Efron 1987)
studentized   `vmunet.evaluation.few_units`, which is used with fewer than 30 units; it may give no
              interval, and coverage and width are of the others
"""

from collections.abc import Callable

import numpy as np
from scipy.special import ndtr, ndtri
from tqdm import tqdm

from benchmarks.measure import arguments, write
from vmunet.evaluation.few_units import studentized
from vmunet.evaluation.metrics import Floats, interval
from vmunet.evaluation.samples import MEAN, CaseSample, ImageSample, Sample

UNITS = (6, 12, 20, 29)
RESAMPLES = 1000
LEVELS = np.array([2.2, 0.9, 1.8, 1.7, 3.0, 0.4, 2.3, 1.5])  # logits of the organs' Dice
TRUTH = 200_000  # units behind the true score


def dice_of_cases(generator: np.random.Generator, n: int) -> CaseSample:
    """Dice that a case's quality moves in all organs; one organ in 25 is nearly missed."""
    logit = LEVELS + generator.normal(0, 0.5, (n, 1)) + generator.normal(0, 0.7, (n, len(LEVELS)))
    missed = generator.random(logit.shape) < 0.04
    return of_organs(np.where(missed, 0.1, 1.0) / (1 + np.exp(-logit)), 1.0)


def distances_of_cases(generator: np.random.Generator, n: int) -> CaseSample:
    """Lognormal distances, in voxels."""
    logarithm = generator.normal(2.2, 0.9, (n, len(LEVELS))) + generator.normal(0, 0.4, (n, 1))
    return of_organs(np.exp(logarithm), np.inf)


def of_organs(values: Floats, highest: float) -> CaseSample:
    """Cases by the mean of their organs, whose mean is the score: (cases, organs)."""
    return CaseSample(values.mean(1)[None, :, None], ("all",), highest=highest)


def counts_of_images(generator: np.random.Generator, n: int) -> ImageSample:
    """Counts of images of 256 px with lesions of many sizes."""
    pixels = 256**2
    lesion = np.minimum(np.exp(generator.normal(-2, 0.8, n)), 0.8) * pixels
    hit = lesion / (1 + np.exp(-generator.normal(2, 1, n)))
    added = 0.1 * lesion * np.exp(generator.normal(0, 0.5, n))
    table = np.stack(
        [hit, added, lesion - hit, pixels - np.minimum(lesion + added, pixels)], axis=-1
    )
    return ImageSample(np.rint(table).astype(np.int64)[None])


def missed_images(generator: np.random.Generator, n: int) -> CaseSample:
    """Dice of images that are nearly all segmented well; one in twelve is missed altogether."""
    dice = generator.beta(20, 2, n)
    return of_organs(np.where(generator.random(n) < 1 / 12, 0.0, dice)[:, None], 1.0)


Draw = Callable[[np.random.Generator, int], Sample]
KINDS: dict[str, tuple[Draw, str]] = {
    "Dice of cases": (dice_of_cases, MEAN),
    "HD95 of cases": (distances_of_cases, MEAN),
    "pooled DSC of images": (counts_of_images, "dsc"),
    "Dice, 1 in 12 missed": (missed_images, MEAN),
}


def intervals_of(sample: Sample, score: str) -> dict[str, tuple[float, float]]:
    values = sample.resampled(RESAMPLES)[score]
    return {
        "percentile": interval(values),
        "bca": bca(sample, score, values),
        "studentized": studentized([sample], RESAMPLES)[score],
    }


def bca(sample: Sample, score: str, values: Floats) -> tuple[float, float]:
    """The bias-corrected and accelerated interval, from scores of resamples."""
    estimate = sample.scores()[score]
    parts = sample.parts()
    left_out = sample.of_sums(parts.sum(0) - parts)[score]
    deviations = left_out.mean() - left_out
    acceleration = (deviations**3).sum() / (6 * (deviations**2).sum() ** 1.5)
    bias = ndtri((np.count_nonzero(values < estimate) + 0.5) / (len(values) + 1))
    ends = bias + ndtri(np.array([0.025, 0.975]))
    low, high = np.quantile(values, ndtr(bias + ends / (1 - acceleration * ends)))
    return float(low), float(high)


def row(kind: str, units: int, simulations: int) -> dict[str, object]:
    """Each way's coverage, its mean width in units of the percentile interval's, and how often it
    gives an interval."""
    draw, score = KINDS[kind]
    truth = draw(np.random.default_rng(0), TRUTH).scores()[score]
    ends: dict[str, list[tuple[float, float]]] = {}
    for seed in range(simulations):
        sample = draw(np.random.default_rng([1, seed]), units)
        for name, interval_of in intervals_of(sample, score).items():
            ends.setdefault(name, []).append(interval_of)
    low, high = np.moveaxis(np.array(list(ends.values())), -1, 0)  # (ways, simulations)
    given = ~np.isnan(low)
    held = ((low <= truth) & (truth <= high)).sum(1) / given.sum(1)
    width = np.nanmean(high - low, axis=1)
    by_name = {"coverage": held, "width": width / width[0], "given": given.mean(1)}
    return {"kind": kind, "units": units} | {
        key: dict(zip(ends, map(float, values), strict=True)) for key, values in by_name.items()
    }


def main() -> None:
    parser = arguments(__doc__, "coverage.json", rounds=None, threads=False)
    parser.add_argument("--simulations", type=int, default=400, help="of each row (default: 400)")
    options = parser.parse_args()
    settings = [(kind, units) for kind in KINDS for units in UNITS]
    rows = [row(*setting, options.simulations) for setting in tqdm(settings, disable=None)]
    for of in rows:
        print(of)
    write(
        options.output,
        {"simulations": options.simulations, "resamples": RESAMPLES, "level": 0.95, "rows": rows},
    )


if __name__ == "__main__":
    main()
