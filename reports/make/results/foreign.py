"""The scores of nnU-Net on the images of a view, if `vmunet nnunet score` has written them.

They are of no declared run: no seed, no cell of params.yaml, an own protocol. A view without the
file has no such scores.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config.nnunet import TRAINER, metrics_folder
from reports.make.files import read_json, trusted
from reports.make.results.metrics import SAID, SCORES, Result

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
    with trusted(path, SCORES, again):
        for name in SAID:
            if content["data"][name] != ours.data[name]:
                raise ValueError(
                    f"its data.{name} is {content['data'][name]!r}, but {ours.data[name]!r} in "
                    f"{ours.path}"
                )
        if (profile := content["run"]["profile"]) != params.profile_name:
            raise ValueError(f"its profile is {profile!r}, not {params.profile_name!r}")
        scores = {name: float(content["paper"][name]) for name in metrics}
        return Foreign(view, path, str(content["run"]["trainer"]), scores)
