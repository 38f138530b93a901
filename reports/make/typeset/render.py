"""A sheet as text: LaTeX that needs only booktabs, or Markdown."""

from pathlib import Path

import jinja2

from reports.make.typeset.sheet import LONG, Line, Sheet, SheetCell, markdown_table
from reports.make.typeset.text import breakable, escape_markdown, escape_tex
from reports.make.typeset.words import number


def _cell_tex(cell: SheetCell) -> str:
    if cell.prose:
        return rf"\parbox[t]{{7.4em}}{{\raggedright\hangindent.5em {prose_tex(cell.text)}\strut}}"
    text = escape_tex(cell.text).replace(" $\\pm$ ", "\\,$\\pm$\\,")
    text = rf"\textbf{{{text}}}" if cell.bold else text
    return rf"{text}\rlap{{*}}" if cell.star else text


def _label_tex(line: Line) -> str:
    # A sound row stands under the row of its cell, whose name it need not repeat.
    return r"\quad sound protocol" if line.under else wrap_tex(line.cells[0].text)


def wrap_tex(text: str, width: str = "13em", place: str = "t") -> str:
    r"""A text in its own column; in a \parbox of `width` if it is long."""
    if len(text) <= LONG:
        return escape_tex(text)
    side = r"\centering" if place == "b" else r"\raggedright\hangindent1em"
    return rf"\parbox[{place}]{{{width}}}{{{side} {escape_tex(breakable(text, 10))}\strut}}"


def title_tex(text: str) -> str:
    return wrap_tex(text, "40em") if len(text) > 90 else escape_tex(text)


def prose_tex(text: str) -> str:
    """Running text; words that are longer than LONG may be broken."""
    return escape_tex(breakable(text, LONG))


def environment(folder: Path) -> jinja2.Environment:
    """Jinja2 with delimiters that do not occur in LaTeX; the `tex` and `md` filters escape."""
    jinja = jinja2.Environment(
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
    jinja.filters |= {
        "tex": escape_tex,
        "prose": prose_tex,
        "wrap": wrap_tex,
        "title": title_tex,
        "md": escape_markdown,
        "cell": _cell_tex,
        "row": _label_tex,
        "number": number,
    }
    return jinja


def render_tex(templates: jinja2.Environment, sheet: Sheet) -> str:
    r"""One float, or several that continue each other; any document can \input them."""
    return templates.get_template("sheet.tex.j2").render(
        sheet=sheet,
        pages=sheet.pages(),
        total=len(sheet.head),
        columns=_columns(sheet),
    )


def _columns(sheet: Sheet) -> str:
    """The column declaration."""
    parts = ["@{}l"]
    for column in range(2, len(sheet.head) + 1):
        side = "l" if column <= sheet.left else "r"
        parts.append(rf"@{{\hspace{{{sheet.space(column)}}}}}{side}")
    return "".join(parts) + (r"@{\hspace{.5\tabcolsep}}" if sheet.stars else "@{}")


def render_markdown(sheet: Sheet) -> list[tuple[str, str]]:
    """Each block's title and its lines as a Markdown table, padded to read in a terminal."""
    head = list(sheet.head)
    for spans in reversed(sheet.spans):
        for span in spans:
            head[span.first - 1] = f"{span.text}: {head[span.first - 1]}"
    head = [escape_markdown(text) for text in head]
    return [
        (block.title, markdown_table(head, [_markdown(line) for line in block.lines], sheet.left))
        for block in sheet.blocks
    ]


def _markdown(line: Line) -> list[str]:
    texts = []
    for cell in line.cells:
        text = escape_markdown(cell.text)
        text = f"**{text}**" if cell.bold else text
        texts.append(rf"{text}\*" if cell.star else text)
    return texts
