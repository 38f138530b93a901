"""Tables I to VI as tidy CSV: a line for each row, dataset and protocol."""

from typing import Any

from reports.make.report import Figure, PaperTable
from reports.make.results.foreign import FOREIGN
from reports.make.tables.inputs import Inputs
from reports.make.tidy import Tidy, tidy
from reports.make.typeset.words import DASH

# The columns of a row's cost, in the CSV of both tables: the cost also has its own table.
COST = ("published_params_M", "params_M", "published_flops_G", "macs_paper_G", "macs_complete_G")


def paper_data(table: PaperTable, inputs: Inputs) -> Tidy:
    """A table's lines, each with its runs and metrics files.

    Scores are percentages (HD95: published as printed, measured in voxels), rounded to 6 decimals;
    empty if there is no score. The difference is measured minus published, in points.
    """
    cost = table.spec.get("extra") == "complexity"
    extra = COST if cost else tuple(table.extra_columns.values())
    records = []
    for row in table.rows:
        for dataset, figures in row.figures.items():
            results = inputs.of(row.runs.get(dataset, []))
            if row.protocol == "sound" and not results:
                continue
            foreign = inputs.foreign.get(dataset) if row.protocol == FOREIGN else None
            if row.protocol == FOREIGN and foreign is None:
                continue
            files = [result.path for result in results] + ([foreign.path] if foreign else [])
            view = foreign.view if foreign else results[0].run.view if results else None
            record: dict[str, Any] = {
                "table": table.key,
                "row": row.label,
                "dataset": dataset,
                "protocol": row.protocol,
                "cell": row.cell,
                "view": view,
                "published_row": row.published,
            }
            texts = row.extra or (DASH,) * len(extra)
            record |= {n: None if t == DASH else t for n, t in zip(extra, texts, strict=True)}
            for metric, figure in figures.items():
                record |= _figure(metric, figure)
            record["n_seeds"] = len(results)
            record["runs"] = ";".join(result.run.name for result in results)
            record["metrics_files"] = ";".join(files)
            records.append(record)
    return tidy(records)


def _figure(metric: str, figure: Figure) -> dict[str, Any]:
    inference = figure.inference
    return {
        f"published_{metric}": figure.published,
        f"measured_{metric}": figure.measured,
        f"difference_{metric}": figure.difference,
        f"std_{metric}": figure.std,
        f"low_{metric}": inference.low if inference else None,
        f"high_{metric}": inference.high if inference else None,
        f"p_{metric}": inference.p if inference else None,
    }
