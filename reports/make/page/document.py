"""The page as one HTML file that needs no other file."""

import base64
import hashlib
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from reports.make.figures.listing import figure_folders, read_cases
from reports.make.main_comparison import SAME_IMAGES
from reports.make.page.comparison import comparison
from reports.make.page.examples import examples
from reports.make.page.figures import embedded
from reports.make.page.further import further_tables
from reports.make.page.layout import DASH, MLFLOW
from reports.make.page.tables import INFERENCE, LEGEND, has_inference, sections
from reports.make.report import read_report
from vmunet.files import whole_file

OUTPUT = Path("reports/out/index.html")
TEMPLATES = Path("reports/templates/page")
SCRIPTS = ("models.js", "page.js")  # one after the other: page.js starts what both define


def make_page(root: Path) -> None:
    """Write reports/out/index.html under `root`, completely or not at all.

    Raises InputError if a file that the page shows is missing.
    """
    report = read_report(root)
    folders = figure_folders(report.pictured)
    views = [cases for view in report.pictured if (cases := read_cases(root, view))]
    text = render(
        root / TEMPLATES,
        report=report,
        comparison=comparison(report),
        same_images=SAME_IMAGES,
        examples=examples(views),
        sections=sections(report),
        legend=[LEGEND, *([INFERENCE] if has_inference(report) else []), *report.legend],
        further=further_tables(report),
        figures=[figure for folder in folders for figure in embedded(root, folder)],
        views=views,
    )
    with whole_file(root / OUTPUT) as part:
        part.write_text(text, encoding="utf-8", newline="\n")


def render(folder: Path, **content: Any) -> str:
    """The page's HTML: the templates of `folder`; every text from data is escaped."""
    jinja = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    style, *scripts = ((folder / name).read_text("utf-8") for name in ("page.css", *SCRIPTS))
    script = "\n".join(scripts)
    return jinja.get_template("page.html.j2").render(
        **content,
        dash=DASH,
        mlflow_address=MLFLOW,
        style=Markup(style),
        script=Markup(script),
        policy=policy(style, script),
    )


def policy(style: str, script: str) -> str:
    """The content security policy: only the page's own style and script, and pictures inside it."""
    digests = [base64.b64encode(hashlib.sha256(part.encode()).digest()) for part in (style, script)]
    styles, scripts = (f"'sha256-{digest.decode()}'" for digest in digests)
    return (
        f"default-src 'none'; img-src data:; style-src {styles}; script-src {scripts}; "
        "base-uri 'none'; form-action 'none'"
    )
