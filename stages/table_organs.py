"""The honest evaluation of volumes: every organ of every run under both conventions."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import jinja2
import pandas as pd

from stages.table_captions import Caption
from stages.table_layout import number, run_order
from stages.table_metrics import VolumeResult
from stages.table_render import Blocks, markdown_table, percent
from stages.table_scores import OrganScores

if TYPE_CHECKING:
    from pipeline.params import Params

MEAN = "mean"
# The convention and its columns, after the organ's.
HEADINGS = (
    ("Paper's convention", ("Dice", "HD95 (voxels)")),
    (
        "Sound convention",
        ("Dice", "n", "HD95 (mm)", "n", "NSD", "n", "absent in both"),
    ),
)


def organ_blocks(
    params: "Params", declared: Mapping[str, Any], results: Sequence[VolumeResult]
) -> Blocks:
    """A block for each run, which its title names; a row of texts for each organ and their mean."""
    return [
        (
            f"{declared['datasets'][result.dataset]} at {result.size}×{result.size}: "
            f"{result.run.cell}, {result.run.protocol} protocol, seed {result.run.seed}",
            [_row(name, scores) for name, scores in _all(result).items()],
        )
        for result in sorted(results, key=run_order(params, declared))
    ]


def _all(result: VolumeResult) -> dict[str, OrganScores]:
    return {**result.organs, MEAN: result.mean}


def _row(name: str, scores: OrganScores) -> list[str]:
    return [
        name.replace("-", " "),
        number(percent(scores.paper_dice)),
        number(scores.paper_hd95),
        number(percent(scores.dice)),
        str(scores.dice_n),
        number(scores.hd95_mm),
        str(scores.hd95_n),
        number(percent(scores.nsd)),
        str(scores.nsd_n),
        str(scores.absent),
    ]


def render_organs_tex(templates: jinja2.Environment, blocks: Blocks, caption: Caption) -> str:
    """The blocks as a `longtable`, to be \\input by a document that loads it."""
    return templates.get_template("organs.tex.j2").render(
        blocks=blocks, headings=HEADINGS, caption=caption
    )


def organs_markdown(blocks: Blocks) -> list[tuple[str, str]]:
    """Each block's title and its Markdown table."""
    head = ["Organ"]
    for convention, columns in HEADINGS:
        first, *others = columns
        head += [f"{convention}: {first}", *others]
    return [(title, markdown_table(head, rows)) for title, rows in blocks]


def organs_frame(results: Sequence[VolumeResult]) -> pd.DataFrame:
    """Tidy: a line for each run and organ, and for the organs' mean, whose counts are OrganScores'.

    Dice and NSD are percentages, rounded to 4 decimals like the distances; empty where undefined.
    """
    records = []
    for result in results:
        run = result.run
        for name, scores in _all(result).items():
            record: dict[str, Any] = {
                "run": run.name,
                "dataset": result.dataset,
                "size": result.size,
                "cell": run.cell,
                "protocol": run.protocol,
                "seed": run.seed,
                "organ": name,
            }
            record |= asdict(scores)
            record |= {score: percent(record[score]) for score in ("paper_dice", "dice", "nsd")}
            records.append(record | {"metrics_file": result.path})
    frame = pd.DataFrame(records).rename(columns={"paper_hd95": "paper_hd95_voxels"})
    return frame.round(4)
