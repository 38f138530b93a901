"""The report as one page that needs nothing else: reports/out/index.html.

Reads params.yaml, reports/published.yaml, reports/tables.yaml, reports/templates/page/, the metrics
file of each run of the grid, reports/out/tables/*.csv, reports/out/figures/ and
reports/out/pictures/; writes reports/out/index.html: provenance, every table with links from each
figure to its metrics file and MLflow run, every figure, and every test case with truth and
prediction. Scripts, styles and pictures are inside: the page asks no network for anything.
"""

import argparse
import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from pipeline.config.params import Params, load_params
from pipeline.config.runs import Run, runs
from pipeline.stage import run_stage
from reports.make.figures.listing import figure_folders, pictured_views, read_cases
from reports.make.page.csv import further_tables
from reports.make.page.figures import embedded
from reports.make.page.layout import DASH
from reports.make.page.tables import INFERENCE, LEGEND, has_inference, sections
from reports.make.results.metrics import read_results
from reports.make.results.provenance import provenance_of
from reports.make.results.statistics import Statistics
from reports.make.results.views import load_yaml
from reports.make.tables.parts import Report
from reports.make.tables.rows import Assembler, wanted_metrics
from vmunet.files import whole_file

OUTPUT = Path("reports/out/index.html")
TEMPLATES = Path("reports/templates/page")
TABLES = Path("reports/out/tables")


def make_page(
    root: Path,
    params: Params,
    declared_runs: Sequence[Run],
    statistics: Statistics | None = None,
) -> None:
    """Write reports/out/index.html under `root`, whole or not at all.

    `statistics` brings the figures' intervals and tests; without them there are none.

    Raises InputError where what the page shows is missing, malformed or does not fit together.
    """
    declared = load_yaml(root / "reports/tables.yaml")
    published = load_yaml(root / "reports/published.yaml")
    names = declared["datasets"]
    results = read_results(root, params, declared_runs, wanted_metrics(declared))
    tables = Assembler(params, declared, published, results, statistics).tables()
    parts = Report(root, params, declared, published, results, tables, None).parts()
    captions = {part.sheet.name: part.sheet.caption for part in parts}
    references = published["references"].values()
    text = render(
        root / TEMPLATES,
        provenance=provenance_of(params, results, names),
        sections=sections(tables, captions, declared),
        legend=[LEGEND, INFERENCE] if has_inference(tables) else [LEGEND],
        further=further_tables(root / TABLES, captions),
        figures=[figure for folder in figure_folders(params) for figure in embedded(root, folder)],
        views=[cases for view in pictured_views(params) if (cases := read_cases(root, view))],
        references=sorted(references, key=lambda reference: reference["number"]),
        paper=published["paper"],
    )
    with whole_file(root / OUTPUT) as part:
        part.write_text(text, encoding="utf-8", newline="\n")


def render(folder: Path, **content: Any) -> str:
    """The page's HTML: the templates of `folder`, with all that comes from data escaped."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    style, script = ((folder / name).read_text("utf-8") for name in ("page.css", "page.js"))
    return made.get_template("page.html.j2").render(
        **content,
        dash=DASH,
        style=Markup(style),
        script=Markup(script),
        policy=policy(style, script),
    )


def policy(style: str, script: str) -> str:
    """What a browser lets the page do: its own style and script, pictures inside it, no more."""
    own = [base64.b64encode(hashlib.sha256(part.encode()).digest()) for part in (style, script)]
    styles, scripts = (f"'sha256-{digest.decode()}'" for digest in own)
    return (
        f"default-src 'none'; img-src data:; style-src {styles}; script-src {scripts}; "
        "base-uri 'none'; form-action 'none'"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Write the page of the declared grid."""
    argparse.ArgumentParser(prog="python -m stages.page", description=__doc__).parse_args(argv)
    params = load_params()
    make_page(Path(), params, runs(params), Statistics(Path()))
    print(f"written to {OUTPUT}")


if __name__ == "__main__":
    run_stage(main)
