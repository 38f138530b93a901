"""The command `vmunet` in a clone: segment with trained weights, list, run and compare cells.

A subcommand is a module of `vmunet.commands` or `pipeline.commands`; these packages describe its
contents. It imports heavy modules inside its functions, so that `--help` answers at once.
"""

from collections.abc import Sequence
from typing import Any

from pipeline.commands import (
    compare,
    doctor,
    mlflow,
    nnunet,
    profile,
    publish,
    runs,
    search,
    sweep,
    ui,
)
from vmunet import cli
from vmunet.commands import export, predict, serve, version

# In the order of `vmunet --help`.
COMMANDS: dict[str, Any] = {
    "predict": predict,
    "serve": serve,
    "export": export,
    "profile": profile,
    "runs": runs,
    "sweep": sweep,
    "compare": compare,
    "search": search,
    "nnunet": nnunet,
    "publish": publish,
    "ui": ui,
    "mlflow": mlflow,
    "doctor": doctor,
    "version": version,
}

ABOUT = """\
VM-UNet (Vision Mamba UNet) for the segmentation of skin lesions and of organs in CT.

To train the models and build the paper's tables, use `make tables` or `dvc repro`, or several cells
at once with `vmunet sweep`; to train a single cell of the grid,
`dvc repro train@isic17-256-base-paper-42`. `vmunet runs` lists the names after the @,
`vmunet runs --help` the words before it.
"""

EXAMPLES = """\
examples:
  vmunet predict weights.safetensors photo.jpg --out masks
  vmunet predict runs/isic17-256/base/paper/42 photos/ --out masks --overlay --tta
  vmunet predict runs/isic17-256/base/paper photos/ --out masks     (the mean over its seeds)
  vmunet predict ct.safetensors scan.nii.gz --out labels --overlay
  vmunet serve runs/isic17-256/base/paper/42      (a page on this machine: drop an image)
  vmunet profile                                  (list the profiles and show the active one)
  vmunet profile small                            (switch; `make tables` then uses it)
  vmunet runs                                     (the declared runs and their states)
  vmunet sweep --tables 3,4                       (the cells of two tables, several at once)
  vmunet compare base scratch                     (is one cell better, or is it chance?)
  vmunet search isic17-64 --trials 30             (better settings, on held-out training images)
  vmunet nnunet export isic17-64                  (the same images for nnU-Net, as one more row)
  vmunet publish isic17-64-base-paper-42 --to model      (a folder for a model hub)
  vmunet ui                                       (the pages of MLflow and Prefect)
  vmunet doctor                                   (what is missing here, and how to get it)
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: that of `vmunet.cli.run`."""
    return cli.run(cli.parser(COMMANDS, ABOUT, EXAMPLES), argv)
