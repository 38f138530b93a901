"""What a sweep that is complete shows: Table III, and where the report lies."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from textwrap import wrap
from typing import Any

from pipeline.sweep.stage_runner import read_json

SHOWN = "III"
TABLES, PAGE = Path("reports/out/tables"), Path("reports/out/index.html")
PDF = Path("reports/out/report.pdf")
NO_LATEX = f"not made: LaTeX is missing; {PDF} says what to install"


def results(root: Path) -> str:
    """Table III as text, and the paths of the page, the PDF and the tables; '' without a report.

    The stage `tables` has computed and worded everything; this only prints it.
    """
    report = read_json(root / TABLES / "report.json")
    tables = {part["table"]["key"]: part for part in report.get("parts", ()) if part.get("table")}
    if SHOWN not in tables:
        return ""
    part = tables[SHOWN]
    caption = part["sheet"]["caption"]
    lines = ["", f"Table {SHOWN}. {caption['title']}. {caption['text']}"]
    for origin in caption["origins"]:
        lines.append(f"{origin['name']}: {origin['text']} {origin['caution']}".rstrip())
    columns = shutil.get_terminal_size().columns
    lines = [line for text in lines for line in wrap(text, columns) or [""]]
    whole, pieces = aligned(part["sheet"]), [sheet for _, sheet in part["terminal"]]
    if len(whole[-1]) <= columns:
        lines += ["", *whole]
    else:
        for sheet in pieces:
            lines += ["", *aligned(sheet)]
    pdf = PDF if made_with_latex(root / PDF) else NO_LATEX
    return "\n".join([*lines, "", f"page    {PAGE}", f"PDF     {pdf}", f"tables  {TABLES}"])


def aligned(sheet: Mapping[str, Any]) -> list[str]:
    """The lines of a sheet of report.json: headings over columns, then the rows."""
    rows = [
        [cell["text"] for cell in line["cells"]] for b in sheet["blocks"] for line in b["lines"]
    ]
    head = list(sheet["head"])
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    spans = sheet.get("spans", ())
    starts = [sum(widths[:column]) + 2 * column for column in range(len(widths))]
    lines = []
    for row in spans:
        line = ""
        for span in row:
            line = f"{line:{starts[span['first'] - 1]}}{span['text']}  "
        lines.append(line.rstrip())
    for texts in (head, *rows):
        first, *others = (
            f"{text:{width}}" if column == 0 else f"{text:>{width}}"
            for column, (text, width) in enumerate(zip(texts, widths, strict=True))
        )
        lines.append("  ".join([first, *others]))
    return lines


def made_with_latex(pdf: Path) -> bool:
    """Whether LaTeX made the PDF; without LaTeX the file only says how to install it."""
    return pdf.is_file() and b"pdfTeX" in pdf.read_bytes()
