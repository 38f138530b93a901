"""Text of the tables: LaTeX (booktabs alone), Markdown and tidy CSV."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from stages.table_captions import Caption
from stages.table_layout import (
    SOUND,
    SOUND_HEADINGS,
    Cell,
    Line,
    extra_columns,
    header,
    last_header,
    lines,
    sound_head,
)
from stages.table_metrics import ImageResult
from stages.table_rows import Table
from stages.table_scores import SOUND_SCORES, SOUND_SIZES
from stages.table_views import DASH

_TEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "[": "{[}",  # after a row end it would open an optional argument
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "\u2212": r"$-$",
}
_MARKDOWN = re.compile(r"([\\`*_\[\]<>|])")


def escape_tex(text: object) -> str:
    """Plain text as LaTeX: its ten specials, and the signs that pdflatex does not know."""
    quoted = re.sub(r'"([^"]*)"', r"``\1''", str(text))
    return "".join(_TEX.get(character, character) for character in quoted)


def escape_markdown(text: object) -> str:
    return _MARKDOWN.sub(r"\\\1", str(text))


def _cell_tex(cell: Cell) -> str:
    return rf"\textbf{{{escape_tex(cell.text)}}}" if cell.bold else escape_tex(cell.text)


def _label_tex(line: Line) -> str:
    # A sound row stands under the row of its cell, whose name it need not repeat.
    return r"\quad sound protocol" if line.protocol == "sound" else escape_tex(line.label)


def _cell_markdown(cell: Cell) -> str:
    return f"**{cell.text}**" if cell.bold else cell.text


def environment(folder: Path) -> jinja2.Environment:
    """Jinja2 with delimiters that LaTeX leaves alone; the `tex` and `md` filters escape."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        block_start_string=r"\BLOCK{",
        block_end_string="}",
        variable_start_string=r"\VAR{",
        variable_end_string="}",
        comment_start_string=r"\REM{",
        comment_end_string="}",
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
        undefined=jinja2.StrictUndefined,
    )
    made.filters |= {"tex": escape_tex, "md": escape_markdown, "cell": _cell_tex, "row": _label_tex}
    return made


def render_tex(
    templates: jinja2.Environment, table: Table, caption: Caption, declared: Mapping[str, Any]
) -> str:
    """One `table` environment, to be \\input by a document that loads booktabs."""
    datasets = list(table.spec["datasets"])
    layout = table.spec["layout"]
    blocks = [
        (
            "" if layout == "columns" else declared["datasets"][group[0]],
            lines(table, declared, group),
        )
        for group in ([datasets] if layout == "columns" else [[name] for name in datasets])
    ]
    spans = header(table, declared)
    return templates.get_template(
        "stacked.tex.j2" if layout == "stacked" else "side.tex.j2"
    ).render(
        key=table.key,
        name=table.name,
        heading=table.spec["heading"],
        metrics=[declared["metrics"][metric]["heading"] for metric in table.spec["metrics"]],
        header=spans,
        columns=last_header(table, spans),
        extra=sum(len(subs) for _, subs in extra_columns(table)),
        blocks=blocks,
        caption=caption,
    )


def render_markdown(table: Table, declared: Mapping[str, Any], dataset: str) -> str:
    """One dataset's rows as a Markdown table, padded so that it reads in a terminal."""
    metrics = [declared["metrics"][metric]["heading"] for metric in table.spec["metrics"]]
    printed = lines(table, declared, [dataset])
    if table.spec["layout"] == "stacked":
        head = [table.spec["heading"], *metrics]
        body = []
        for line in printed:
            text = escape_markdown(line.label)
            parts = (text, f"{text}: measured", f"{text}: difference")
            for index, part in enumerate(parts if line.ours else parts[:1]):
                body.append([part, *(_cell_markdown(cells[index]) for cells in line.cells)])
    else:
        head = [table.spec["heading"]]
        head += [f"{top} {sub}".strip() for top, subs in extra_columns(table) for sub in subs]
        head += [text for metric in metrics for text in (f"{metric} publ.", "meas.", "diff.")]
        body = [
            [escape_markdown(line.label), *line.extra]
            + [_cell_markdown(cell) for cells in line.cells for cell in cells]
            for line in printed
        ]
    return markdown_table(head, body)


def markdown_table(head: list[str], body: list[list[str]]) -> str:
    """Padded, the first column to the left and the others to the right."""
    # A rule needs a dash beside its colon.
    widths = [max(2, *(len(row[i]) for row in [head, *body])) for i in range(len(head))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]

    def padded(row: list[str]) -> str:
        rest = [text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True)]
        return f"| {' | '.join([row[0].ljust(widths[0]), *rest])} |"

    return "\n".join(padded(row) for row in [head, rule, *body])


def frame(table: Table) -> pd.DataFrame:
    """Tidy: a line for each row, dataset and protocol, with the runs and files behind it.

    Scores are percentages (HD95: as published), rounded to 4 decimals; empty where there is none.
    """
    extra = [name for _, subs in extra_columns(table) for name in subs.values()]
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
                record[f"published_{metric}"] = figure.published
                record[f"measured_{metric}"] = figure.measured
                record[f"difference_{metric}"] = figure.difference
                record[f"std_{metric}"] = figure.std
            record["n_seeds"] = len(found)
            record["runs"] = ";".join(result.run.name for result in found)
            record["metrics_files"] = ";".join(result.path for result in found)
            records.append(record)
    return pd.DataFrame(records).round(4)


Blocks = list[tuple[str, list[list[str]]]]


def render_sound_tex(templates: jinja2.Environment, blocks: Blocks, caption: Caption) -> str:
    """The sound metrics as a `longtable`, to be \\input by a document that loads it."""
    return templates.get_template("sound.tex.j2").render(
        blocks=blocks,
        head=sound_head(),
        sizes=SOUND_HEADINGS,
        scores=len(SOUND),
        caption=caption,
    )


def render_sound_markdown(blocks: Blocks) -> str:
    """The sound metrics as one Markdown table, the view in its first column."""
    head = ["Data", *sound_head()]
    for place, size in enumerate(SOUND_HEADINGS):
        column = len(head) - len(SOUND) * (len(SOUND_HEADINGS) - place)
        head[column] = f"{size}: {head[column]}"
    body = [[title, escape_markdown(row[0]), *row[1:]] for title, rows in blocks for row in rows]
    return markdown_table(head, body)


def sound_frame(results: list[ImageResult]) -> pd.DataFrame:
    """Tidy: a line for each run; percentages rounded to 4 decimals, empty where undefined."""
    records = []
    for result in results:
        run = result.run
        record: dict[str, Any] = {
            "run": run.name,
            "dataset": result.dataset,
            "size": result.size,
            "cell": run.cell,
            "protocol": run.protocol,
            "seed": run.seed,
            "paper_miou": percent(result.scores.get("miou")),
        }
        for size in SOUND_SIZES:
            for name in SOUND_SCORES:
                score = result.sound[size][name]
                record[f"{size}_{name}"] = percent(score.value)
                record[f"{size}_{name}_low"] = percent(score.low)
                record[f"{size}_{name}_high"] = percent(score.high)
        records.append(record | {"metrics_file": result.path})
    return pd.DataFrame(records)


def percent(fraction: float | None) -> float | None:
    """A fraction 0..1 in percent, to 4 decimals."""
    return None if fraction is None else round(100 * fraction, 4)
