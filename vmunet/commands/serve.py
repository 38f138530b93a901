"""The subcommand `vmunet serve`: a page on this machine where one drops an image.

Heavy imports stand inside the functions, so that `--help` answers at once.
"""

import argparse
from pathlib import Path

HELP = "open a page on this machine where one drops an image"
ABOUT = """\
Start a page on 127.0.0.1 where one drops an image and sees its mask, the overlay and the area of
each class, and saves the mask as PNG. Nothing leaves this machine, and no other machine can open
the page. Ctrl-C ends it. Needs: pip install 'vmunet[serve]'.
"""
NOTES = """\
WEIGHTS is a checkpoint (.safetensors, or a published .pth), a run's folder, or a folder of runs
such as the seeds of one cell: their probabilities are averaged. CT volumes go through `vmunet
predict`.

examples:
  vmunet serve runs/isic17-128/scratch/sound/42
  vmunet serve weights.safetensors --port 8000
"""
NEEDED = ("starlette", "uvicorn")
PORT = 7860


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `vmunet serve`."""
    parser.set_defaults(command=serve)
    add = parser.add_argument
    add("weights", metavar="WEIGHTS", type=Path, help="a checkpoint, a run, or a folder of runs")
    add("--port", type=int, default=PORT, help=f"({PORT}; 0 takes any free one)")
    add(
        "--max-pixels",
        metavar="N",
        type=int,
        default=100_000_000,
        help="take images of up to N px (%(default)s)",
    )
    add("--device", metavar="D", help="cpu, cuda or cuda:N (default: cuda if there is one)")


def serve(arguments: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C.

    Raises:
        InputError: a package is missing, the port is taken, or the weights cannot be used.
    """
    from importlib.util import find_spec

    from vmunet.errors import InputError

    if not all(find_spec(name) for name in NEEDED):
        raise InputError("serve needs starlette and uvicorn: pip install 'vmunet[serve]'")

    from vmunet.data.limits import raise_limits
    from vmunet.serving.app import listen, make_app, make_server
    from vmunet.serving.examples import find_examples
    from vmunet.serving.segmenter import Segmenter
    from vmunet.training.processor import use_processor

    raise_limits(arguments.max_pixels)
    with listen(arguments.port) as listener:
        use_processor()
        segmenter = Segmenter(arguments.weights, arguments.device)
        app = make_app(segmenter, str(arguments.weights), find_examples(arguments.weights))
        host, port = listener.getsockname()
        address = f"http://{host}:{port}"
        print(f"{address} segments images with {arguments.weights}; Ctrl-C ends it", flush=True)
        try:
            make_server(app).run(sockets=[listener])
        except KeyboardInterrupt:  # the usual end
            print()
    return 0
