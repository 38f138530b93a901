"""Tables I to VI as tidy CSV: a line for each row, dataset and protocol."""

from typing import Any

import pandas as pd

from reports.make.results.views import DASH
from reports.make.tables.layout import extra_columns
from reports.make.tables.rows import Figure, Table

# Of a row's cost, which stands in a table of its own: the columns in both tables' CSV.
COST = ("published_params_M", "params_M", "published_flops_G", "macs_paper_G", "macs_complete_G")


def frame(table: Table) -> pd.DataFrame:
    """With the runs and metrics files behind each line.

    Scores are percentages (HD95: published as printed, measured in voxels), rounded to 6 decimals;
    empty where there is none. The difference is measured minus published, in points.
    """
    cost = table.spec.get("extra") == "complexity"
    extra = COST if cost else tuple(extra_columns(table).values())
    records = []
    for row in table.rows:
        for dataset, figures in row.figures.items():
            found = row.results.get(dataset, [])
            if row.protocol == "sound" and not found:
                continue
            record: dict[str, Any] = {
                "table": table.key,
                "row": row.label,
                "dataset": dataset,
                "protocol": row.protocol,
                "cell": row.cell,
                "view": found[0].run.view if found else None,
                "published_row": row.published,
            }
            texts = row.extra or (DASH,) * len(extra)
            record |= {n: None if t == DASH else t for n, t in zip(extra, texts, strict=True)}
            for metric, figure in figures.items():
                record |= _figure(metric, figure)
            record["n_seeds"] = len(found)
            record["runs"] = ";".join(result.run.name for result in found)
            record["metrics_files"] = ";".join(result.path for result in found)
            records.append(record)
    return pd.DataFrame(records).round(6)


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
