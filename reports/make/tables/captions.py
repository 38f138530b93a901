"""A table's caption: profile, seeds, protocols, and what each dataset's figures were made from.

Data, runs and seeds are read from the runs' own metrics files; width, schedule and initial weights
from the profile and the cells that declare them. So nobody can mistake a demo table for the
paper's.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reports.make.report import OURS, PaperTable
from reports.make.results.data import origins, resizing
from reports.make.results.foreign import FOREIGN
from reports.make.results.metrics import ImageResult, Result, VolumeResult
from reports.make.tables.inputs import Inputs
from reports.make.typeset.sheet import Caption
from reports.make.typeset.words import count, listed, px
from vmunet.evaluation.few_units import FEW, LEAST

if TYPE_CHECKING:
    from pipeline.config.params import Params

T_MAX = (
    "T_max belongs to the paper protocol; under the sound one the learning rate falls once "
    "over the run."
)
COMMON = (
    "Every measured model is trained by one protocol, VM-UNet's. The recipes of the other models' "
    "authors, which have a table of their own, were not run."
)
NNUNET = (
    "All but nnU-Net, that is: another software with a training of its own, run on the same images "
    "(volumes: as slices in 2D) and scored here as label maps; no interval and no test is computed "
    "for its row. The class in brackets is a training other than its default."
)
HD95 = (
    "HD95 is the 95th percentile over both directions' distances, as medpy computes it. MONAI's is "
    "another definition, the larger of the two directions' (in the median 3 to 5% more), and does "
    "not compare."
)
INTERVALS = (
    "95% intervals are bootstraps over the test images or cases (a patient's count as one): the "
    f"middle of the resamples, or studentized if there are fewer than {FEW}. There is none with "
    f"fewer than {LEAST}, or where it would be all that a score can be. If failures are rare, "
    "intervals from few units are too narrow (docs/report.md)."
)
MODELS = (
    "p of models: a paired permutation test over the test images or cases. It says that the "
    "trained models at hand differ, and nothing of two methods: two seeds of one method often "
    "differ so."
)
METHODS = (
    "p of methods, with three seeds or more of both rows: Welch's t test on the seeds' scores with "
    "the variance over the test images added. A star: p < 0.05."
)
STAR = (
    "* marks a method that differs from VM-UNet's under the paper protocol (p < 0.05), both with "
    "three seeds or more: Welch's t test on the seeds' scores with the variance over the test "
    "images or cases added, corrected by Holm within the table, dataset and metric."
)
NO_STAR = (
    "A row with fewer than three seeds, or all if VM-UNet's has fewer, has no star whatever the "
    "difference: a test would compare trained models, not methods (its p is in the table "
    "comparison)."
)


def caption(table: PaperTable, inputs: Inputs) -> Caption:
    """The caption of one table. Sizes are width×height in px."""
    results = sorted(inputs.of(table.runs), key=_order)
    datasets = {dataset: inputs.names[dataset] for dataset in table.spec["datasets"]}
    return Caption(
        title=table.spec["title"],
        text=_text(inputs, results),
        origins=origins(results, datasets),
        notes=(
            *_columns(table),
            *table.spec["notes"],
            *_splits(inputs, results),
            *resizing(results, datasets),
            *_micro_batches(results),
        ),
        legend=_legend(table, inputs, results),
    )


def runs_caption(
    inputs: Inputs, title: str, notes: Sequence[str], results: Sequence[Result], own: str = ""
) -> Caption:
    """The caption of a table of `results`: means over the seeds, or single runs if `own` is given.

    `own` says how the table shows the runs.
    """
    results = sorted({result.path: result for result in results}.values(), key=_order)
    measured = {result.dataset for result in results}
    datasets = {key: name for key, name in inputs.names.items() if key in measured}
    return Caption(
        title=title,
        text=_text(inputs, results, own),
        origins=origins(results, datasets),
        notes=(
            *notes,
            *_splits(inputs, results),
            *resizing(results, datasets),
            *_micro_batches(results),
        ),
        legend=_settings(inputs, results),
    )


def _splits(inputs: Inputs, results: Sequence[Result]) -> list[str]:
    """Whether the images' split is the published one, where all of them are there."""
    sources = {(result.dataset, result.data["source"]) for result in results}
    return [
        f"{inputs.names[dataset]}: {said['text']}"
        for dataset, said in inputs.splits.items()
        if (dataset, said["source"]) in sources
    ]


def _order(result: Result) -> tuple[str, int, str]:
    return result.dataset, result.size, result.path


def _kinds(results: Sequence[Result]) -> list[list[Result]]:
    """The results on images, and those on volumes; without an empty list."""
    images: list[Result] = [result for result in results if isinstance(result, ImageResult)]
    volumes: list[Result] = [result for result in results if isinstance(result, VolumeResult)]
    return [of_kind for of_kind in (images, volumes) if of_kind]


def _text(inputs: Inputs, results: Sequence[Result], own: str = "") -> str:
    """Profile, seeds, runs, width and epochs, in one sentence."""
    profile = f"Profile {inputs.params.profile_name}"
    if not results:
        return f"{profile}."
    seeds = sorted({result.run.seed for result in results})
    named = f"seed{'s' if seeds[1:] else ''} {listed([str(seed) for seed in seeds])}"
    if seeds[1:] and not own:
        named += " (mean ± sample standard deviation)"
    rows = f", {own}" if own else ""
    sizes = [_size(inputs, of_kind) for of_kind in _kinds(results)]
    if len(set(sizes)) > 1:
        sizes = [f"on images {sizes[0]}", f"on volumes {sizes[1]}"]
    return f"{profile}, {named}; {_runs(results)}{rows}; {'; '.join(dict.fromkeys(sizes))}."


def _runs(results: Sequence[Result]) -> str:
    """The number of runs under each protocol."""
    numbers = {
        protocol: sum(result.run.protocol == protocol for result in results)
        for protocol in ("paper", "sound")
    }
    if not all(numbers.values()):
        (protocol,) = (name for name, number in numbers.items() if number)
        return f"{count(len(results), 'run')} under the {protocol} protocol"
    return (
        f"{count(len(results), 'run')}, {numbers['paper']} under the paper protocol and "
        f"{numbers['sound']} under the sound one"
    )


def trained(inputs: Inputs, result: Result) -> tuple[Any, Mapping[str, Any]]:
    """The profile's settings of a training like this one, and the paper's."""
    if isinstance(result, VolumeResult):
        return inputs.params.profile.train_volumes, inputs.published["settings_volumes"]
    return inputs.params.profile.train, inputs.published["settings"]


def _against(words: str, value: float, paper: float) -> str:
    return words if value == paper else f"{words} (paper: {paper:g})"


def _size(inputs: Inputs, results: Sequence[Result]) -> str:
    """Width and epochs, each with the paper's if that is another one."""
    train, paper = trained(inputs, results[0])
    models = {inputs.params.cells[result.run.cell].model for result in results}
    widths = []
    if OURS in models:
        widths.append(_against(f"width {train.dims[0]}", train.dims[0], paper["dims"][0]))
    if models - {OURS}:
        wide = "" if train.width == 1 else f"{train.width:g} times as wide "
        widths.append(f"other models {wide}as published")
    width = " and ".join(widths)
    return f"{width}, {_against(count(train.epochs, 'epoch'), train.epochs, paper['epochs'])}"


def _settings(inputs: Inputs, results: Sequence[Result]) -> tuple[str, ...]:
    """Width, schedule and initial weights of the trained models, compared with the paper's."""
    sentences = []
    for of_kind in _kinds(results):
        volumes = isinstance(of_kind[0], VolumeResult)
        train, paper = trained(inputs, of_kind[0])
        schedule = (
            (f"batch size {train.batch_size}", train.batch_size, paper["batch_size"]),
            (f"learning rate {train.learning_rate:g}", train.learning_rate, paper["learning_rate"]),
            (f"T_max {train.t_max}", train.t_max, paper["t_max"]),
        )
        words = ", ".join(_against(*setting) for setting in schedule)
        text = f"On {'volumes' if volumes else 'images'}: {_size(inputs, of_kind)}, {words}."
        text += "" if "(paper:" in text else " All are the paper's."
        text += own_settings(inputs.params, of_kind)
        if volumes and {result.size for result in of_kind} != {paper["size"]}:
            text += f" The paper's slices were resized to {px(paper['size'], paper['size'])}."
        sentences.append(text)
    inits = {inputs.params.cells[result.run.cell].init for result in results}
    pretrained = any(init.startswith("vmamba") for init in inits)
    if pretrained and inputs.params.profile.weights.source == "phantom":
        sentences.append(
            "VM-UNet's initial weights: a short pre-training on phantoms, not VMamba's."
        )
    return tuple(sentences)


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
                ("width", "width"),
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


def _columns(table: PaperTable) -> list[str]:
    """The meaning of this table's own signs."""
    cited = any(row.reference for row in table.rows)
    return ["Numbers in brackets are the paper's references."] if cited else []


def _legend(table: PaperTable, inputs: Inputs, results: Sequence[Result]) -> tuple[str, ...]:
    """The meaning of the columns, the protocols and the settings."""
    legend = []
    if table.spec["layout"] != "stacked":
        legend.append("publ.: as the paper reports; meas.: measured here.")
    legend.append("Bold: the best of the column as printed, published and measured apart.")
    tested = [f.inference for f in table.figures if f.inference and f.inference.p is not None]
    if tested:
        legend += [STAR] if any(one.methods for one in tested) else []
        legend += [] if all(one.methods for one in tested) else [NO_STAR]
    if any(row.model not in ("", OURS) and any(row.runs.values()) for row in table.rows):
        legend.append(COMMON)
    if any(row.protocol == FOREIGN for row in table.rows):
        legend.append(NNUNET)
    for of_kind in _kinds(results):
        volumes = isinstance(of_kind[0], VolumeResult)
        protocols = {result.run.protocol for result in of_kind}
        legend += volume_legend(protocols) if volumes else image_legend(protocols)
    return (*legend, *_settings(inputs, results))


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
        f"says mm. {HD95}",
    ]
    if "paper" in protocols:
        legend.append(
            "On volumes, the paper protocol repeats the published code, which chooses the epoch "
            "with the lowest training loss (the mean over batches, the smaller last one counting "
            "as much as the others)."
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
