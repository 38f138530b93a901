"""A table's content before it is LaTeX or Markdown: caption, headings, blocks of lines, cells."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Literal

LONG = 34  # characters of a label beyond which LaTeX breaks it into lines
BROKEN = 22  # the least number of characters that such a line holds
PROSE = 15  # characters of a line of a prose cell
LINES_PER_FLOAT = (
    36  # printed lines under the headings; more of them and the notes do not fit on a page
)


Kind = Literal["phantom", "sample", "real", "none"]


@dataclass(frozen=True)
class Origin:
    """What the figures of one dataset were made from.

    Attributes:
        name: the dataset's, such as ISIC17.
        kind: `phantom`, `sample` (a part of the real data), `real`, or `none` if nothing was
            measured.
        short: the counts, in words within a sentence; '' if nothing was measured.
        text: counts, source and sizes; the end of a sentence that starts with the name.
        caution: what such figures do not say, a sentence; '' for the real data.
    """

    name: str
    kind: Kind
    short: str
    text: str
    caution: str

    @property
    def sentences(self) -> str:
        return f"{self.name}: {self.text} {self.caution}".strip()

    @property
    def tagged(self) -> str:
        """The dataset's name as a heading; it says so if the data are not the whole real ones."""
        tag = {"phantom": " (phantoms)", "sample": " (sample)"}.get(self.kind, "")
        return self.name + tag


@dataclass(frozen=True)
class Caption:
    """A table's words.

    Attributes:
        text: profile, seeds, runs and size of the models, one sentence.
        origins: what each dataset's figures were made from, in the order of the table.
        notes: what is true of this table.
        legend: what is true of several tables, so that a document can say it once.
    """

    title: str
    text: str
    origins: tuple[Origin, ...]
    notes: tuple[str, ...]
    legend: tuple[str, ...]


@dataclass(frozen=True)
class SheetCell:
    """One cell; LaTeX breaks the text of a `prose` cell into lines."""

    text: str
    bold: bool = False
    star: bool = False
    prose: bool = False


@dataclass(frozen=True)
class Line:
    """A printed row: `cells` has one for each column, the label first.

    `under` is a row of the sound protocol, which stands under that of its cell and whose label
    LaTeX need not repeat; `apart` leaves a little space above.
    """

    cells: tuple[SheetCell, ...]
    under: bool = False
    apart: bool = False

    @property
    def height(self) -> int:
        """In printed lines."""
        prose = [-(-len(cell.text) // PROSE) for cell in self.cells if cell.prose]
        return max(lines_of(self.cells[0].text), *prose, 1)


@dataclass(frozen=True)
class Block:
    """Lines under a title, which may be empty; a `whole` block is not split between two floats."""

    title: str
    lines: tuple[Line, ...]
    whole: bool = False

    @property
    def height(self) -> int:
        return sum(line.height for line in self.lines) + bool(self.title)


@dataclass(frozen=True)
class Span:
    """A heading over columns `first` to `last`, counted from 1."""

    text: str
    first: int
    last: int

    @property
    def width(self) -> int:
        return self.last - self.first + 1


@dataclass(frozen=True)
class Sheet:
    """A table as it is printed.

    Attributes:
        name: the name of its files, and of its label: `tab:<name>`.
        source: the file in which a person changes the table; the first line of its file names it.
        spans: rows of headings above the columns' own, from the top.
        head: a heading for each column.
        left: the number of columns, from the first, that are set flush left.
    """

    name: str
    caption: Caption
    head: tuple[str, ...]
    blocks: tuple[Block, ...]
    spans: tuple[tuple[Span, ...], ...] = ()
    left: int = 1
    source: str = "reports/tables.yaml"

    @property
    def wide(self) -> set[int]:
        """The columns, counted from 1, with more space before them: each heading's first one."""
        return {span.first for span in self.spans[-1]} if self.spans else set()

    def space(self, column: int) -> str:
        r"""The space between a column and the one before it, as a fraction of \tabcolsep."""
        part = "1.2" if column in self.wide else ".9" if self.stars else ".8"
        return rf"{part}\tabcolsep"

    @property
    def stars(self) -> bool:
        """Whether any figure has a star, which needs a little room."""
        return any(c.star for block in self.blocks for line in block.lines for c in line.cells)

    def pages(self) -> list[tuple[Block, ...]]:
        """The blocks of each float: about `LINES_PER_FLOAT` lines, evenly filled."""
        return pages(self.blocks, LINES_PER_FLOAT)


def plain(texts: Iterable[str]) -> tuple[SheetCell, ...]:
    return tuple(SheetCell(text) for text in texts)


def lines_of(label: str) -> int:
    """How many lines a label takes up."""
    return 1 if len(label) <= LONG else -(-len(label) // BROKEN)


def pages(blocks: Sequence[Block], limit: int) -> list[tuple[Block, ...]]:
    """Split the blocks, in order, into as few parts of at most `limit` lines as possible.

    A block that does not fit continues in the next part under the same title. A `whole` block
    starts in the next part. No part ends with a title.
    """
    total = sum(block.height for block in blocks)
    if total > limit:  # parts of about the same height
        limit = min(limit, -(-total // -(-total // limit)) + 2)
    parts: list[list[Block]] = [[]]
    room = limit
    for block in blocks:
        rest = block
        while rest.lines:
            heights = accumulate(line.height for line in rest.lines)
            fits = sum(height <= room - bool(rest.title) for height in heights)
            if rest.height <= room:
                parts[-1].append(rest)
                room -= rest.height
                break
            if room < limit and (rest.whole or fits < 2):
                parts.append([])
                room = limit
                continue
            cut = len(rest.lines) if rest.whole else max(1, fits)
            parts[-1].append(replace(rest, lines=rest.lines[:cut]))
            title = f"{block.title} (continued)" if block.title else ""
            rest = replace(rest, title=title, lines=rest.lines[cut:])
            parts.append([])
            room = limit
    return [tuple(part) for part in parts if part]


def markdown_table(head: Sequence[str], body: Sequence[Sequence[str]], left: int = 1) -> str:
    """Pad the cells; the first `left` columns are flush left, the others flush right."""
    # A rule needs a dash beside its colon.
    widths = [max(2, *(len(row[i]) for row in [head, *body])) for i in range(len(head))]
    rule = ["-" * width if i < left else "-" * (width - 1) + ":" for i, width in enumerate(widths)]

    def padded(row: Sequence[str]) -> str:
        texts = (
            text.ljust(width) if i < left else text.rjust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        return f"| {' | '.join(texts)} |"

    return "\n".join(padded(row) for row in [head, rule, *body])
