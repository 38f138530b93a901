"""The report computed once, and its files: report.json, each table as .tex and .csv, and lists."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reports.make.checklists import answered
from reports.make.report import PATH, TABLES, PaperTable, Report
from reports.make.results.metrics import ImageResult, Result, VolumeResult
from reports.make.results.provenance import provenance_of, summary_of
from reports.make.results.statistics import Statistics
from reports.make.results.views import load_yaml
from reports.make.tables.headline import headline_scores
from reports.make.tables.inputs import Inputs, read_inputs
from reports.make.tables.parts import parts
from reports.make.tables.rows import Assembler
from reports.make.tidy import tidy
from reports.make.typeset.render import environment, render_markdown, render_tex
from reports.make.typeset.words import percent
from vmunet.files import whole_folder

if TYPE_CHECKING:
    from pipeline.config.params import Params
    from pipeline.config.runs import Run


def make_tables(
    root: Path,
    params: "Params",
    declared_runs: Iterable["Run"],
    statistics: Statistics | None = None,
) -> None:
    """Write reports/out/tables/ under `root`, completely or not at all.

    `statistics` gives the intervals and tests; without it these are dashes.

    Raises:
        InputError: a run of the grid has no metrics, a file has the wrong content, or
            reports/*.yaml name something that does not exist.
    """
    report = report_of(read_inputs(root, params, declared_runs, statistics))
    texts = {PATH.name: report.json()} | rendered(report, root / "reports/templates/tables")
    with whole_folder(root / TABLES) as folder:
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8", newline="\n")


def report_of(inputs: Inputs) -> Report:
    """Everything that the report shows, computed once."""
    params, paper = inputs.params, inputs.published
    tables = Assembler(inputs).tables()
    shown_runs = {name for table in tables for name in table.runs}
    provenance = provenance_of(params, inputs.results, inputs.names)
    shown = tuple(parts(inputs, tables))
    asked = load_yaml(inputs.root / "reports/checklists.yaml")
    return Report(
        summary=summary_of(params, inputs.results, inputs.names),
        provenance=provenance,
        origins=inputs.origins,
        paper=paper["paper"]["text"],
        references=sorted(paper["references"].values(), key=lambda reference: reference["number"]),
        datasets=dict(inputs.names),
        metrics=inputs.declared["metrics"],
        parts=shown,
        runs=tidy([_trace(result, tables) for result in inputs.results]),
        shown_nowhere=[r.run.name for r in inputs.results if r.run.name not in shown_runs],
        scores=headline_scores(inputs.results),
        pictured=[*params.grid.ablation_views, *params.grid.volumes],
        checklists=answered(asked, provenance.lines(), [part.sheet.name for part in shown]),
    )


def rendered(report: Report, templates: Path) -> dict[str, str]:
    """The text of every file that shows the report, by name."""
    jinja = environment(templates)
    texts = {f"{part.sheet.name}.tex": render_tex(jinja, part.sheet) for part in report.parts}
    texts |= {f"{p.sheet.name}.csv": p.data.csv() for p in report.parts if p.data is not None}
    return texts | {
        "runs.csv": report.runs.csv(),
        "scores.json": json.dumps(report.scores, indent=2) + "\n",
        "checklists.md": jinja.get_template("checklists.md.j2").render(report=report),
        "all.tex": jinja.get_template("all.tex.j2").render(report=report),
        "index.md": jinja.get_template("index.md.j2").render(
            report=report, legend=report.legend, render=render_markdown
        ),
    }


def _trace(result: Result, tables: Sequence[PaperTable]) -> dict[str, object]:
    """The main sound scores of a run (percent or mm; for images at the masks' own size, for volumes
    over the organs), and the way from its metrics file back to the code and data that made it."""
    fields = ("path", "sha256", "epoch", "data_hash", "code_hash", "git", "mlflow_run_id")
    return (
        {"run": result.run.name, "metrics_file": result.path}
        | _main_scores(result)
        | {f"checkpoint_{f}" if f in fields[:3] else f: result.checkpoint.get(f) for f in fields}
        | {"tables": " ".join(t.key for t in tables if result.run.name in t.runs)}
    )


def _main_scores(result: Result) -> dict[str, float | None]:
    """The columns of images and of volumes; the columns of the other kind are empty."""
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
