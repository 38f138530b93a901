"""Which of the paper's tables show a run: a tag to find it by."""

from pathlib import Path

from pipeline.config.params import Params
from pipeline.config.runs import Run
from reports.make.results import views
from vmunet.errors import InputError


def tables_of(run: Run, params: Params, root: Path = Path(".")) -> str:
    """The tables' numerals, such as `I III IV`; '' for a run that no table shows.

    A mistake in the tables' declarations costs the tag alone, and no training.
    """
    try:
        return " ".join(views.tables_of(run, params, root))
    except InputError:
        return ""
