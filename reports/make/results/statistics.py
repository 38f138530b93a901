"""How sure the tables' figures are: intervals, and tests against VM-UNet's row.

Figures are the paper's metrics, in percent or, for HD95, in voxels. All runs of a dataset are
matched by the ids of their test images or cases, whatever size they were trained at.
"""

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

from reports.make.report import Difference, Inference
from reports.make.results.metrics import Result, VolumeResult
from reports.make.results.strata import Stratum, read_strata
from reports.make.results.units import RunUnits, read_units, sample
from vmunet.evaluation.runs import Paired, enough_seeds
from vmunet.evaluation.samples import MEAN, Sample
from vmunet.evaluation.statistics import difference_p, holm, intervals, paired


class Measured:
    """One model's runs in one comparison; everything is computed of them only once."""

    def __init__(self, of: Sample) -> None:
        self.sample = of

    @cached_property
    def scores(self) -> dict[str, float]:
        return self.sample.scores()

    @cached_property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """Of 10,000 bootstrap resamples."""
        return intervals(self.sample)


Key = tuple[tuple[str, ...], str]  # the metrics files of a model's runs, and the comparison


class Statistics:
    """Inference from the files beside the runs' metrics. Each file is read once, and each bootstrap
    and each test is made once.

    Raises:
        InputError: a run's per_image.csv or per_case.csv is missing or of other images.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._units: dict[str, RunUnits] = {}
        self._first: dict[str, RunUnits] = {}
        self._measured: dict[Key, Measured] = {}
        self._p_values: dict[tuple[Key, Key], dict[str, float]] = {}
        self._paired: dict[tuple[Key, Key], dict[str, Paired]] = {}

    def inferences(
        self,
        rows: Sequence[Sequence[Result]],
        base: Sequence[Result],
        scales: Mapping[str, float],
    ) -> list[dict[str, Inference]]:
        """Each row's inference in one table and dataset, by metric; {} for a row without results.

        Args:
            rows: each row's results, one for each seed.
            base: the results of VM-UNet's row; may be empty.
            scales: each metric's factor from a score to a figure: 100 for percent, else 1.
        """
        inferences: list[dict[str, Inference]] = [{} for _ in rows]
        for metric, scale in scales.items():
            corrected = holm([self._p_against(base, row, metric) for row in rows])
            for row, p, of_row in zip(rows, corrected, inferences, strict=True):
                if row:
                    comparison, name = _place(row[0], metric)
                    measured = self.measured(row, comparison)
                    low, high = (_scaled(end, scale) for end in measured.intervals[name])
                    methods = p is not None and enough_seeds(
                        self.measured(base, comparison).sample, measured.sample
                    )
                    of_row[metric] = Inference(low, high, p, methods)
        return inferences

    def difference(
        self, first: Sequence[Result], second: Sequence[Result], metric: str
    ) -> Difference:
        """A metric of the second model minus that of the first, in percent.

        Args:
            first, second: the runs of one model each, one for each seed.
            metric: a pooled metric of the paper, or `mean_dice` at the masks' own size; for
                volumes always the DSC.
        """
        if isinstance(first[0], VolumeResult):
            comparison, name = "paper_dice", MEAN
        else:
            comparison, name = ("native_size" if metric == "mean_dice" else "paper"), metric
        one, other = self.measured(first, comparison), self.measured(second, comparison)
        key = (_key(first, comparison), _key(second, comparison))
        if key not in self._paired:
            self._paired[key] = paired(one.sample, other.sample)
        of = self._paired[key][name]
        low, high, p = _scaled(of.low, 100), _scaled(of.high, 100), _scaled(of.p, 1)
        ends = _in_percent(one.intervals[name]), _in_percent(other.intervals[name])
        return Difference(*ends, low, high, p, of.methods)

    def measured(self, results: Sequence[Result], comparison: str) -> Measured:
        """One model's runs, one for each seed.

        `comparison` is one of `reports.make.results.units.COMPARISONS`; for volumes it is one of
        `CASE_SCORES`, whose scores are those of the organs and `MEAN`.
        """
        key = _key(results, comparison)
        if key not in self._measured:
            units = [self._read(result) for result in results]
            self._measured[key] = Measured(sample(units, comparison))
        return self._measured[key]

    def strata(self, results: Sequence[Result], limits: Mapping[str, float]) -> list[Stratum]:
        """Scores of parts of the test images; see `reports.make.results.strata.read_strata`."""
        return read_strata(self._root, results, limits)

    def _p_against(
        self, base: Sequence[Result], results: Sequence[Result], metric: str
    ) -> float | None:
        """The uncorrected p against the base; None if there is nothing to test."""
        if not results or not base or _key(results, "") == _key(base, ""):
            return None
        return self._p(base, results, *_place(results[0], metric))

    def _p(
        self, first: Sequence[Result], second: Sequence[Result], comparison: str, name: str
    ) -> float | None:
        """The p of the test; None if the score is undefined."""
        key = (_key(first, comparison), _key(second, comparison))
        if key not in self._p_values:
            first_sample, second_sample = (
                self.measured(runs, comparison).sample for runs in (first, second)
            )
            self._p_values[key] = difference_p(first_sample, second_sample)
        return _scaled(self._p_values[key][name], 1)

    def _read(self, result: Result) -> RunUnits:
        """The result's units, in the order of the first result of the dataset."""
        if result.path not in self._units:
            units = read_units(self._root, result.run, result.path, result.data)
            first = self._first.setdefault(result.dataset, units)
            self._units[result.path] = units.in_order_of(first)
        return self._units[result.path]


def _place(result: Result, metric: str) -> tuple[str, str]:
    """The comparison or column of a table's metric, and the score's name in it."""
    if not isinstance(result, VolumeResult):
        return "paper", metric
    if metric == "hd95":
        return "paper_hd95_voxels", MEAN
    return "paper_dice", MEAN if metric == "dsc" else metric


def _key(results: Sequence[Result], comparison: str) -> Key:
    return tuple(result.path for result in results), comparison


def _in_percent(ends: tuple[float, float]) -> tuple[float | None, float | None]:
    return _scaled(ends[0], 100), _scaled(ends[1], 100)


def _scaled(value: float, scale: float) -> float | None:
    return None if math.isnan(value) else scale * value
