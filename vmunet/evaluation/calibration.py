"""Whether a probability of 0.8 is right eight times in ten: reliability by bins of probability."""

from typing import Any

import numpy as np
import numpy.typing as npt

BINS = 20


def reliability(
    probabilities: npt.NDArray[np.float32], truth: npt.NDArray[np.bool_], bins: int = BINS
) -> dict[str, Any]:
    """Pixels by bins of their probability of foreground, and the expected calibration error.

    Args:
        probabilities: (images, height, width), 0..1.
        truth: the same shape.
        bins: the number of bins, of equal width over 0..1.

    Returns:
        Lists over the bins: `low`, `high`, `pixels` (a count), `probability` (the mean in the bin)
        and `lesion` (the part that is foreground), the last two None in an empty bin; and `ece`,
        the mean over all pixels of |probability - lesion| of their bin (Guo et al. 2017, for the
        probability of foreground instead of that of the predicted class).
    """
    counts, sums, hits = np.zeros((3, bins))
    for image, mask in zip(probabilities, truth, strict=True):  # one at a time limits the memory
        p = image.ravel().astype(np.float64)
        at = np.minimum((p * bins).astype(np.int64), bins - 1)
        counts += np.bincount(at, minlength=bins)
        sums += np.bincount(at, weights=p, minlength=bins)
        hits += np.bincount(at, weights=mask.ravel().astype(np.float64), minlength=bins)
    filled = np.maximum(counts, 1)
    means, parts = sums / filled, hits / filled

    def defined(values: npt.NDArray[np.float64]) -> list[float | None]:
        return [float(v) if n else None for v, n in zip(values, counts, strict=True)]

    edges = np.linspace(0, 1, bins + 1)
    return {
        "low": edges[:-1].tolist(),
        "high": edges[1:].tolist(),
        "pixels": counts.astype(np.int64).tolist(),
        "probability": defined(means),
        "lesion": defined(parts),
        "ece": float((counts * np.abs(means - parts)).sum() / max(counts.sum(), 1)),
    }
