"""What the stage `tables` computes, as reports/out/tables/report.json holds it.

The tables in LaTeX, CSV and Markdown, the page and the PDF show a `Report` and compute nothing
themselves: rows with their statistics, printed cells, captions, provenance, headline scores.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reports.make.checklists import Checklist
from reports.make.files import trusted
from reports.make.tidy import Tidy
from reports.make.typeset.sheet import Origin, Sheet
from reports.make.typeset.words import count, listed

TABLES = Path("reports/out/tables")
PATH = TABLES / "report.json"
AGAIN = "run `python -m stages.tables`"
LEVEL = 0.05  # a corrected p below this level is significant
UNKNOWN = "not recorded"
OURS = "vmunet"  # the paper's model, in `vmunet.models.MODELS`
NUMERALS = ("I", "II", "III", "IV", "V", "VI")
Bounds = tuple[float | None, float | None]


@dataclass(frozen=True)
class Inference:
    """How sure one measured figure is, from the test images (cases).

    Attributes:
        low, high: its 95% bootstrap interval over them, in the figure's own unit; None if the
            figure is undefined.
        p: two-sided, of the test against VM-UNet's row (the grid's main cell, `base` if it is run,
            under the paper's protocol, at the dataset's base size), corrected by Holm's method for
            the tests in this table, dataset and metric. None for that row itself, and everywhere
            if the grid has no such runs.
        methods: whether p compares two methods, over the seeds (`vmunet.evaluation.runs`); if not,
            it compares these trained models alone, by a paired permutation.
    """

    low: float | None
    high: float | None
    p: float | None
    methods: bool

    @property
    def significant(self) -> bool:
        """Whether two methods differ; of two trained models alone no table claims it."""
        return self.methods and self.p is not None and self.p < LEVEL


@dataclass(frozen=True)
class Difference:
    """A figure of two models on the same test images or cases, in percent; None if undefined.

    Attributes:
        first, second: each model's own 95% interval.
        low, high: that of the second's figure minus the first's.
        p: two-sided.
        methods: as of `Inference`, of the interval too.
    """

    first: Bounds
    second: Bounds
    low: float | None
    high: float | None
    p: float | None
    methods: bool

    @property
    def significant(self) -> bool:
        return self.methods and self.p is not None and self.p < LEVEL


@dataclass(frozen=True)
class Figure:
    """One metric of one row: percent (HD95: its own unit), None if there is none.

    `inference` is there if the figure is measured and the tables are made with statistics.
    """

    published: float | None = None
    measured: float | None = None
    std: float | None = None
    inference: Inference | None = None

    @property
    def difference(self) -> float | None:
        """Measured minus published, in points."""
        if self.published is None or self.measured is None:
            return None
        return self.measured - self.published

    @property
    def difference_interval(self) -> tuple[float, float] | None:
        """The 95% interval of the difference; the published value counts as exact."""
        inference = self.inference
        if self.published is None or inference is None:
            return None
        if inference.low is None or inference.high is None:
            return None
        return inference.low - self.published, inference.high - self.published


@dataclass(frozen=True)
class Row:
    """A row of one of the paper's tables under one protocol.

    Attributes:
        protocol: paper, sound, or `nnunet`: that row has neither runs nor a published figure.
        published: names the row of published.yaml. Under the sound protocol it is the row that
            the measured figures are compared with; the paper reports no such run.
        reference: the number of the paper's reference that the row cites.
        figures: by dataset and metric, without the datasets that the row says nothing about.
        runs: names of the runs that were measured, by dataset, one for each seed.
        extra: the columns between the label and the scores.
        model: the cell's model, a name in `vmunet.models.MODELS`; '' without a cell.
    """

    label: str
    protocol: str
    cell: str | None
    published: str | None
    reference: int | None
    figures: dict[str, dict[str, Figure]]
    runs: dict[str, list[str]]
    extra: tuple[str, ...] = ()
    model: str = ""


@dataclass(frozen=True)
class PaperTable:
    """One of the paper's tables; `spec` is its declaration in reports/tables.yaml."""

    key: str
    spec: Mapping[str, Any]
    rows: list[Row]

    @property
    def name(self) -> str:
        return f"table{NUMERALS.index(self.key) + 1}"

    @property
    def extra_columns(self) -> Mapping[str, str]:
        """The columns between label and scores: the sub-heading, and its column in the CSV."""
        columns = {
            "size": {"Size here": "size_here"},
            "initial": {"Init. weights": "initial_weights"},
        }
        return columns.get(self.spec.get("extra", ""), {})

    @property
    def runs(self) -> list[str]:
        """The names of all runs that the table shows."""
        return [name for row in self.rows for names in row.runs.values() for name in names]

    @property
    def figures(self) -> Iterator[Figure]:
        for row in self.rows:
            for of_dataset in row.figures.values():
                yield from of_dataset.values()


@dataclass(frozen=True)
class Part:
    """One table.

    Attributes:
        sheet: as LaTeX prints it.
        terminal: title and sheet of each piece that Markdown prints it in.
        data: its CSV, None if another part's holds its figures.
        table: its rows, if it is one of the paper's six.
    """

    sheet: Sheet
    terminal: tuple[tuple[str, Sheet], ...]
    data: Tidy | None
    table: PaperTable | None = None

    @property
    def numeral(self) -> str:
        return self.table.key if self.table else ""


@dataclass(frozen=True)
class Provenance:
    """Where the figures come from; every output of the report says it.

    Attributes:
        profile, about: the budget's name and its own words.
        data: a sentence for each dataset: source, counts, sizes.
        runs: the number of trained and scored runs in the report.
        seeds: the runs' seeds, sorted.
        revisions: code revisions that they were trained with, `+changes` marking edited sources.
        devices: the devices of the trainings, with the number of processor threads.
        versions: package name -> version, or versions if runs differ.
        seconds: the time of all trainings together, None if a run does not record its own.
    """

    profile: str
    about: str
    data: list[str]
    runs: int
    seeds: list[int]
    revisions: list[str]
    devices: list[str]
    versions: dict[str, str]
    seconds: float | None

    def lines(self) -> list[tuple[str, str]]:
        """(heading, text) in the order in which a report prints them."""
        packages = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        seeds = "seed" if len(self.seeds) == 1 else "seeds"
        took = UNKNOWN if self.seconds is None else duration(self.seconds)
        return [
            ("Profile", f"{self.profile}: {self.about}"),
            ("Data", " ".join(self.data) or "nothing measured"),
            ("Runs", f"{count(self.runs, 'run')}, {seeds} {_texts(self.seeds)}"),
            ("Code revision", _texts(self.revisions)),
            ("Trained on", _texts(self.devices)),
            ("Training time, all runs", took),
            ("Packages", packages or UNKNOWN),
        ]


def duration(seconds: float) -> str:
    """Hours and minutes, or seconds below two minutes."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _texts(values: Sequence[object]) -> str:
    return listed([str(value) for value in values]) if values else UNKNOWN


@dataclass(frozen=True)
class Report:
    """All that the report shows.

    Attributes:
        summary: what was run on what, a sentence.
        provenance: where the figures come from.
        origins: what the figures of each measured dataset were made from, by key.
        paper: the reference of the paper.
        references: the paper's own, `number` and `text`, sorted by number.
        datasets: their names by key; metrics: heading, unit and better direction by key.
        parts: the tables, in order.
        runs: the way from each run to its checkpoint, data, code and MLflow run (runs.csv).
        shown_nowhere: runs that none of the paper's tables shows.
        scores: the runs' headline scores (scores.json).
        checklists: what reporting checklists ask for, with the answers.
        pictured: the views whose test images or cases the report shows, in order.
    """

    summary: str
    provenance: Provenance
    origins: dict[str, Origin]
    paper: str
    references: list[dict[str, Any]]
    datasets: dict[str, str]
    metrics: dict[str, dict[str, str]]
    parts: tuple[Part, ...]
    runs: Tidy
    shown_nowhere: list[str]
    scores: dict[str, dict[str, dict[str, float]]]
    pictured: list[str]
    checklists: tuple[Checklist, ...] = ()

    @property
    def legend(self) -> list[str]:
        """What is true of several tables, each sentence once."""
        lines = (line for part in self.parts for line in part.sheet.caption.legend)
        return list(dict.fromkeys(lines))

    def json(self) -> str:
        """The text of report.json."""
        content = _adapter().dump_json(self, indent=1, exclude_defaults=True)
        return content.decode("utf-8") + "\n"


def read_report(root: Path) -> Report:
    """What `tables` computed.

    Raises:
        InputError: report.json is missing or does not hold a report.
    """
    with trusted(PATH, "what the stage tables computed", AGAIN):
        return _adapter().validate_json((root / PATH).read_bytes())


def _adapter() -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(Report)
