"""Render every table of the report from the declared grid: published beside measured.

Reads params.yaml, reports/published.yaml, reports/tables.yaml, reports/templates/tables/ and the
files of each run of the grid in metrics/; writes reports/out/tables/, each table as .tex and .csv:

table1 to table6: the paper's, published beside measured, and table5-cost: parameters, FLOPs, speed.
comparison: every measured row with its interval, difference, verdict and test.
protocols: the paper protocol against the sound one.
cross: models on the other dataset's images, where the grid has such tests.
reproductions: what others report of the published code.
sound, sound-native: every run on images under the sound metrics (one sound.csv).
organs: every run on volumes under both conventions.

all.tex is a document of all of them, index.md the same for a terminal, and runs.csv leads from each
run to its metrics file, checkpoint, data hash, code revision and MLflow run. scores.json holds the
runs' headline scores, for `dvc metrics diff`.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.config.params import Params, load_params
from pipeline.config.runs import Run, runs
from pipeline.stage import run_stage
from reports.make.results.metrics import ImageResult, Result, VolumeResult, read_results
from reports.make.results.provenance import provenance_of
from reports.make.results.statistics import Statistics
from reports.make.results.views import load_yaml
from reports.make.tables import summary as table_summary
from reports.make.tables.parts import Report
from reports.make.tables.protocols import Paired, paired_by
from reports.make.tables.rows import Assembler, Table, wanted_metrics
from reports.make.typeset.render import environment, render_markdown, render_tex
from reports.make.typeset.sheet import percent
from vmunet.files import whole_folder

OUTPUT = Path("reports/out/tables")


def make_tables(
    root: Path,
    params: Params,
    declared_runs: Sequence[Run],
    statistics: Statistics | None = None,
    paired: Paired | None = None,
) -> None:
    """Write reports/out/tables/ under `root`, whole or not at all.

    `statistics` brings the figures' intervals and tests, `paired` those of the two protocols'
    difference; without them these are dashes.

    Raises InputError where a run of the grid has no metrics, a score is not a number in range,
    a measurement's file is broken, or reports/*.yaml name what does not exist.
    """
    declared = load_yaml(root / "reports/tables.yaml")
    published = load_yaml(root / "reports/published.yaml")
    results = read_results(root, params, declared_runs, wanted_metrics(declared))
    tables = Assembler(params, declared, published, results, statistics).tables()
    parts = Report(root, params, declared, published, results, tables, paired).parts()
    templates = environment(root / "reports/templates/tables")
    files = {f"{part.sheet.name}.tex": render_tex(templates, part.sheet) for part in parts}
    files |= {f"{p.sheet.name}.csv": _csv(p.frame) for p in parts if p.frame is not None}
    files["runs.csv"] = _csv(_trace(results, tables))
    files[table_summary.NAME] = json.dumps(table_summary.summary(results), indent=2) + "\n"
    shared = {
        "parts": parts,
        "profile": params.profile_name,
        "provenance": provenance_of(params, results, declared["datasets"]),
    }
    files["all.tex"] = templates.get_template("all.tex.j2").render(
        **shared, references=_references(published), paper=published["paper"]
    )
    files["index.md"] = templates.get_template("index.md.j2").render(
        **shared,
        about=params.profile.about,
        legend=list(dict.fromkeys(line for p in parts for line in p.sheet.caption.legend)),
        render=render_markdown,
        shown_nowhere=_shown_nowhere(results, tables),
    )
    with whole_folder(root / OUTPUT) as folder:
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8", newline="\n")


def _csv(table: pd.DataFrame) -> str:
    return table.to_csv(index=False, lineterminator="\n")


def _trace(results: list[Result], tables: list[Table]) -> pd.DataFrame:
    """A line per run: its main sound scores (percent or mm; of images at the masks' own size, of
    volumes over the organs), and the way from its metrics file back to the code and data that
    made it."""
    fields = ("path", "sha256", "epoch", "data_hash", "code_hash", "git", "mlflow_run_id")
    records = [
        {"run": result.run.name, "metrics_file": result.path}
        | _main_scores(result)
        | {f"checkpoint_{f}" if f in fields[:3] else f: result.checkpoint.get(f) for f in fields}
        | {"tables": " ".join(t.key for t in tables if result in t.results)}
        for result in results
    ]
    return pd.DataFrame(records).round(6)


def _main_scores(result: Result) -> dict[str, float | None]:
    """The columns of images and of volumes; those of the other kind are empty."""
    native = result.sound["native_size"] if isinstance(result, ImageResult) else None
    mean = result.mean if isinstance(result, VolumeResult) else None
    return {
        f"native_size_{name}": percent(native[name].value) if native else None
        for name in ("mean_dice", "mean_iou", "thresholded_jaccard")
    } | {
        "organs_dice": percent(mean.dice) if mean else None,
        "organs_hd95_mm": mean.hd95_mm if mean else None,
        "organs_nsd": percent(mean.nsd) if mean else None,
    }


def _shown_nowhere(results: list[Result], tables: list[Table]) -> list[str]:
    """Runs that none of the paper's tables shows: a cell that a person added to params.yaml."""
    shown = {result.path for table in tables for result in table.results}
    return [result.run.name for result in results if result.path not in shown]


def _references(published: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return sorted(published["references"].values(), key=lambda reference: reference["number"])


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.tables", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.parse_args(argv)
    params, root = load_params(), Path()
    statistics = Statistics(root)
    make_tables(root, params, runs(params), statistics, paired_by(statistics))
    print(f"written to {OUTPUT}")


if __name__ == "__main__":
    run_stage(main)
