"""The subcommand `vmunet nnunet`: train nnU-Net on a view, and score it as our models are scored.

nnU-Net's own programs do the work, in .nnunet/<view>/. They may be in an environment of their own,
whose programs are on PATH.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.config.nnunet import Place

HELP = "train nnU-Net 2D on a view's images, and score it beside our models"
ABOUT = """\
Train nnU-Net v2 (2D) on the images of a view, predict its test images and score them with the
functions that score our models. Run it in the repository's root.

  export   write data/arrays/VIEW in nnU-Net's raw format to .nnunet/VIEW/raw
  train    plan, preprocess and train fold 0, which is our split; a stopped training goes on
  predict  segment the test images, which no training sees
  score    write metrics/<profile>/VIEW/nnunet, which the tables show if it is there
"""
NOTES = """\
examples:
  vmunet nnunet export isic17-256
  vmunet nnunet train isic17-256                          (nnU-Net's own 1000 epochs)
  vmunet nnunet predict isic17-256
  vmunet nnunet score isic17-256
  vmunet nnunet train isic17-64 --trainer nnUNetTrainer_1epoch --device cpu       (a trial)

It needs nnU-Net: pip install -e '.[nnunet]', or an environment of its own whose programs are on
PATH (docs/nnunet.md).
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `vmunet nnunet`."""
    parser.set_defaults(command=nnunet)
    parser.add_argument("action", choices=list(ACTIONS))
    parser.add_argument("view", metavar="VIEW", help="a view of params.yaml, or your own dataset")
    parser.add_argument(
        "--trainer",
        metavar="CLASS",
        help="nnU-Net's class that trains, such as nnUNetTrainer_5epochs (default: nnUNetTrainer); "
        "the same for train, predict and score",
    )
    parser.add_argument(
        "--device", choices=["cuda", "cpu", "mps"], default="cuda", help="default: cuda"
    )


def nnunet(arguments: argparse.Namespace) -> int:
    """Run the subcommand; the status is that of the program that it starts.

    Raises:
        InputError: there is no such view, an earlier step is missing, or nnU-Net is not installed.
    """
    from pipeline.config.nnunet import TRAINER, Place
    from pipeline.config.params import load_params

    load_params().view(arguments.view)
    place = Place(arguments.view, arguments.trainer or TRAINER)
    return ACTIONS[arguments.action](place, arguments.device)


def _export(place: "Place", device: str) -> int:
    return _stage("export", place)


def _train(place: "Place", device: str) -> int:
    from pipeline.config.nnunet import CONFIGURATION, NUMBER
    from vmunet.data.nnunet import SPLITS

    _need(place.dataset / "dataset.json", "export", place)
    again = (place.results / "checkpoint_latest.pth").is_file()
    if not again:
        # predictions of an earlier model would be scored as those of the new one
        shutil.rmtree(place.predictions, ignore_errors=True)
        options = ["-d", str(NUMBER), "-c", CONFIGURATION]
        options += ["-np", _processes(), "-npfp", _processes()]
        status = _program(place, "plan_and_preprocess", *options, "--verify_dataset_integrity")
        if status:
            return status
        shutil.copyfile(place.dataset / SPLITS, place.preprocessed / SPLITS)
    training = (str(NUMBER), CONFIGURATION, "0", "-tr", place.trainer, "-device", device)
    return _program(place, "train", *training, *(("--c",) if again else ()))


def _predict(place: "Place", device: str) -> int:
    from pipeline.config.nnunet import CONFIGURATION, NUMBER

    _need(place.checkpoint, "train", place)
    shutil.rmtree(place.predictions, ignore_errors=True)
    images = (place.dataset / "imagesTs").resolve()
    folders = ("-i", str(images), "-o", str(place.predictions.resolve()))
    model = ("-d", str(NUMBER), "-c", CONFIGURATION, "-f", "0", "-tr", place.trainer)
    return _program(place, "predict", *folders, *model, "-device", device)


def _score(place: "Place", device: str) -> int:
    return _stage("score", place)


ACTIONS = {"export": _export, "train": _train, "predict": _predict, "score": _score}


def _need(path: Path, action: str, place: "Place") -> None:
    from vmunet.errors import InputError

    if not path.is_file():
        raise InputError(f"{path}: no such file; run `vmunet nnunet {action} {place.view}` first")


def _stage(action: str, place: "Place") -> int:
    words = (action, place.view, "--trainer", place.trainer)
    return subprocess.run([sys.executable, "-m", "stages.nnunet", *words], check=False).returncode


def _program(place: "Place", name: str, *options: str) -> int:
    """Run one of nnU-Net's programs in the view's folders, and return its exit status."""
    from vmunet.errors import InputError

    places = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    program = shutil.which(f"nnUNetv2_{name}", path=places)
    if program is None:
        raise InputError(
            f"nnUNetv2_{name} is not on PATH; run pip install -e '.[nnunet]', or put the programs "
            "of an environment with nnunetv2 on PATH (docs/nnunet.md)"
        )
    # nnU-Net starts 12 processes by default, on a small machine too
    environment = {"nnUNet_n_proc_DA": _processes(), **os.environ, **place.environment}
    return _run([program, *options], environment)


def _run(command: Sequence[str], environment: dict[str, str]) -> int:
    print("$", " ".join(command), flush=True)
    return subprocess.run(command, env=environment, check=False).returncode


def _processes() -> str:
    return str(min(8, os.cpu_count() or 1))
