"""The tag of an MLflow run that names the paper's tables which show the run."""

from pathlib import Path

from pipeline.config.params import Params
from pipeline.config.runs import Run
from reports.make.results import views
from vmunet.errors import InputError


def tables_of(run: Run, params: Params, root: Path = Path(".")) -> str:
    """The tables' numerals, such as `I III IV`; '' for a run that no table shows.

    If the tables' declarations have a mistake, the tag is empty and training continues.
    """
    try:
        return " ".join(views.tables_of(run, params, root))
    except InputError:
        return ""
