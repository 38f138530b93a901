"""What a statement of agreement with a published figure says about methods that are worse.

Run it from the repository's root; it takes half a minute of one core:

    python -m benchmarks.agreement        # then: python -m benchmarks.plot

A method whose mean over all runs lies some points below the published figure is trained with a few
seeds; its runs vary by 0.83 points. Counted is how often table `agreement` says of it

in                           the published figure is in the prediction interval of one new run
equivalent, different or undecided    the verdict on the mean, with the margin of the mIoU of ISIC
"""

import numpy as np
from tqdm import tqdm

from benchmarks.measure import arguments, write
from benchmarks.methods import SPREAD
from vmunet.evaluation.runs import agreement, prediction_interval

PUBLISHED = 80.0  # where it lies changes nothing
MARGIN = 0.72  # reports/published.yaml
SEEDS = (3, 5, 10)
BELOW = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)  # points


def row(seeds: int, below: float, simulations: int) -> dict[str, object]:
    """The share of simulations with each statement."""
    generator = np.random.default_rng(seeds)
    said = dict.fromkeys(("in", "equivalent", "different", "undecided"), 0)
    for scores in generator.normal(PUBLISHED - below, SPREAD, (simulations, seeds)):
        low, high = prediction_interval(scores)
        said["in"] += low <= PUBLISHED <= high
        said[agreement(scores, PUBLISHED, MARGIN)] += 1
    shares = {name: int(count) / simulations for name, count in said.items()}
    return {"seeds": seeds, "below": below, "said": shares}


def main() -> None:
    parser = arguments(__doc__, "agreement.json", rounds=None, threads=False)
    parser.add_argument(
        "--simulations", type=int, default=10_000, help="of each row (default: 10000)"
    )
    options = parser.parse_args()
    settings = [(seeds, below) for seeds in SEEDS for below in BELOW]
    rows = [row(*setting, options.simulations) for setting in tqdm(settings, disable=None)]
    for of in rows:
        print(of)
    results = {"simulations": options.simulations, "spread": SPREAD, "margin": MARGIN, "rows": rows}
    write(options.output, results)


if __name__ == "__main__":
    main()
