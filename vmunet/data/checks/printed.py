"""What printed scores say of the test images: the confusion matrix that they follow from."""

from collections.abc import Iterable
from typing import NamedTuple

Printed = tuple[float, float, float]  # accuracy, specificity, sensitivity in percent


class Shares(NamedTuple):
    """A confusion matrix as fractions of all pixels, which add up to 1."""

    tp: float
    fn: float
    fp: float
    tn: float

    @property
    def lesion(self) -> float:
        """The lesion's share of all pixels."""
        return self.tp + self.fn


def shares(acc: float, spe: float, sen: float) -> Shares:
    """The confusion matrix with these scores (fractions 0..1).

    Accuracy is the mean of sensitivity and specificity, weighted by the shares of lesion and
    background; so the three give the lesion's share.

    Raises:
        ZeroDivisionError: sensitivity equals specificity, and every share gives the same accuracy.
    """
    lesion = (spe - acc) / (spe - sen)
    return Shares(sen * lesion, (1 - sen) * lesion, (1 - spe) * (1 - lesion), spe * (1 - lesion))


def bounds(printed: Printed, step: float = 0.01) -> tuple[Shares, Shares]:
    """The least and the largest of each share that rounding to `step` percent leaves open.

    Each share rises or falls with each score throughout, as long as sensitivity is below accuracy
    and accuracy below specificity: so its ends lie at two corners of the rounding.
    """
    acc, spe, sen = printed
    half = step / 2
    few = shares((acc + half) / 100, (spe - half) / 100, (sen - half) / 100)
    many = shares((acc - half) / 100, (spe + half) / 100, (sen + half) / 100)
    return Shares(few.tp, few.fn, many.fp, many.tn), Shares(many.tp, many.fn, few.fp, few.tn)


def lesion_share(rows: Iterable[Printed]) -> tuple[float, float]:
    """The interval of lesion shares that fits the printed scores of every model at once."""
    ends = [bounds(row) for row in rows]
    return max(low.tp + low.fn for low, _ in ends), min(high.tp + high.fn for _, high in ends)
