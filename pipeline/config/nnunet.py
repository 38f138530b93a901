"""Where nnU-Net's data, models and predictions of a view are, and their scores.

nnU-Net knows a dataset by a number. Each view has its own folders, so the number is always 1.
"""

from dataclasses import dataclass
from pathlib import Path

from pipeline.config.params import Params

TRAINER = "nnUNetTrainer"  # nnU-Net's own training: 1000 epochs
CONFIGURATION, PLANS = "2d", "nnUNetPlans"
NUMBER = 1


@dataclass(frozen=True)
class Place:
    """The folders of one view; `trainer` is the class of nnU-Net that trains."""

    view: str
    trainer: str = TRAINER

    @property
    def root(self) -> Path:
        return Path(".nnunet") / self.view

    @property
    def _name(self) -> str:
        return f"Dataset{NUMBER:03}_{self.view}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which nnU-Net finds its folders."""
        folders = {"nnUNet_raw": "raw", "nnUNet_preprocessed": "preprocessed"}
        folders["nnUNet_results"] = "results"
        return {name: str((self.root / folder).resolve()) for name, folder in folders.items()}

    @property
    def dataset(self) -> Path:
        """What is exported."""
        return self.root / "raw" / self._name

    @property
    def preprocessed(self) -> Path:
        return self.root / "preprocessed" / self._name

    @property
    def results(self) -> Path:
        """What a training of fold 0 writes."""
        training = f"{self.trainer}__{PLANS}__{CONFIGURATION}"
        return self.root / "results" / self._name / training / "fold_0"

    @property
    def checkpoint(self) -> Path:
        return self.results / "checkpoint_final.pth"

    @property
    def predictions(self) -> Path:
        return self.root / "predictions" / self.trainer


def of_volumes(view: str, params: Params) -> bool:
    """Whether a view is of volumes. Raises InputError if there is no such view."""
    params.view(view)
    return view in params.grid.volumes or view in params.own.volumes


def arrays_of(view: str, params: Params) -> Path:
    """The arrays that nnU-Net gets: of images those of the view's first protocol."""
    folder = Path("data/arrays") / view
    if of_volumes(view, params):
        return folder
    own = params.own.views()
    protocols = own[view].protocols if view in own else params.grid.views[view].protocols
    return folder / protocols[0]


def metrics_folder(view: str, profile: str, own: bool = False) -> Path:
    """The folder of nnU-Net's scores; those of `own` datasets are not in metrics/<profile>/."""
    return Path("metrics", *(("own",) if own else ()), profile, view, "nnunet")
