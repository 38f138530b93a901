"""The scores of nnU-Net on the images of a view, if `vmunet nnunet score` has written them.

They are of no declared run: no seed, no cell of params.yaml, an own protocol. A view without the
file has no such scores.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from pipeline.config.nnunet import TRAINER, metrics_folder
from reports.make.files import read_json, trusted
from reports.make.results.metrics import SCORES, Result, finite_scores

if TYPE_CHECKING:
    from pipeline.config.params import Params

FOREIGN = "nnunet"  # the row's protocol and cell


@dataclass(frozen=True)
class Foreign:
    """Scores of another software.

    Attributes:
        view: whose images it was trained and tested on.
        path: its metrics file, relative to the repository root, with forward slashes.
        trainer: nnU-Net's class that trained.
        scores: the `paper` set, fractions 0..1 (distances in their own unit).
    """

    view: str
    path: str
    trainer: str
    scores: Mapping[str, float]

    @property
    def short(self) -> bool:
        """Whether it was not trained as nnU-Net trains by default."""
        return self.trainer != TRAINER


def read_foreign(
    root: Path, params: "Params", view: str, metrics: Iterable[str], results: Sequence[Result]
) -> Foreign | None:
    """nnU-Net's scores on a view; None if it has no file, or no run of our own beside it.

    Raises:
        InputError: the file is unreadable, or its data are not those of the view's runs.
    """
    path = (metrics_folder(view, params.profile_name) / "metrics.json").as_posix()
    ours = next((result for result in results if result.run.view == view), None)
    if ours is None or not (root / path).is_file():
        return None
    again = f"run `vmunet nnunet score {view}`, or remove the folder"
    content = read_json(root, path, SCORES, again)
    view_of = params.view(view)
    run = {
        "profile": params.profile_name,
        "view": view,
        "dataset": view_of.dataset,
        "size": view_of.size,
    }
    with trusted(path, SCORES, again):
        _check(content, "run", run, "params.yaml")
        # A view has arrays for each protocol; nnU-Net has the first's.
        data = {name: value for name, value in ours.data.items() if name != "protocol"}
        _check(content, "data", data, ours.path)
        scores = finite_scores(content["paper"], metrics)
        return Foreign(view, path, str(content["run"]["trainer"]), scores)


def _check(
    content: Mapping[str, Any], block: str, expected: Mapping[str, Any], origin: str
) -> None:
    """Raise ValueError if a block has another value than expected."""
    for name, value in expected.items():
        if (recorded := content[block].get(name)) != value:
            raise ValueError(
                f"its {block}.{name} is {_short(recorded)}, but {_short(value)} in {origin}"
            )


def _short(value: object) -> str:
    return shorten(repr(value), 60, placeholder=" ...")
