"""The subcommand `vmunet export`: a trained model as an ONNX file."""

import argparse
from pathlib import Path

HELP = "write trained weights as an ONNX file"
ABOUT = """\
Write a trained model as ONNX, for one image of a fixed size. Input `images`: (1, 3, PX, PX)
float32, min-max normalised to 0..255 as `vmunet predict` does it. Output `logits`: (1, 1, PX, PX);
a pixel belongs to the lesion if its logit is positive. With several classes the output is
(1, classes + 1, PX, PX), and the largest is the label. Needs the exporter: pip install
'vmunet[export]'. Takes about a minute, and runs slower than PyTorch: the scan is a plain loop in
ONNX.
"""
NOTES = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `vmunet export`."""
    parser.set_defaults(command=export)
    parser.add_argument(
        "weights", metavar="WEIGHTS", type=Path, help="a checkpoint, or a run's folder"
    )
    parser.add_argument(
        "--out", metavar="FILE", type=Path, required=True, help="the .onnx file to write"
    )
    parser.add_argument(
        "--size",
        metavar="PX",
        type=int,
        help="side of the square the model sees (default: what it was trained with)",
    )


def export(arguments: argparse.Namespace) -> None:
    """Run the subcommand.

    Raises:
        InputError: weights that cannot be exported, a wrong size, or the exporter is missing.
    """
    from vmunet.errors import InputError
    from vmunet.inference.ensemble import load_members
    from vmunet.inference.export import export_onnx

    (member, *others) = load_members([arguments.weights], size=arguments.size, device="cpu")
    if others:
        raise InputError(f"{arguments.weights}: holds several models; export takes one")
    export_onnx(member.model, arguments.out, member.size)
    print(f"{arguments.out}: for images of {member.size}x{member.size}")
