"""The inputs of the tables."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reports.make.files import read_json
from reports.make.results.foreign import Foreign, read_foreign
from reports.make.results.metrics import ImageResult, Result, VolumeResult, read_results, run_order
from reports.make.results.provenance import measured_origins
from reports.make.results.statistics import Statistics
from reports.make.results.views import TableViews, load_yaml
from reports.make.typeset.sheet import Origin

if TYPE_CHECKING:
    from pipeline.config.params import Params
    from pipeline.config.runs import Run

SPLITS = Path("reports/out/data/split.json")
CHECK_AGAIN = "run `python -m stages.check`"


@dataclass(frozen=True)
class Inputs:
    """The active grid, the declarations of reports/, and the runs' scores.

    Attributes:
        declared, published: reports/tables.yaml and reports/published.yaml.
        results: of the grid's runs, in its order.
        statistics: the intervals and tests; without it these are dashes.
        foreign: nnU-Net's scores on the base view of a dataset, where there are any.
    """

    root: Path
    params: "Params"
    declared: Mapping[str, Any]
    published: Mapping[str, Any]
    results: Sequence[Result]
    statistics: Statistics | None
    foreign: Mapping[str, Foreign] = field(default_factory=dict)

    def of(self, names: Iterable[str]) -> list[Result]:
        """The results of the runs with these names, each once."""
        return [self._by_name[name] for name in dict.fromkeys(names)]

    @cached_property
    def _by_name(self) -> dict[str, Result]:
        return {result.run.name: result for result in self.results}

    @cached_property
    def ordered(self) -> list[Result]:
        """The results in the order of reports/tables.yaml and params.yaml."""
        return sorted(self.results, key=run_order(self.params, self.declared))

    @property
    def images(self) -> list[ImageResult]:
        return [result for result in self.results if isinstance(result, ImageResult)]

    @property
    def volumes(self) -> list[VolumeResult]:
        return [result for result in self.results if isinstance(result, VolumeResult)]

    @property
    def names(self) -> Mapping[str, str]:
        """The datasets' names, as the tables print them."""
        return self.declared["datasets"]

    @cached_property
    def origins(self) -> dict[str, Origin]:
        """What the figures of each measured dataset were made from."""
        return measured_origins(self.results, self.names)

    @cached_property
    def splits(self) -> Mapping[str, Mapping[str, Any]]:
        """What the stage `check` says of whole datasets' splits; empty if it was not run."""
        if not (self.root / SPLITS).exists():
            return {}
        return read_json(self.root, SPLITS, "what is known of the splits", CHECK_AGAIN)

    def heading(self, dataset: str) -> str:
        """A dataset's name over its block; it says so if the data are not the whole real ones."""
        origin = self.origins.get(dataset)
        return origin.tagged if origin else self.names[dataset]

    def dataset_at_size(self, result: Result) -> str:
        return f"{self.heading(result.dataset)} at {result.size}×{result.size}"


def read_inputs(
    root: Path,
    params: "Params",
    declared_runs: Iterable["Run"],
    statistics: Statistics | None = None,
) -> Inputs:
    """Raises InputError if a run of the grid has no metrics, or reports/*.yaml are malformed."""
    declared = load_yaml(root / "reports/tables.yaml")
    published = load_yaml(root / "reports/published.yaml")
    wanted: dict[str, dict[str, None]] = {}  # the metrics of each dataset, each once
    for spec in declared["tables"].values():
        for dataset in spec["datasets"]:
            wanted.setdefault(dataset, {}).update(dict.fromkeys(spec["metrics"]))
    results = read_results(root, params, declared_runs, wanted)
    foreign = {
        dataset: scores
        for dataset, view in TableViews(params, declared, published).base_views.items()
        if (scores := read_foreign(root, params, view, wanted.get(dataset, ()), results))
    }
    return Inputs(root, params, declared, published, results, statistics, foreign)
