"""The runs of the declared grid that each table shows: its rows' cells at its datasets' views."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML

from reports.make.typeset.words import DASH
from vmunet.errors import InputError

if TYPE_CHECKING:
    from pipeline.config.params import Params
    from pipeline.config.runs import Run


def load_yaml(path: Path) -> dict[str, Any]:
    """A YAML file of reports/. Raises InputError if it is missing or malformed."""
    try:
        return YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; restore it from the repository") from None
    except Exception as error:
        raise InputError(f"{path}: not valid YAML: {error}") from None


def views_by_size(params: "Params", dataset: str, base_size: int) -> dict[float, str]:
    """The dataset's views, keyed by the published size that each stands for.

    A profile whose base size is s trains s, 1.5 s and 2 s for the paper's 256, 384 and 512:
    a view stands for its size times 256 / s; `base_size` is the paper's 256 (224 on Synapse).
    The base view is the one of `grid.ablation_views`; a dataset outside it (Synapse, whose views
    are `grid.volumes`) has its smallest view as base.
    """
    grid = params.grid
    views: dict[str, Any] = {**grid.views, **grid.volumes}
    names = (*grid.ablation_views, *grid.size_views, *grid.volumes)
    of_dataset = [name for name in names if views[name].dataset == dataset]
    if not of_dataset:
        return {}
    base = [name for name in grid.ablation_views if views[name].dataset == dataset]
    if len(base) > 1:
        raise InputError(
            f"params.yaml: grid.ablation_views has {len(base)} views of {dataset} "
            f"({', '.join(base)}); a table shows one base size: move the others to grid.size_views"
        )
    smallest = min(of_dataset, key=lambda name: views[name].size)
    size = views[base[0] if base else smallest].size
    return {views[name].size * base_size / size: name for name in of_dataset}


def tables_of(run: "Run", params: "Params", root: Path = Path(".")) -> list[str]:
    """Numerals of the declared tables that show a run, such as I, III and IV.

    The list is empty if no table shows the run, or if no tables are declared under `root`.

    Raises:
        InputError: reports/tables.yaml, reports/published.yaml or the grid has a mistake.
    """
    return [key for key, names in runs_of_tables([run], params, root).items() if run.name in names]


def runs_of_tables(
    runs: Iterable["Run"], params: "Params", root: Path = Path(".")
) -> dict[str, list[str]]:
    """The names of the runs among `runs` that each declared table shows, by the table's numeral.

    Raises:
        InputError: as `tables_of`.
    """
    if not (root / "reports/tables.yaml").is_file():
        return {}
    declared = load_yaml(root / "reports/tables.yaml")
    published = load_yaml(root / "reports/published.yaml")
    known = list(runs)
    return {
        key: [run.name for run in known if (run.view, run.cell) in places]
        for key, places in TableViews(params, declared, published).shown().items()
    }


class TableViews:
    """The views that the rows of the declared tables stand for, under the active grid."""

    def __init__(
        self, params: "Params", declared: Mapping[str, Any], published: Mapping[str, Any]
    ) -> None:
        self._declared = declared
        volumes = {view.dataset for view in params.grid.volumes.values()}
        self.base_sizes: dict[str, int] = {
            dataset: published["settings_volumes" if dataset in volumes else "settings"]["size"]
            for dataset in declared["datasets"]
        }
        self.views = {
            dataset: views_by_size(params, dataset, size)
            for dataset, size in self.base_sizes.items()
        }

    @property
    def base_views(self) -> dict[str, str]:
        """The view of each dataset at its base size, if the grid has one."""
        return {
            dataset: views[size]
            for dataset, views in self.views.items()
            if (size := self.base_sizes[dataset]) in views
        }

    def rows(self, spec: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """The declared rows; the size table adds a row for each size the paper did not try."""
        rows = list(spec["rows"])
        if spec.get("extra") == "size":
            declared_sizes = {row["size"] for row in rows}
            sizes = {size for dataset in spec["datasets"] for size in self.views[dataset]}
            rows += [
                {"label": DASH, "cell": "base", "size": s} for s in sorted(sizes - declared_sizes)
            ]
        return rows

    def of_row(self, spec: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, str]:
        """The view of each dataset whose runs the row shows; empty for the paper's rivals."""
        return {
            dataset: view
            for dataset in spec["datasets"]
            if row.get("cell")
            and (view := self.views[dataset].get(row.get("size", self.base_sizes[dataset])))
        }

    def shown(self) -> dict[str, set[tuple[str, str]]]:
        """(view, cell) of every run that each table shows, by the table's numeral."""
        return {
            key: {
                (view, row["cell"])
                for row in self.rows(spec)
                for view in self.of_row(spec, row).values()
            }
            for key, spec in self._declared["tables"].items()
        }
