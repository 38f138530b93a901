"""How sure the tables' figures are: intervals, and tests against VM-UNet's row.

Figures are the paper's metrics, in percent or, for HD95, in voxels. All runs of a dataset are
matched by the ids of their test images or cases, whatever size they were trained at.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reports.make.results.metrics import Result, VolumeResult
from reports.make.results.units import RunUnits, read_units, sample
from vmunet.evaluation.samples import MEAN, Sample
from vmunet.evaluation.statistics import (
    Paired,
    Verdict,
    holm,
    intervals,
    paired,
    permutation_p,
    verdict,
)

LEVEL = 0.05  # a corrected p below it is significant


@dataclass(frozen=True)
class Inference:
    """What the test images (cases) say about one measured figure.

    Attributes:
        low, high: its 95% bootstrap interval over them, in the figure's own unit; None where
            the figure is undefined.
        p: two-sided, of the paired permutation test against VM-UNet's row (the cell `base` under
            the paper's protocol, at the dataset's base size), corrected by Holm's method for the
            tests in this table, dataset and metric. None for that row itself, and everywhere
            where the grid has no such runs.
        verdict: where the interval lies relative to the published value; None without one.
    """

    low: float | None
    high: float | None
    p: float | None
    verdict: Verdict | None

    @property
    def significant(self) -> bool:
        return self.p is not None and self.p < LEVEL


class Statistics:
    """Inference on the results of the grid; each run's file is read once, each test made once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._units: dict[str, RunUnits] = {}
        self._first: dict[str, RunUnits] = {}
        self._intervals: dict[tuple, dict[str, tuple[float, float]]] = {}
        self._paired: dict[tuple, dict[str, Paired]] = {}
        self._p: dict[tuple, dict[str, float]] = {}

    def inferences(
        self,
        rows: Sequence[Sequence[Result]],
        published: Sequence[Mapping[str, float]],
        base: Sequence[Result],
        scales: Mapping[str, float],
    ) -> list[dict[str, Inference]]:
        """Of each row of one table and dataset, by metric; nothing for a row without results.

        Args:
            rows: each row's results, one for each seed.
            published: each row's published figures by metric, in the figures' unit.
            base: the results of VM-UNet's row, or none.
            scales: the metrics, and what takes a score to its figure: 100 for percent, else 1.

        Raises:
            InputError: a run's per_image.csv or per_case.csv is missing or wrong.
        """
        found: list[dict[str, Inference]] = [{} for _ in rows]
        for metric, scale in scales.items():
            corrected = holm([self._p_value(row, base, metric) for row in rows])
            for row, said, p, inferred in zip(rows, published, corrected, found, strict=True):
                if row:
                    comparison, name = _place(row[0], metric)
                    ends = self.interval(row, name, comparison)
                    low, high = (scale * end for end in ends)
                    inferred[metric] = _inference(low, high, p, said.get(metric))
        return found

    def paired(
        self,
        a_runs: Sequence[Result],
        b_runs: Sequence[Result],
        score: str,
        comparison: str = "native_size",
    ) -> Paired:
        """A score of `b_runs` minus that of `a_runs` on the same test images or cases.

        Args:
            a_runs, b_runs: of one cell each, one for each seed.
            score: a name that `vmunet.evaluation.metrics.resampled_scores` returns, such as
            mean_dice; of
                volumes an organ, or `MEAN` of `vmunet.evaluation.samples` for the mean over the
                organs.
            comparison: one of `reports.make.results.units.COMPARISONS`; of volumes one of
            `CASE_SCORES`.

        Returns:
            In the score's own unit: fractions 0..1, voxels or mm.
        """
        key = (_paths(a_runs), _paths(b_runs), comparison)
        if key not in self._paired:
            samples = (self._sample(runs, comparison) for runs in (a_runs, b_runs))
            self._paired[key] = paired(*samples)
        return self._paired[key][score]

    def interval(
        self, results: Sequence[Result], score: str, comparison: str
    ) -> tuple[float, float]:
        """A score's 95% interval for one cell's runs; arguments and unit as of `paired`."""
        key = (_paths(results), comparison)
        if key not in self._intervals:
            self._intervals[key] = intervals(self._sample(results, comparison))
        return self._intervals[key][score]

    def _p_value(
        self, results: Sequence[Result], base: Sequence[Result], metric: str
    ) -> float | None:
        """Uncorrected; None where there is nothing to test."""
        if not results or not base or _paths(results) == _paths(base):
            return None
        comparison, name = _place(results[0], metric)
        key = (_paths(base), _paths(results), comparison)
        if key not in self._p:
            samples = (self._sample(of, comparison) for of in (base, results))
            self._p[key] = permutation_p(*samples)
        p = self._p[key][name]
        return None if math.isnan(p) else p

    def _sample(self, results: Sequence[Result], comparison: str) -> Sample:
        return sample([self._read(result) for result in results], comparison)

    def _read(self, result: Result) -> RunUnits:
        """The result's units in the order of the dataset's first."""
        if result.path not in self._units:
            units = read_units(self._root, result.run, result.path, result.data, result.scores)
            first = self._first.setdefault(result.dataset, units)
            self._units[result.path] = units.in_order_of(first)
        return self._units[result.path]


def _place(result: Result, metric: str) -> tuple[str, str]:
    """The comparison or column of a table's metric, and the score's name there."""
    if not isinstance(result, VolumeResult):
        return "paper", metric
    if metric == "hd95":
        return "paper_hd95_voxels", MEAN
    return "paper_dice", MEAN if metric == "dsc" else metric


def _paths(results: Sequence[Result]) -> tuple[str, ...]:
    return tuple(result.path for result in results)


def _inference(low: float, high: float, p: float | None, published: float | None) -> Inference:
    if math.isnan(low):
        return Inference(None, None, p, None)
    return Inference(low, high, p, None if published is None else verdict(low, high, published))
