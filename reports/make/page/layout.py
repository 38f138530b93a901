"""The parts of a table of the page: headings, rows, and cells with links to their sources."""

from dataclasses import dataclass
from urllib.parse import quote

from reports.make.typeset.sheet import Origin

ROOT = "../.."  # from reports/out/index.html to the repository's root
# The page's default address of MLflow; its reader can name another one.
MLFLOW = "http://127.0.0.1:5000"
DASH = "\u2013"  # replaces a missing figure


@dataclass(frozen=True)
class Source:
    """A run behind a figure; `mlflow` is '' if no MLflow run is known."""

    name: str
    metrics: str
    mlflow: str


@dataclass(frozen=True)
class PageCell:
    """One cell: `text` links to `href`, or, for a measured figure, to its `sources`.

    Attributes:
        sort: the number by which its column is sorted. A cell without a number is sorted by its
            text, and an empty cell (`DASH`) comes last.
        star: the text of its star, '' if it has none.
        small: the lines below the text.
        full: the full text, if only a part of it is shown.
    """

    text: str
    sort: float | None = None
    bold: bool = False
    star: str = ""
    small: tuple[str, ...] = ()
    sources: tuple[Source, ...] = ()
    href: str = ""
    full: str = ""


@dataclass(frozen=True)
class Column:
    """The heading of one column; `of` are the headings above it, for screen readers."""

    text: str
    of: str = ""
    number: bool = True


@dataclass(frozen=True)
class PageTable:
    """A table that can be sorted by each column; the first cell of a row is its heading.

    `origins` say what its figures were made from. `groups` are the rows of headings above the
    columns: a text and the number of columns below it.
    `references[i]` is the number of the paper's reference that row i cites, or None.
    """

    key: str
    caption: str
    origins: tuple[Origin, ...]
    groups: list[list[tuple[str, int]]]
    columns: list[Column]
    rows: list[list[PageCell]]
    references: list[int | None]


def source(name: str, metrics: str, mlflow_run: str) -> Source:
    """Links from the page to a run's metrics file and to MLflow's page of it."""
    return Source(name, linked(metrics), mlflow_page(mlflow_run))


def linked(path: str) -> str:
    """The address of a file in the repository, relative to the page."""
    return f"{ROOT}/{quote(path)}"


def mlflow_page(run: str) -> str:
    """The address of a run on MLflow's page, '' without an id."""
    return f"{MLFLOW}/#/runs/{quote(run, safe='')}" if run else ""
