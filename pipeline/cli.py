"""The command `vmunet`: segment with trained weights, look at and choose what is run.

Imports of anything heavy stand inside the subcommands, so that `--help` answers at once.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.commands import compare as compare_command
from pipeline.commands import mlflow as mlflow_command
from pipeline.commands import predict as predict_command
from pipeline.commands import search as search_command
from pipeline.commands import sweep as sweep_command
from pipeline.commands import ui as ui_command

ABOUT = """\
VM-UNet (Vision Mamba UNet) for the segmentation of skin lesions and of organs in CT.

To train the models and build the paper's tables, use `make tables` or `dvc repro`, or several cells
at once with `vmunet sweep`; to train a single cell of the grid,
`dvc repro train@isic17-256-base-paper-42`. `vmunet runs` lists the names that follow the @,
`vmunet runs --help` what stands before it.
"""

EXAMPLES = """\
examples:
  vmunet predict weights.safetensors photo.jpg --out masks
  vmunet predict runs/isic17-256/base/paper/42 photos/ --out masks --overlay --tta
  vmunet predict runs/isic17-256/base/paper photos/ --out masks     (the mean over its seeds)
  vmunet predict ct.safetensors scan.nii.gz --out labels --overlay
  vmunet profile                                  (which budget is active, and the others)
  vmunet profile small                            (switch; `make tables` then follows it)
  vmunet runs                                     (the declared grid and what is done)
  vmunet sweep --tables 3,4                       (the cells of two tables, several at once)
  vmunet compare base scratch                     (is one cell better, or is it chance?)
  vmunet search isic17-64 --trials 30             (better settings, on held-out training images)
  vmunet ui                                       (the pages of MLflow and Prefect)
"""

EXPORT = """\
Write a trained model as ONNX, for one image of a fixed size. Input `images`: (1, 3, PX, PX)
float32, min-max normalised to 0..255 as `vmunet predict` does it. Output `logits`: (1, 1, PX, PX);
the lesion is where they are positive. With several classes (1, classes + 1, PX, PX): the largest
is the label. Needs the exporter: pip install 'vmunet[export]'. Takes about a minute, and runs
slower than PyTorch: the scan is a plain loop there.
"""

RUNS = """\
List every run that the active profile declares, and whether its weights and metrics are there.
Run it in the repository's root. `dvc repro STAGE@NAME` makes one of them up to date; STAGE is

  evaluate              the grid's isic views under its protocols
  evaluate_elsewhere    its other sizes
  evaluate_sound        its cells under the sound protocol
  evaluate_volumes      its volumes
  evaluate_own_images   images of your own
  evaluate_own_volumes  volumes of your own

and the same with train in place of evaluate trains without scoring.
"""


def _export(arguments: argparse.Namespace) -> None:
    from vmunet.inference.export import export_onnx
    from vmunet.inference.images import load_members

    (member, *others) = load_members([arguments.weights], size=arguments.size, device="cpu")
    if others:
        from vmunet.errors import InputError

        raise InputError(f"{arguments.weights}: holds several models; export takes one")
    export_onnx(member.model, arguments.out, member.size)
    print(f"{arguments.out}: for images of {member.size}x{member.size}")


def _profile(arguments: argparse.Namespace) -> None:
    from pipeline.config.params import PROFILES, load_params, read_yaml
    from pipeline.config.profiles import grid_edits, switch_profile

    if arguments.name:
        switch_profile(arguments.name, arguments.replace)
    active = load_params().profile_name
    for file in sorted(PROFILES.glob("*.yaml")):
        mark = "*" if file.stem == active else " "
        about = " ".join(str(read_yaml(file).get("about", "")).split())
        print(f"{mark} {file.stem:6} {about}")
    if edits := grid_edits():
        print("params.yaml differs from the profile, by hand:", *edits, sep="\n  ")


def _runs(arguments: argparse.Namespace) -> None:
    from pipeline.config.params import load_params
    from pipeline.config.runs import own_runs, runs

    params = load_params()
    own = own_runs(params)
    declared = runs(params) + own
    width = max((len(run.name) for run in declared), default=0)
    trained = scored = 0
    for run in declared:
        has_weights = (run.folder / "weights.safetensors").is_file()
        metrics = run.metrics_folder(params.profile_name) / "metrics.json"
        has_metrics = metrics.is_file()
        trained, scored = trained + has_weights, scored + has_metrics
        state = "scored" if has_metrics else "trained" if has_weights else "-"
        print(f"{run.name:{width}}  {state}")
    print(
        f"profile {params.profile_name}: {len(declared)} runs"
        f"{f' ({len(own)} on datasets of your own)' if own else ''}, {trained} with weights, "
        f"{scored} with metrics; `dvc status` says which of them are up to date"
    )


def _version(arguments: argparse.Namespace) -> None:
    import platform
    from importlib.metadata import version

    print(
        f"vmunet {version('vmunet')} (Python {platform.python_version()}, torch {version('torch')})"
    )


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="vmunet", description=ABOUT, epilog=EXAMPLES, formatter_class=raw
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    predict = commands.add_parser(
        "predict",
        help="segment images or CT volumes with trained weights",
        description=predict_command.ABOUT,
        epilog=predict_command.NOTES,
        formatter_class=raw,
    )
    predict_command.add_arguments(predict)

    export = commands.add_parser(
        "export",
        help="write trained weights as an ONNX file",
        description=EXPORT,
        formatter_class=raw,
    )
    export.set_defaults(command=_export)
    export.add_argument(
        "weights", metavar="WEIGHTS", type=Path, help="a checkpoint, or a run's folder"
    )
    export.add_argument(
        "--out", metavar="FILE", type=Path, required=True, help="the .onnx file to write"
    )
    export.add_argument(
        "--size",
        metavar="PX",
        type=int,
        help="side of the square the model sees (default: what it was trained with)",
    )

    profile = commands.add_parser(
        "profile",
        help="show the profiles, or switch to one",
        description="Show the profiles (budgets) and which is active, or switch to NAME: "
        "params.yaml then declares its grid. Run it in the repository's root.",
    )
    profile.set_defaults(command=_profile)
    profile.add_argument(
        "name", metavar="NAME", nargs="?", help="a file of profiles/, without .yaml"
    )
    profile.add_argument(
        "--replace",
        action="store_true",
        help="replace the grid in params.yaml even if it was edited by hand",
    )

    runs = commands.add_parser(
        "runs",
        help="list the declared grid and what is done",
        description=RUNS,
        formatter_class=raw,
    )
    runs.set_defaults(command=_runs)

    sweep = commands.add_parser(
        "sweep",
        help="run the cells that are not up to date, several at once",
        description=sweep_command.ABOUT,
        epilog=sweep_command.NOTES,
        formatter_class=raw,
    )
    sweep_command.add_arguments(sweep)

    compare = commands.add_parser(
        "compare",
        help="two cells on the same test images: differences, intervals, tests",
        description=compare_command.ABOUT,
        epilog=compare_command.NOTES,
        formatter_class=raw,
    )
    compare_command.add_arguments(compare)

    search = commands.add_parser(
        "search",
        help="search better settings for a cell",
        description=search_command.ABOUT,
        epilog=search_command.NOTES,
        formatter_class=raw,
    )
    search_command.add_arguments(search)

    ui = commands.add_parser(
        "ui",
        help="start the pages of MLflow and Prefect",
        description=ui_command.ABOUT,
        formatter_class=raw,
    )
    ui_command.add_arguments(ui)

    mlflow = commands.add_parser(
        "mlflow",
        help="send what MLflow missed, or rebuild its runs",
        description=mlflow_command.ABOUT,
        formatter_class=raw,
    )
    mlflow_command.add_arguments(mlflow)

    version = commands.add_parser("version", help="print the version")
    version.set_defaults(command=_version)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    0; 1 where a part of a sweep failed; 2 for a wrong input; 130 on Ctrl-C.
    """
    arguments = _parser().parse_args(argv)
    from vmunet.errors import InputError

    status = 0
    try:
        status = arguments.command(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # the reader of a pipe (head, less) has seen enough; nothing may be flushed into it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except InputError as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return status or 0


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2
