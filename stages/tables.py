"""Render every table of the paper from the declared grid: published beside measured.

Reads params.yaml, reports/published.yaml, reports/tables.yaml, reports/templates/ and the metrics
file of each run of the grid; writes reports/tables/: table1..6, sound (every run on images under
the sound metrics) and, where the grid has runs on volumes, organs (each of them under both
conventions) as .tex and .csv, all.tex (a document of all of them), index.md (the same for a
terminal), and runs.csv, which leads from each run to its metrics file, checkpoint, data hash, code
revision and MLflow run.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.grid import Run, runs
from pipeline.params import Params, load_params
from pipeline.stage import run_stage
from stages.table_captions import caption, organs_caption, sound_caption
from stages.table_layout import sound_blocks
from stages.table_metrics import ImageResult, Result, VolumeResult, read_results
from stages.table_organs import organ_blocks, organs_frame, organs_markdown, render_organs_tex
from stages.table_render import (
    environment,
    frame,
    percent,
    render_markdown,
    render_sound_markdown,
    render_sound_tex,
    render_tex,
    sound_frame,
)
from stages.table_rows import Assembler, Table, wanted_metrics
from stages.table_views import load_yaml
from vmunet.data.files import whole_folder

OUTPUT = Path("reports/tables")


def make_tables(root: Path, params: Params, declared_runs: Sequence[Run]) -> None:
    """Write reports/tables/ under `root`, whole or not at all.

    Raises InputError where a run of the grid has no metrics, a score is not a number in range,
    or reports/*.yaml name what does not exist.
    """
    declared = load_yaml(root / "reports/tables.yaml")
    published = load_yaml(root / "reports/published.yaml")
    results = read_results(root, params, declared_runs, wanted_metrics(declared))
    images = [result for result in results if isinstance(result, ImageResult)]
    volumes = [result for result in results if isinstance(result, VolumeResult)]
    tables = Assembler(params, declared, published, results).tables()
    captions = {table.key: caption(table, params, declared, published) for table in tables}
    templates = environment(root / "reports/templates")
    files: dict[str, str] = {}
    for table in tables:
        files[f"{table.name}.tex"] = render_tex(templates, table, captions[table.key], declared)
        files[f"{table.name}.csv"] = _csv(frame(table))
    blocks = sound_blocks(params, declared, images)
    honest = sound_caption(images, params, declared, published)
    files["sound.tex"] = render_sound_tex(templates, blocks, honest)
    files["sound.csv"] = _csv(sound_frame(images))
    by_organ = organ_blocks(params, declared, volumes)
    organs = organs_caption(volumes, params, declared, published) if volumes else None
    if organs:
        files["organs.tex"] = render_organs_tex(templates, by_organ, organs)
        files["organs.csv"] = _csv(organs_frame(volumes))
    files["runs.csv"] = _csv(_trace(results, tables))
    shared = {
        "tables": tables,
        "captions": captions,
        "profile": params.profile_name,
        "organs": organs,
    }
    files["all.tex"] = templates.get_template("all.tex.j2").render(
        **shared, references=_references(published), paper=published["paper"]
    )
    files["index.md"] = templates.get_template("index.md.j2").render(
        **shared,
        about=params.profile.about,
        names=declared["datasets"],
        legend=list(dict.fromkeys(line for c in captions.values() for line in c.legend)),
        body={
            (table.key, dataset): render_markdown(table, declared, dataset)
            for table in tables
            for dataset in table.spec["datasets"]
        },
        honest=honest,
        honest_body=render_sound_markdown(blocks),
        organs_body=organs_markdown(by_organ),
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
    return pd.DataFrame(records).round(4)


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
    argparse.ArgumentParser(prog="python -m stages.tables", description=__doc__).parse_args(argv)
    params = load_params()
    make_tables(Path(), params, runs(params))


if __name__ == "__main__":
    run_stage(main)
