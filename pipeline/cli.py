"""The command `vmunet`: segment images with trained weights, look at and choose what is run.

Imports of anything heavy stand inside the subcommands, so that `--help` answers at once.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

ABOUT = """\
VM-UNet (Vision Mamba UNet) for skin lesion segmentation.

To train the models and build the paper's tables, use `make tables` or `dvc repro`; to train a
single cell of the grid, `dvc repro train@isic17-256-base-paper-42`. The names are those that
`vmunet runs` lists.
"""

EXAMPLES = """\
examples:
  vmunet predict weights.safetensors photo.jpg --out masks
  vmunet predict runs/isic17-256/base/paper/42 photos/ --out masks --overlay --tta
  vmunet predict runs/isic17-256/base/paper photos/ --out masks     (the mean over its seeds)
  vmunet profile                                  (which budget is active, and the others)
  vmunet profile small                            (switch; `make tables` then follows it)
  vmunet runs                                     (the declared grid and what is done)
"""

PREDICT = """\
Segment images. Each gets a mask of its own size, and predictions.csv a row: file, width, height,
the lesion's share of the image, the mean probability inside it.
"""

PREDICT_EXAMPLES = """\
WEIGHTS is a checkpoint (.safetensors, or a published .pth), a run's folder, or a folder of runs
such as the seeds of one cell: their probabilities are averaged. --ensemble adds further ones,
also of other training sizes.

IMAGES are files and folders. A folder gives its own images, not its subfolders'. Files named
*_mask, *_superpixels, *_segmentation, *_probability or *_overlay are left out. Orientation tags
(EXIF) are ignored: a mask has the pixel grid that the image file stores.

examples:
  vmunet predict weights.safetensors photo.jpg --out masks
  vmunet predict runs/isic17-256/base/paper/42 photos/ more/*.png --out masks --overlay
  vmunet predict runs/isic17-256/base/paper photos/ --out masks --tta --probabilities
  vmunet predict a.safetensors photos/ --out masks --ensemble b.safetensors

Exit status: 0 all images segmented, 2 a wrong argument or an unreadable image (the others are
segmented), 130 interrupted.
"""


EXPORT = """\
Write a trained model as ONNX, for one image of a fixed size. Input `images`: (1, 3, PX, PX)
float32, min-max normalised to 0..255 as `vmunet predict` does it. Output `logits`: (1, 1, PX, PX);
the lesion is where they are positive. Needs the exporter: pip install 'vmunet[export]'. Takes
about a minute, and runs slower than PyTorch: the scan is a plain loop there.
"""


def _predict(arguments: argparse.Namespace) -> None:
    from vmunet.inference import segment_folder
    from vmunet.processor import use_processor

    use_processor()
    done = segment_folder(
        [arguments.weights, *arguments.ensemble],
        arguments.images,
        arguments.out,
        threshold=arguments.threshold,
        tta=arguments.tta,
        size=arguments.size,
        device=arguments.device,
        probabilities=arguments.probabilities,
        overlay=arguments.overlay,
    )
    if done.skipped:
        names = ", ".join(path.name for path in done.skipped[:3])
        more = ", ..." if len(done.skipped) > 3 else ""
        print(
            f"note: left out by their names, as masks, superpixels or overlays: "
            f"{len(done.skipped)} ({names}{more})",
            file=sys.stderr,
        )
    count = len(done.predictions)
    print(f"{count} {'image' if count == 1 else 'images'} segmented into {arguments.out}")


def _export(arguments: argparse.Namespace) -> None:
    from vmunet.export import export_onnx
    from vmunet.inference import load_members

    (member, *others) = load_members([arguments.weights], size=arguments.size, device="cpu")
    if others:
        from vmunet.errors import InputError

        raise InputError(f"{arguments.weights}: holds several models; export takes one")
    export_onnx(member.model, arguments.out, member.size)
    print(f"{arguments.out}: for images of {member.size}x{member.size}")


def _profile(arguments: argparse.Namespace) -> None:
    from pipeline.grid import switch_profile
    from pipeline.params import PROFILES, load_params, read_yaml

    if arguments.name:
        switch_profile(arguments.name)
    active = load_params().profile_name
    for file in sorted(PROFILES.glob("*.yaml")):
        mark = "*" if file.stem == active else " "
        about = " ".join(str(read_yaml(file).get("about", "")).split())
        print(f"{mark} {file.stem:6} {about}")


def _runs(arguments: argparse.Namespace) -> None:
    from pipeline.grid import runs
    from pipeline.params import load_params

    params = load_params()
    declared = runs(params)
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
        f"profile {params.profile_name}: {len(declared)} runs, {trained} with weights, {scored} "
        "with metrics; `dvc status` says which of them are up to date"
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
        help="segment images with trained weights",
        description=PREDICT,
        epilog=PREDICT_EXAMPLES,
        formatter_class=raw,
    )
    predict.set_defaults(command=_predict)
    predict.add_argument(
        "weights", metavar="WEIGHTS", type=Path, help="a checkpoint, a run, or a folder of runs"
    )
    predict.add_argument(
        "images", metavar="IMAGES", type=Path, nargs="+", help="image files and folders"
    )
    predict.add_argument(
        "--out", metavar="DIR", type=Path, required=True, help="folder for the masks"
    )
    predict.add_argument(
        "--ensemble",
        metavar="WEIGHTS",
        type=Path,
        action="append",
        default=[],
        help="average with these weights too; may be repeated",
    )
    predict.add_argument(
        "--tta", action="store_true", help="average over mirrored copies (4 times the work)"
    )
    predict.add_argument(
        "--overlay", action="store_true", help="also write <name>_overlay.jpg: outline and fill"
    )
    predict.add_argument(
        "--probabilities",
        action="store_true",
        help="also write <name>_probability.png: 16 bits, probability x 65535",
    )
    predict.add_argument(
        "--threshold",
        metavar="P",
        type=float,
        default=0.5,
        help="lesion where the probability is at least P (default 0.5)",
    )
    predict.add_argument(
        "--size",
        metavar="PX",
        type=int,
        help="side of the square the model sees (default: what it was trained with)",
    )
    predict.add_argument(
        "--device", metavar="D", help="cpu, cuda or cuda:N (default: cuda where there is one)"
    )

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
    profile.add_argument("name", metavar="NAME", nargs="?", help="demo, small or paper")

    runs = commands.add_parser(
        "runs",
        help="list the declared grid and what is done",
        description="List every run that the active profile declares, and whether its weights "
        "and metrics are there. Run it in the repository's root.",
    )
    runs.set_defaults(command=_runs)

    version = commands.add_parser("version", help="print the version")
    version.set_defaults(command=_version)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0, 2 for a wrong input, 130 on Ctrl-C."""
    arguments = _parser().parse_args(argv)
    from vmunet.errors import InputError

    try:
        arguments.command(arguments)
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
    return 0


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2
