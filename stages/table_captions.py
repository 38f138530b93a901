"""What a table says of itself: profile, data, image counts, seeds and protocols.

Data, runs and seeds are read from the runs' own metrics files; width, schedule and initial weights
from the profile and the cells that they were declared with. So a demo table cannot be mistaken for
the paper's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stages.table_data import count, data_sentences, listed, phantom_warning, px
from stages.table_metrics import ImageResult, Result, VolumeResult
from stages.table_rows import Table

if TYPE_CHECKING:
    from pipeline.params import Params

T_MAX = (
    "T_max belongs to the paper protocol; under the sound one the learning rate falls once "
    "over the run."
)
SOUND_NOTES = (
    "Scores are percentages of the test images. Paper's mIoU: the lesion's IoU of one confusion "
    "matrix over all pixels, at the training size against bilinearly resized masks, as published.",
    "Pooled mIoU: likewise, against masks resized to the nearest pixel (training size) or as they "
    "are stored (own size: the probabilities are resized to each mask).",
    "Mean IoU and mean Dice: over images, in brackets their 95% bootstrap interval over the test "
    "images, which says nothing of the spread between seeds; 100 for an image with neither lesion "
    "nor prediction, 0 for one with only one of the two.",
    "Thr. J: the ISIC 2018 challenge's thresholded Jaccard, the mean over images of the IoU with 0 "
    "for an IoU below 65.",
    T_MAX,
)
ORGAN_NOTES = (
    "Both conventions score the same predictions, case by case and organ by organ at the volumes' "
    "own pixels. An organ's figure is a mean over the cases, the last row's the mean of the "
    "organs' figures. Dice and NSD are percentages.",
    "Paper's convention, as the published code computes it: (Dice, HD95) is (100, 0) where an "
    "organ is predicted but absent, (0, 0) where it is missed or absent in both; HD95 in voxels, "
    "whatever their shape.",
    "Sound convention: an organ that is absent in both is left out and counted (last row: over "
    "all organs); one that is predicted but absent, or missed, has Dice 0 and NSD 0 but no HD95, "
    "so that a distance is to be read with its n.",
    "n counts the cases that define the figure before it (last row: the organs that do).",
)
UNKNOWN_SPACING = (
    "Where voxel spacing is not known, as in TransUNet's prepared arrays, HD95 in mm and NSD are "
    "not defined: a dash."
)


@dataclass(frozen=True)
class Caption:
    """`warning` is set in bold, `text` follows it; `legend` and `notes` stand below the table."""

    title: str
    warning: str
    text: str
    legend: tuple[str, ...]
    notes: tuple[str, ...]


def caption(
    table: Table, params: "Params", declared: Mapping[str, Any], published: Mapping[str, Any]
) -> Caption:
    """The caption of one table. Sizes are width×height in px."""
    names = declared["datasets"]
    results = sorted({result.path: result for result in table.results}.values(), key=_order)
    datasets = {dataset: names[dataset] for dataset in table.spec["datasets"]}
    sentences = [f"Profile {params.profile_name}.", *data_sentences(results, datasets)]
    if results:
        sentences += [f"{_runs(results)}. {_seeds(results)}", _models(params, results, published)]
    return Caption(
        title=table.spec["title"],
        warning=phantom_warning(results, datasets),
        text=" ".join(sentences),
        legend=_legend(table, results),
        notes=(*_notes(table, params, published["settings"]), *_micro_batches(results)),
    )


def sound_caption(
    results: Sequence[ImageResult],
    params: "Params",
    declared: Mapping[str, Any],
    published: Mapping[str, Any],
) -> Caption:
    """The caption of the images' sound metrics, which have a row for each run."""
    title, own = "Honest evaluation", "each with its own row"
    return _honest(title, own, SOUND_NOTES, results, params, declared, published)


def organs_caption(
    results: Sequence[VolumeResult],
    params: "Params",
    declared: Mapping[str, Any],
    published: Mapping[str, Any],
) -> Caption:
    """The caption of the volumes' scores by organ, which have a block for each run."""
    from vmunet.volume_metrics import TOLERANCE

    nsd = (
        "NSD: normalised surface distance, the part of both surfaces that lies within "
        f"{TOLERANCE:g} mm of the other."
    )
    unknown = () if all(result.spacing_known for result in results) else (UNKNOWN_SPACING,)
    title, own = "Honest evaluation of volumes: both conventions", "each with its own block"
    notes = (*ORGAN_NOTES, nsd, *unknown, T_MAX, *_micro_batches(results))
    return _honest(title, own, notes, results, params, declared, published)


def _honest(
    title: str,
    own: str,
    notes: tuple[str, ...],
    results: Sequence[Result],
    params: "Params",
    declared: Mapping[str, Any],
    published: Mapping[str, Any],
) -> Caption:
    results = sorted(results, key=_order)
    shown = {result.dataset for result in results}
    datasets = {key: name for key, name in declared["datasets"].items() if key in shown}
    sentences = [f"Profile {params.profile_name}.", *data_sentences(results, datasets)]
    if results:
        sentences.append(f"{_runs(results)}, {own}.")
        sentences.append(_models(params, results, published))
    else:
        sentences.append("The grid runs nothing on images.")
    return Caption(
        title=title,
        warning=phantom_warning(results, datasets),
        text=" ".join(sentences),
        legend=(),
        notes=notes,
    )


def _order(result: Result) -> tuple[str, int, str]:
    return result.dataset, result.size, result.path


def _runs(results: list[Result]) -> str:
    """How many runs, under which protocols; without a full stop."""
    protocols = [
        f"{number} under the {protocol} protocol"
        for protocol in ("paper", "sound")
        if (number := sum(result.run.protocol == protocol for result in results))
    ]
    return f"{count(len(results), 'run')}: {listed(protocols)}"


def _seeds(results: list[Result]) -> str:
    """What a figure is over the seeds."""
    seeds = sorted({result.run.seed for result in results})
    numbers = ", ".join(str(seed) for seed in seeds)
    if len(seeds) == 1:
        return f"One seed ({numbers}): single values, without a spread."
    return f"Mean ± sample standard deviation over {len(seeds)} seeds ({numbers})."


def _models(params: "Params", results: list[Result], published: Mapping[str, Any]) -> str:
    """Width, schedule and initial weights of the trained models, beside the paper's."""
    train, settings = params.profile.train, published["settings"]
    if isinstance(results[0], VolumeResult):
        train, settings = params.profile.train_volumes, published["settings_volumes"]
    width = (f"width {train.dims[0]}", train.dims[0], settings["dims"][0])
    epochs = (count(train.epochs, "epoch"), train.epochs, settings["epochs"])
    schedule = (
        (f"batch size {train.batch_size}", train.batch_size, settings["batch_size"]),
        (f"learning rate {train.learning_rate:g}", train.learning_rate, settings["learning_rate"]),
        (f"T_max {train.t_max}", train.t_max, settings["t_max"]),
    )
    if all(here == paper for _, here, paper in (width, epochs, *schedule)):
        others = ", ".join(words for words, _, _ in schedule)
        text = f"Models of {width[0]} trained for {epochs[0]} ({others}), as in the paper."
    else:
        shown = [f"{words} (paper: {paper:g})" for words, _, paper in (width, epochs)]
        text = f"Models of {shown[0]} trained for {shown[1]}"
        others = [f"{words} (paper: {paper:g})" for words, here, paper in schedule if here != paper]
        text += f", with {listed(others)}." if others else "."
    pretrained = any(params.cells[result.run.cell].init != "none" for result in results)
    if pretrained and params.profile.weights.source == "phantom":
        text += " Initial weights from a short pre-training on phantoms, not VMamba's."
    size = settings["size"]
    if isinstance(results[0], VolumeResult) and {result.size for result in results} != {size}:
        text += f" The paper's slices were resized to {px(size, size)}."
    return text


_SOUND = (
    "lowers the learning rate once over the run, whatever T_max; it is scored with the same "
    "metrics, and compared with the published figure of the row above."
)


def _legend(table: Table, results: list[Result]) -> tuple[str, ...]:
    """What the columns and the protocols mean."""
    legend = []
    if any(row.reference for row in table.rows):
        legend.append("Numbers in brackets are the paper's references.")
    if table.spec["layout"] != "stacked":
        legend.append(
            "publ.: as the paper reports; meas.: measured here; diff.: measured minus published, "
            "in points."
        )
    if results:
        volumes = isinstance(results[0], VolumeResult)
        protocols = {result.run.protocol for result in results}
        legend += _volume_legend(protocols) if volumes else _image_legend(protocols)
    return tuple(legend)


def _image_legend(protocols: set[str]) -> list[str]:
    legend = [
        "Scores of images are percentages of one confusion matrix over all test pixels at the "
        "training size; mIoU is the lesion's IoU, as in the published code."
    ]
    if "paper" in protocols:
        legend.append(
            "On images, the paper protocol repeats the published code, which chooses the epoch by "
            "its loss on the test images."
        )
    if "sound" in protocols:
        legend.append(
            "On images, the sound protocol chooses the epoch on a held-out tenth of the training "
            f"images and {_SOUND}"
        )
    return legend


def _volume_legend(protocols: set[str]) -> list[str]:
    legend = [
        "Scores of volumes are taken at the volumes' own pixels, DSC in percent, and are means "
        "over the test cases, then over the organs, by the published code's convention: an organ "
        "that is predicted but absent counts as DSC 100 and HD95 0, one that is missed or absent "
        "in both as DSC 0 and HD95 0, which flatters the distance.",
        "Measured HD95 is in voxels, as the published code computes it, where the paper's text "
        "says mm; the difference takes the published figure for voxels too.",
    ]
    if "paper" in protocols:
        legend.append(
            "On volumes, the paper protocol repeats the published code, which chooses the epoch "
            "with the lowest training loss."
        )
    if "sound" in protocols:
        legend.append(
            "On volumes, the sound protocol chooses the epoch on a held-out sixth of the training "
            f"cases and {_SOUND}"
        )
    return legend


def _notes(table: Table, params: "Params", settings: Mapping[str, Any]) -> tuple[str, ...]:
    """What this table alone has to explain."""
    notes = list(table.spec["notes"])
    if table.spec.get("extra") == "complexity":
        paper_width, size = settings["dims"][0], settings["size"]
        width = params.profile.train.dims[0]
        trained = "" if width == paper_width else f"; the models trained here have width {width}"
        notes.append(
            f"#Params and FLOPs are computed at the paper's width {paper_width} and "
            f"{px(size, size)}{trained}. FLOPs are multiply-accumulates: the paper's way "
            "(linear, convolution and norm layers), and complete, with SS2D's projections and scan."
        )
    return tuple(notes)


def _micro_batches(results: Sequence[Result]) -> list[str]:
    """Runs on volumes whose batches did not fit into memory, and what that changed.

    Of images nothing is to be said: their loss is a mean over the samples.
    """
    taken: dict[int, list[str]] = {}
    for result in results:
        if isinstance(result, VolumeResult) and (size := result.checkpoint.get("micro_batch")):
            taken.setdefault(size, []).append(result.run.name)
    return [
        f"{listed(names)}: trained in micro batches of {size}: Dice is pooled over {size} slices "
        "instead of the batch."
        for size, names in sorted(taken.items())
    ]
