"""What a table of the page is made of: headings, rows, and cells that lead to their sources."""

from dataclasses import dataclass
from urllib.parse import quote

ROOT = "../.."  # from reports/out/index.html to the repository's root, where a source's path starts
# What the page takes for the address of MLflow until its reader names another one.
MLFLOW = "http://127.0.0.1:5000"
DASH = "\u2013"  # stands for a figure that does not exist


@dataclass(frozen=True)
class Source:
    """A run behind a figure; `mlflow` is '' if none is known of it."""

    name: str
    metrics: str
    mlflow: str


@dataclass(frozen=True)
class PageCell:
    """One cell: `text` leads to `href`, or, of a measured figure, to its `sources`.

    Attributes:
        sort: the number by which its column is sorted; a cell without one is sorted by its text,
            and an empty one (`DASH`) comes last.
        star: what its star says, '' if it has none.
        small: lines beneath.
        full: the whole of a text that is shown cut.
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
    """The heading of one column; `of` are the headings above it, for those who cannot see them."""

    text: str
    of: str = ""
    number: bool = True


@dataclass(frozen=True)
class PageTable:
    """A table that can be sorted by each column; the first cell of a row is its heading.

    `groups` are the rows of headings above the columns: a text and how many columns it is over.
    `references[i]` is the number of the paper's reference that row i cites, or None.
    """

    key: str
    caption: str
    groups: list[list[tuple[str, int]]]
    columns: list[Column]
    rows: list[list[PageCell]]
    references: list[int | None]


def source(name: str, metrics: str, mlflow_run: str) -> Source:
    """Links from the page to a run's metrics file and to MLflow's page of it."""
    return Source(name, linked(metrics), mlflow_page(mlflow_run))


def linked(path: str) -> str:
    """The address, as seen from the page, of a file in the repository."""
    return f"{ROOT}/{quote(path)}"


def mlflow_page(run: str) -> str:
    """The address of a run on MLflow's page, '' without an id."""
    return f"{MLFLOW}/#/runs/{quote(run, safe='')}" if run else ""
