"""A table's caption: profile, data, image counts, seeds and protocols.

Data, runs and seeds are read from the runs' own metrics files; width, schedule and initial weights
from the profile and the cells that declare them. So nobody can mistake a demo table for the
paper's.
"""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from reports.make.report import PaperTable
from reports.make.results.data import data_sentences, joined_warnings, phantom_warning
from reports.make.results.metrics import ImageResult, Result, VolumeResult
from reports.make.tables.inputs import Inputs
from reports.make.typeset.sheet import Caption
from reports.make.typeset.words import count, listed, px

if TYPE_CHECKING:
    from pipeline.config.params import Params

T_MAX = (
    "T_max belongs to the paper protocol; under the sound one the learning rate falls once "
    "over the run."
)
STAR = (
    "* marks a figure that differs from VM-UNet's under the paper protocol (p < 0.05): paired "
    "permutation test over the test images or cases, corrected by Holm within the table, dataset "
    "and metric. It speaks of the choice of test images, not of the randomness of training."
)


def caption(table: PaperTable, inputs: Inputs) -> Caption:
    """The caption of one table. Sizes are width×height in px."""
    results = sorted(inputs.of(table.runs), key=_order)
    datasets = {dataset: inputs.names[dataset] for dataset in table.spec["datasets"]}
    sentences = [f"Profile {inputs.params.profile_name}.", *data_sentences(results, datasets)]
    if results:
        sentences += [f"{_runs(results)}. {_seeds(results)}", _models(inputs, results)]
    return Caption(
        title=table.spec["title"],
        warning=phantom_warning(results, datasets),
        text=" ".join(sentences),
        legend=_legend(table, results),
        notes=(*table.spec["notes"], *_micro_batches(results)),
    )


def runs_caption(
    inputs: Inputs, title: str, notes: Sequence[str], results: Sequence[Result], own: str = ""
) -> Caption:
    """The caption of a table of `results`: means over the seeds, or single runs if `own` is given.

    `own` says how the table shows the runs. If the table has images and volumes, each kind has its
    own sentences.
    """
    results = list({result.path: result for result in results}.values())
    sentences, warnings = [f"Profile {inputs.params.profile_name}."], []
    for kind in (ImageResult, VolumeResult):
        of_kind = sorted((r for r in results if isinstance(r, kind)), key=_order)
        if of_kind:
            measured_datasets = {result.dataset for result in of_kind}
            datasets = {key: name for key, name in inputs.names.items() if key in measured_datasets}
            sentences += data_sentences(of_kind, datasets)
            sentences.append(f"{_runs(of_kind)}, {own}." if own else f"{_runs(of_kind)}.")
            sentences += [] if own else [_seeds(of_kind)]
            sentences.append(_models(inputs, of_kind))
            warnings.append(phantom_warning(of_kind, datasets))
    return Caption(
        title=title,
        warning=joined_warnings(warnings),
        text=" ".join(sentences),
        legend=(),
        notes=(*notes, *_micro_batches(results)),
    )


def _order(result: Result) -> tuple[str, int, str]:
    return result.dataset, result.size, result.path


def _runs(results: Sequence[Result]) -> str:
    """The number of runs under each protocol; without a full stop."""
    protocols = [
        f"{number} under the {protocol} protocol"
        for protocol in ("paper", "sound")
        if (number := sum(result.run.protocol == protocol for result in results))
    ]
    return f"{count(len(results), 'run')}: {listed(protocols)}"


def _seeds(results: Sequence[Result]) -> str:
    """How a figure is computed from the seeds."""
    seeds = sorted({result.run.seed for result in results})
    numbers = ", ".join(str(seed) for seed in seeds)
    if len(seeds) == 1:
        return f"One seed ({numbers}): single values, without a spread."
    return f"Mean ± sample standard deviation over {len(seeds)} seeds ({numbers})."


def _models(inputs: Inputs, results: Sequence[Result]) -> str:
    """Width, schedule and initial weights of the trained models, compared with the paper's."""
    params, published = inputs.params, inputs.published
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
    if all(value == paper for _, value, paper in (width, epochs, *schedule)):
        settings_text = ", ".join(words for words, _, _ in schedule)
        text = f"Models of {width[0]} trained for {epochs[0]} ({settings_text}), as in the paper."
    else:
        against_paper = [f"{words} (paper: {paper:g})" for words, _, paper in (width, epochs)]
        text = f"Models of {against_paper[0]} trained for {against_paper[1]}"
        differing = [
            f"{words} (paper: {paper:g})" for words, value, paper in schedule if value != paper
        ]
        text += f", with {listed(differing)}." if differing else "."
    pretrained = any(params.cells[result.run.cell].init != "none" for result in results)
    if pretrained and params.profile.weights.source == "phantom":
        text += " Initial weights from a short pre-training on phantoms, not VMamba's."
    text += own_settings(params, results)
    size = settings["size"]
    if isinstance(results[0], VolumeResult) and {result.size for result in results} != {size}:
        text += f" The paper's slices were resized to {px(size, size)}."
    return text


def own_settings(params: "Params", results: Sequence[Result]) -> str:
    """A sentence for each cell with other settings than the profile's; '' if there are none."""
    sentences = []
    for name in dict.fromkeys(result.run.cell for result in results):
        cell = params.cells[name]
        changes = [
            f"{word} {value:g}"
            for word, field in (
                ("learning rate", "learning_rate"),
                ("weight decay", "weight_decay"),
            )
            if (value := getattr(getattr(cell, "train", None), field, None)) is not None
        ]
        if weights := getattr(cell, "loss_weights", None):
            changes.append(f"loss weights {weights[0]:g} and {weights[1]:g}")
        if getattr(cell, "augment", None) is not None:
            changes.append("other augmentation")
        sentences += [f" Except: cell {name} trains with {listed(changes)}."] if changes else []
    return "".join(sentences)


_SOUND = (
    "lowers the learning rate once over the run, whatever T_max; it is scored with the same "
    "metrics."
)


def _legend(table: PaperTable, results: Sequence[Result]) -> tuple[str, ...]:
    """The meaning of the columns and the protocols."""
    legend = []
    if any(row.reference for row in table.rows):
        legend.append("Numbers in brackets are the paper's references.")
    if table.spec["layout"] != "stacked":
        legend.append("publ.: as the paper reports; meas.: measured here.")
    legend.append("Bold: the best of the column as printed, published and measured apart.")
    if any(figure.inference and figure.inference.p is not None for figure in table.figures):
        legend.append(STAR)
    if results:
        volumes = isinstance(results[0], VolumeResult)
        protocols = {result.run.protocol for result in results}
        legend += volume_legend(protocols) if volumes else image_legend(protocols)
    return tuple(legend)


def image_legend(protocols: Collection[str]) -> list[str]:
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


def volume_legend(protocols: Collection[str]) -> list[str]:
    legend = [
        "Scores of volumes are taken at the volumes' own pixels, DSC in percent, and are means "
        "over the test cases, then over the organs, by the published code's convention: an organ "
        "that is predicted but absent counts as DSC 100 and HD95 0, one that is missed or absent "
        "in both as DSC 0 and HD95 0, which flatters the distance.",
        "Measured HD95 is in voxels, as the published code computes it, where the paper's text "
        "says mm.",
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


def _micro_batches(results: Sequence[Result]) -> list[str]:
    """A note on runs on volumes whose batches did not fit into memory, and on the effect of it.

    Images need no note: their loss is a mean over the samples.
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
