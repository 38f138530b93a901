"""The subcommand `vmunet predict`: images or CT volumes, as the weights were trained for.

Heavy imports stand inside the functions, so that `--help` answers at once.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

HELP = "segment images or CT volumes with trained weights"
ABOUT = """\
Segment images or CT volumes; the weights say which. An image gets a mask of the same size and
a row of predictions.csv: file, width, height, the lesion's share of the image, the mean probability
inside it. With weights of several classes the mask holds labels, 0 the background, 1 the first
class, and the table a row for each class. A volume gets a label map on its own grid, and
predictions.csv a row for each organ: file, organ, voxels, millilitres.
"""

NOTES = """\
WEIGHTS is a checkpoint (.safetensors, or a published .pth), a run's folder, or a folder of runs
such as the seeds of one cell: their probabilities are averaged. --ensemble adds further ones; for
images also of other training sizes.

INPUTS are files and folders. A folder gives its own images or volumes, not its subfolders'.

Images: files named *_mask, *_superpixels, *_segmentation, *_probability or *_overlay are left
out. Orientation tags (Exif, TIFF) are not applied: a mask has the pixel grid that the image file
stores. A file of several pictures (pages, frames) is refused.

CT volumes (.nii, .nii.gz, values in HU): written is <name>_labels.nii.gz, 0 for the background
and 1, 2, ... for the organs in the order of predictions.csv. Files named *_label, *_labels, *_seg,
*_segmentation, *_mask or label<number> are left out. The axes may be stored in any order: the
file's affine decides.

examples:
  vmunet predict weights.safetensors photo.jpg --out masks
  vmunet predict runs/isic17-256/base/paper/42 photos/ more/*.png --out masks --overlay
  vmunet predict runs/isic17-256/base/paper photos/ --out masks --tta --probabilities
  vmunet predict a.safetensors photos/ --out masks --ensemble b.safetensors
  vmunet predict ct.safetensors scan.nii.gz --out labels --overlay

Exit status: 0 all segmented, 2 a wrong argument or an unreadable file (the others are segmented),
130 interrupted.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `vmunet predict`."""
    parser.set_defaults(command=predict)
    add = parser.add_argument
    add("weights", metavar="WEIGHTS", type=Path, help="a checkpoint, a run, or a folder of runs")
    add(
        "inputs",
        metavar="INPUTS",
        type=Path,
        nargs="+",
        help="image files, or CT volumes (.nii, .nii.gz), and folders of them",
    )
    add("--out", metavar="DIR", type=Path, required=True, help="folder for the masks or label maps")
    add(
        "--ensemble",
        metavar="WEIGHTS",
        type=Path,
        action="append",
        default=[],
        help="average with these weights too; may be repeated",
    )
    add(
        "--overlay",
        action="store_true",
        help="also write pictures: <name>_overlay.jpg, outline and fill; for a volume "
        "<name>_overlay.png, a sheet of slices with the organs' outlines",
    )
    add(
        "--size",
        metavar="PX",
        type=int,
        help="side of the square the model sees (default: what it was trained with)",
    )
    add("--device", metavar="D", help="cpu, cuda or cuda:N (default: cuda if there is one)")
    add("--max-voxels", metavar="N", type=int, help="read volumes of up to N voxels (500000000)")
    images = parser.add_argument_group("for images only").add_argument
    images("--max-pixels", metavar="N", type=int, help="read images of up to N px (400000000)")
    images("--tta", action="store_true", help="average over mirrored copies (4 times the work)")
    images(
        "--probabilities",
        action="store_true",
        help="also write <name>_probability.png: 16 bits, probability x 65535; of several classes "
        "<name>_<class>_probability.png each",
    )
    images(
        "--threshold",
        metavar="P",
        type=float,
        help="a pixel is lesion if its probability is at least P (default 0.5); "
        "not for several classes",
    )


def predict(arguments: argparse.Namespace) -> None:
    """Run the subcommand.

    Raises:
        InputError: wrong arguments, unreadable inputs, or inputs that do not fit the weights.
    """
    from vmunet.data.limits import raise_limits
    from vmunet.training.processor import use_processor

    raise_limits(arguments.max_pixels, arguments.max_voxels)
    weights = [arguments.weights, *arguments.ensemble]
    for_volumes = _for_volumes(weights)
    _check_inputs(weights, arguments.inputs, for_volumes)
    use_processor()
    if for_volumes:
        _predict_volumes(weights, arguments)
    else:
        _predict_images(weights, arguments)


def _predict_images(weights: Sequence[Path], arguments: argparse.Namespace) -> None:
    from vmunet.inference.images import segment_folder

    segmented = segment_folder(
        weights,
        arguments.inputs,
        arguments.out,
        threshold=arguments.threshold,
        tta=arguments.tta,
        size=arguments.size,
        device=arguments.device,
        probabilities=arguments.probabilities,
        overlay=arguments.overlay,
    )
    _say(len(segmented.predictions), "image", arguments.out)
    _note(segmented.skipped, "left out by their names, as masks, superpixels or overlays")
    _note(
        segmented.turned,
        "with an orientation tag, which viewers apply and masks do not have: a mask has the pixels "
        "as they are stored",
    )


def _predict_volumes(weights: Sequence[Path], arguments: argparse.Namespace) -> None:
    from vmunet.errors import InputError
    from vmunet.inference.volumes import segment_volumes

    image_options = {
        "--tta": arguments.tta,
        "--probabilities": arguments.probabilities,
        "--threshold": arguments.threshold is not None,
    }
    if options := [option for option, is_given in image_options.items() if is_given]:
        raise InputError(
            f"{arguments.weights}: segments CT volumes, to which {', '.join(options)} "
            f"{'does' if len(options) == 1 else 'do'} not apply (each voxel gets its most probable "
            "label); leave it out"
        )
    segmented = segment_volumes(
        weights,
        arguments.inputs,
        arguments.out,
        size=arguments.size,
        device=arguments.device,
        overlay=arguments.overlay,
    )
    _say(segmented.volumes, "volume", arguments.out)
    _note(segmented.skipped, "left out by their names, as label maps")


def _say(count: int, noun: str, out: Path) -> None:
    print(f"{count} {noun}{'' if count == 1 else 's'} segmented into {out}")


def _note(files: Sequence[Path], what: str) -> None:
    if files:
        names = ", ".join(path.name for path in files[:3])
        more = ", ..." if len(files) > 3 else ""
        print(f"note: {what}: {len(files)} ({names}{more})", file=sys.stderr)


def _for_volumes(weights: Sequence[Path]) -> bool:
    """Whether the weights are for CT volumes; InputError if they are of both kinds."""
    from vmunet.errors import InputError
    from vmunet.inference.ensemble import find_all_weights
    from vmunet.inference.volumes import is_volume_model

    files = find_all_weights(weights)
    volume = next((file for file in files if is_volume_model(file)), None)
    image = next((file for file in files if not is_volume_model(file)), None)
    if volume and image:
        raise InputError(
            f"{volume} segments CT volumes and {image} images: they cannot be averaged; give "
            "weights of one kind"
        )
    return volume is not None


def _check_inputs(weights: Sequence[Path], inputs: Sequence[Path], for_volumes: bool) -> None:
    """Refuse inputs of the other kind, with a message that says which weights would fit.

    A folder may hold both kinds; only those that fit the weights are taken. `find_inputs` refuses
    files of neither kind.
    """
    from vmunet.data.images import is_image
    from vmunet.data.nifti import is_nifti
    from vmunet.inference.files import wrong_kind

    fits, other = (is_nifti, is_image) if for_volumes else (is_image, is_nifti)
    for path in inputs:
        files = list(path.iterdir()) if path.is_dir() else [path]
        misfit = next((file for file in files if other(file)), None)
        if misfit is not None and not any(map(fits, files)):
            raise wrong_kind(misfit, weights[0], for_volumes)
