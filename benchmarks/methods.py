"""How often tests call two methods different, if they are and if they are not: a simulation.

Run it from the repository's root; it takes a few minutes of one core:

    python -m benchmarks.methods          # then: python -m benchmarks.plot

Each simulated method is trained with some seeds and tested on 650 images, those of ISIC17. A run's
logit of the recall on an image is the sum of the image's difficulty, of what the method makes of
the image, of the run's own shift and of noise; false positives fall with it. The parts are chosen
so that the pooled mIoU varies as measured scores do: by 1.5 points over the choice of images, by
0.4 between two models on the same images, and by 0.83 between two trainings of one method.

Tests at the level 0.05 (`vmunet.evaluation` has the first and the last):

images        permutation of the two methods' results image by image, the seeds' means
seeds         Welch's t test on the seeds' scores alone
bootstrap     interval from resamples of seeds and images together
methods       Welch's t test with the images' variance added

With no difference the share of simulations in which a test finds one is its type I error; with a
difference it is its power. `inside` counts the verdict of earlier versions: how often the image
interval of a model that is worse by 1.5 points still holds the other's score on the same images.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.special import stdtr
from tqdm import tqdm

from benchmarks.measure import arguments, write
from vmunet.evaluation.metrics import Floats, interval, ratio, resampling_weights
from vmunet.evaluation.runs import methods
from vmunet.evaluation.statistics import permutation_p

IMAGES, SPREAD, LEVEL = 650, 0.83, 0.05
IMAGE, METHOD, NOISE = 2.0, 0.2, 0.28  # standard deviations of the parts of the logit
BASE = 2.8  # the level of a method with a mIoU of about 0.81
DRAWS = 400  # of a permutation or bootstrap
SPREADS = {"equal": (SPREAD, SPREAD), "unequal": (0.4, 1.2), "none": (0.0, 0.0)}
DIFFERENCES = (1.0, 1.5, 3.0)
SEEDS = (1, 2, 3, 5)


@dataclass(frozen=True)
class Iou:
    """A sample of the pooled mIoU alone: shares of intersection and union, (seeds, images, 2)."""

    shares: Floats
    highest: float = 1.0

    @property
    def units(self) -> int:
        return self.shares.shape[1]

    @property
    def seeds(self) -> int:
        return len(self.shares)

    def of_seeds(self) -> dict[str, Floats]:
        return self.of_sums(self.shares.sum(1))

    def scores(self) -> dict[str, float]:
        return {name: float(of.mean()) for name, of in self.of_seeds().items()}

    def resampled(self, resamples: int = DRAWS) -> dict[str, Floats]:
        raise NotImplementedError

    def parts(self) -> Floats:
        return self.shares.mean(0)

    def of_sums(self, sums: Floats) -> dict[str, Floats]:
        return {"miou": ratio(sums[..., 0], sums[..., 1], undefined=0.0)}


def method(
    generator: np.random.Generator,
    images: tuple[Floats, Floats],
    seeds: int,
    level: float,
    spread: float,
) -> Iou:
    """A method of some level, whose runs vary by `spread` (both of the logit)."""
    lesion, difficulty = images
    logit = level + difficulty + generator.normal(0, METHOD, len(lesion))
    logit = logit + generator.normal(0, 1, (seeds, 1)) * spread
    logit = logit + generator.normal(0, NOISE, (seeds, len(lesion)))
    hit = lesion / (1 + np.exp(-logit))
    added = 0.1 * lesion * np.exp(-0.3 * logit)
    return Iou(np.stack([hit, lesion + added], axis=-1))


def images_of(generator: np.random.Generator, n: int) -> tuple[Floats, Floats]:
    """Lesions, as shares of the image, and their difficulty."""
    return np.exp(generator.normal(-2.0, 1.1, n)), generator.normal(0, IMAGE, n)


def logits_of_a_point() -> float:
    """By how many logits a method's level differs if its mIoU differs by a point."""

    def score(level: float) -> float:
        generator = np.random.default_rng(0)
        return method(generator, images_of(generator, 200_000), 1, level, 0.0).scores()["miou"]

    return 0.2 / (100 * (score(BASE + 0.1) - score(BASE - 0.1)))


def found(a: Iou, b: Iou, generator: np.random.Generator) -> dict[str, bool]:
    """Which tests call two methods different; those that the number of seeds allows."""
    by_test = {"images": permutation_p(a, b, DRAWS)["miou"] < LEVEL}
    if a.seeds == 1:
        return by_test
    one, other = a.of_seeds()["miou"], b.of_seeds()["miou"]
    return by_test | {
        "seeds": welch(one, other) < LEVEL,
        "bootstrap": not holds(two_level(a, b, generator), 0.0),
        "methods": methods(a, b)["miou"].p < LEVEL,
    }


def welch(one: Floats, other: Floats) -> float:
    parts = [of.var(ddof=1) / len(of) for of in (one, other)]
    squares = [part**2 / (len(one) - 1) for part in parts]  # as many seeds of both
    freedom = sum(parts) ** 2 / sum(squares)
    return float(2 * stdtr(freedom, -abs(one.mean() - other.mean()) / np.sqrt(sum(parts))))


@cache
def weights() -> Floats:
    """How often each image is drawn; the same resamples in every simulation, as in a report."""
    return np.concatenate(list(resampling_weights(IMAGES, DRAWS)))


def resampled(shares: Floats) -> Floats:
    """The mIoU of resamples of one run's images, (DRAWS,)."""
    hit, union = (weights() @ shares).T
    return ratio(hit, union, undefined=0.0)


def two_level(a: Iou, b: Iou, generator: np.random.Generator) -> tuple[float, float]:
    """The 95% interval of b minus a over resamples of seeds and images."""
    scores = []
    for of in (a, b):
        drawn = generator.integers(of.seeds, size=(DRAWS, of.seeds))
        by_seed = np.stack([resampled(s) for s in of.shares])
        scores.append(by_seed[drawn, np.arange(DRAWS)[:, None]].mean(1))
    return interval(scores[1] - scores[0])


def holds(ends: tuple[float, float], value: float) -> bool:
    return ends[0] <= value <= ends[1]


def pairs(
    simulations: int, seeds: int, difference: float, spreads: tuple[float, float], logits: float
) -> Iterator[tuple[Iou, Iou, np.random.Generator]]:
    """Simulated methods a and b, b better by `difference` points of mIoU; `spreads` are points."""
    for seed in range(simulations):
        generator = np.random.default_rng([seed, seeds])
        images = images_of(generator, IMAGES)
        a = method(generator, images, seeds, BASE, logits * spreads[0])
        b = method(generator, images, seeds, BASE + logits * difference, logits * spreads[1])
        yield a, b, generator


def row(
    simulations: int, seeds: int, spread: str, difference: float, logits: float
) -> dict[str, object]:
    """The share of simulations in which each test finds a difference."""
    hits: dict[str, int] = {}
    for a, b, generator in pairs(simulations, seeds, difference, SPREADS[spread], logits):
        for name, hit in found(a, b, generator).items():
            hits[name] = hits.get(name, 0) + hit
    shares = {name: count / simulations for name, count in hits.items()}
    return {"seeds": seeds, "spread": spread, "difference": difference, "found": shares}


def inside(simulations: int, logits: float) -> dict[str, float]:
    """A model worse by 1.5 points: its image interval holds the better one's score; its p."""
    held = found_by_images = 0
    for a, b, _ in pairs(simulations, 1, -1.5, SPREADS["none"], logits):
        ends = interval(resampled(b.shares[0]))
        held += holds(ends, a.scores()["miou"])
        found_by_images += permutation_p(a, b, DRAWS)["miou"] < LEVEL
    return {"inside": held / simulations, "found by images": found_by_images / simulations}


def variation(simulations: int, logits: float) -> dict[str, float]:
    """Standard deviations of the mIoU in points, by what varies."""
    equal = list(pairs(simulations, 2, 0.0, SPREADS["equal"], logits))
    none = list(pairs(simulations, 1, 0.0, SPREADS["none"], logits))
    runs = np.array([np.diff(a.of_seeds()["miou"])[0] for a, _, _ in equal]) / np.sqrt(2)
    models = np.array([b.scores()["miou"] - a.scores()["miou"] for a, b, _ in none])
    images = np.array([a.scores()["miou"] for a, _, _ in none])
    parts = {"runs": runs, "two models": models, "images": images}
    return {name: 100 * float(values.std()) for name, values in parts.items()}


def main() -> None:
    parser = arguments(__doc__, "methods.json", rounds=None, threads=False)
    parser.add_argument("--simulations", type=int, default=400, help="of each row (default: 400)")
    options = parser.parse_args()
    n, logits = options.simulations, logits_of_a_point()
    settings = [(s, spread, 0.0) for s in SEEDS for spread in SPREADS]
    settings += [(s, "equal", difference) for s in SEEDS for difference in DIFFERENCES]
    rows = [row(n, *setting, logits) for setting in tqdm(settings, disable=None)]
    results: dict[str, object] = {"simulations": n, "images": IMAGES, "level": LEVEL}
    results |= {"variation": variation(n, logits), "inside": inside(n, logits), "rows": rows}
    for of in rows:
        print(of)
    print(results["variation"], results["inside"])
    write(options.output, results)


if __name__ == "__main__":
    main()
