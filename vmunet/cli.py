"""The command `vmunet`: segment with trained weights, serve a page of them, export them.

In a clone of the repository the pipeline's commands (sweep, compare, ...) join these: the folder
`pipeline` lies beside the folder of this package there, and its own `main` takes over. It is
imported by name, because the library must not depend on the tools that run it. A wheel holds only
the library; its other commands print what they need.
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from vmunet.commands import export, predict, serve, version
from vmunet.utf8 import use_utf8

COMMANDS: dict[str, Any] = {
    "predict": predict,
    "serve": serve,
    "export": export,
    "version": version,
}
# The commands of pipeline/cli.py, which a wheel does not have.
PIPELINE = (
    "profile",
    "runs",
    "sweep",
    "compare",
    "search",
    "nnunet",
    "publish",
    "ui",
    "mlflow",
    "doctor",
)

ABOUT = "VM-UNet (Vision Mamba UNet) for the segmentation of skin lesions and of organs in CT."
EXAMPLES = """\
examples:
  vmunet predict weights.safetensors photo.jpg --out masks
  vmunet predict weights.safetensors photos/ --out masks --overlay --tta
  vmunet predict ct.safetensors scan.nii.gz --out labels --overlay
  vmunet serve weights.safetensors
  vmunet export weights.safetensors --out model.onnx

In Python: from vmunet import Predictor

The commands that train models and build the paper's tables need a clone of the repository:
"""
EXAMPLES += f"  {', '.join(PIPELINE)}\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: that of `run`."""
    # Before torch is loaded. Idle threads must sleep: by default they spin, and then any other
    # load on the machine makes a small model's step a hundred times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if argv is None:
        use_utf8()
    if in_clone():
        return import_module("pipeline.cli").main(argv)
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in PIPELINE:
        return fail(
            f"vmunet {arguments[0]} is a command of the pipeline, which this installation does not "
            "have: it needs a clone of the repository, and in it pip install -e '.[pipeline]'"
        )
    return run(parser(COMMANDS, ABOUT, EXAMPLES), arguments)


def in_clone() -> bool:
    """Whether the pipeline lies beside this package."""
    return Path(__file__).parents[1].joinpath("pipeline", "cli.py").is_file()


def parser(commands: Mapping[str, Any], about: str, examples: str) -> argparse.ArgumentParser:
    """The parser of a table of command modules: see `vmunet.commands`."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="vmunet", description=about, epilog=examples, formatter_class=raw
    )
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, module in commands.items():
        module.add_arguments(
            subparsers.add_parser(
                name,
                help=module.HELP,
                description=module.ABOUT,
                epilog=getattr(module, "NOTES", ""),
                formatter_class=raw,
            )
        )
    return parser


def run(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> int:
    """Parse the arguments, run their command and return its exit status.

    The status is 0, 1 if a part of a sweep failed, 2 for a wrong input, 130 on Ctrl-C.
    """
    arguments = parser.parse_args(argv)
    from vmunet.errors import InputError

    status = 0
    try:
        status = arguments.command(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # the reader of the pipe (head, less) has closed it: nothing may be flushed into it at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except InputError as error:
        return fail(str(error))
    except OSError as error:
        return fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except ModuleNotFoundError as error:
        return fail(missing(error))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return status or 0


def missing(error: ModuleNotFoundError) -> str:
    """The message about a package that is not installed.

    Raises the error again if the missing module is one of ours, because that is a bug.
    """
    package = (error.name or "").partition(".")[0]
    if package in ("", "vmunet", "pipeline", "stages", "reports"):
        raise error
    extra = "-e '.[pipeline]'" if in_clone() else "'vmunet[pipeline]'"
    return f"the package {package} is not installed; run pip install {extra}"


def fail(message: str) -> int:
    """Print an error's one line, and return the status of a wrong input."""
    print(f"error: {message}", file=sys.stderr)
    return 2
