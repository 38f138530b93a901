"""What a table says of itself: profile, data, image counts, seeds and protocols.

Data, runs and seeds are read from the runs' own metrics files; width, schedule and initial weights
from the profile and the cells that they were declared with. So a demo table cannot be mistaken for
the paper's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stages.table_metrics import SOURCES, Result
from stages.table_rows import Table

if TYPE_CHECKING:
    from pipeline.params import Params

PHANTOM = "Phantom data: these figures say nothing about skin lesions."
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
    "T_max belongs to the paper protocol; under the sound one the learning rate falls once "
    "over the run.",
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
    table: Table, params: "Params", declared: Mapping[str, Any], settings: Mapping[str, Any]
) -> Caption:
    """The caption of one table. Sizes are width×height in px."""
    names = declared["datasets"]
    results = sorted({result.path: result for result in table.results}.values(), key=_order)
    datasets = {dataset: names[dataset] for dataset in table.spec["datasets"]}
    sentences = [f"Profile {params.profile_name}.", *_datasets(results, datasets)]
    if results:
        sentences += [f"{_runs(results)}. {_seeds(results)}", _models(params, results, settings)]
    return Caption(
        title=table.spec["title"],
        warning=_warning(results, datasets),
        text=" ".join(sentences),
        legend=_legend(table, results),
        notes=_notes(table, params, settings),
    )


def sound_caption(
    results: Sequence[Result],
    params: "Params",
    declared: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> Caption:
    """The caption of the sound metrics' table, which has a row for each run."""
    results = sorted(results, key=_order)
    shown = {result.dataset for result in results}
    datasets = {key: name for key, name in declared["datasets"].items() if key in shown}
    sentences = [f"Profile {params.profile_name}.", *_datasets(results, datasets)]
    if results:
        sentences.append(f"{_runs(results)}, each with its own row.")
        sentences.append(_models(params, results, settings))
    else:
        sentences.append("The grid runs nothing.")
    return Caption(
        title="Honest evaluation",
        warning=_warning(results, datasets),
        text=" ".join(sentences),
        legend=(),
        notes=SOUND_NOTES,
    )


def _datasets(results: list[Result], datasets: Mapping[str, str]) -> list[str]:
    """A sentence for each dataset, or one for several that have the same to say."""
    said: dict[str, list[str]] = {}
    for dataset, name in datasets.items():
        own = [result for result in results if result.dataset == dataset]
        said.setdefault(_data(own), []).append(name)
    return [
        f"{_listed(of)}{' (each)' if len(of) > 1 and results else ''}: {words}"
        for words, of in said.items()
    ]


def _warning(results: list[Result], datasets: Mapping[str, str]) -> str:
    """That phantoms were used, and for which datasets where not for all."""
    phantoms = [
        name
        for dataset, name in datasets.items()
        if any(r.dataset == dataset and r.data["source"] == "phantom" for r in results)
    ]
    if phantoms and any(result.data["source"] != "phantom" for result in results):
        return PHANTOM.replace("data:", f"data ({', '.join(phantoms)}):")
    return PHANTOM if phantoms else ""


def _order(result: Result) -> tuple[str, int, str]:
    return result.dataset, result.size, result.path


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _px(width: int, height: int) -> str:
    return f"{width}×{height}"


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _data(results: list[Result]) -> str:
    """Source, image counts and stored sizes of one dataset, and what resizing does to them."""
    if not results:
        return "nothing measured, the grid runs none of these rows."
    data = results[0].data
    (width, height), (widest, highest) = data["native_min"], data["native_max"]
    low, high = _px(width, height), _px(widest, highest)
    native = (
        low if low == high else f"{width} to {widest} px wide and {height} to {highest} px high"
    )
    sizes = sorted({result.size for result in results})
    used = _listed([_px(size, size) for size in sizes])
    # Images of a local archive, or of a prepared set, may have been reduced before.
    stored = "stored at" if data["source"] in ("file", "prepared") else "natively"
    sentences = [
        f"{data['n_train']} training and {data['n_test']} test {SOURCES[data['source']]}, "
        f"{stored} {native}, used at {used}."
    ]
    same = [_px(size, size) for size in sizes if low == high == _px(size, size)]
    larger = [
        _px(size, size)
        for size in sizes
        if max(widest, highest) <= size and _px(size, size) not in same
    ]
    if same:
        sentences.append(
            f"At {_listed(same)} these images are not resized: the soft masks of the published "
            "resizing do not arise."
        )
    if larger:
        sentences.append(f"At {_listed(larger)} they are upsampled and gain no detail.")
    return " ".join(sentences)


def _runs(results: list[Result]) -> str:
    """How many runs, under which protocols; without a full stop."""
    protocols = [
        f"{count} under the {protocol} protocol"
        for protocol in ("paper", "sound")
        if (count := sum(result.run.protocol == protocol for result in results))
    ]
    return f"{_count(len(results), 'run')}: {_listed(protocols)}"


def _seeds(results: list[Result]) -> str:
    """What a figure is over the seeds."""
    seeds = sorted({result.run.seed for result in results})
    numbers = ", ".join(str(seed) for seed in seeds)
    if len(seeds) == 1:
        return f"One seed ({numbers}): single values, without a spread."
    return f"Mean ± sample standard deviation over {len(seeds)} seeds ({numbers})."


def _models(params: "Params", results: list[Result], settings: Mapping[str, Any]) -> str:
    """Width, schedule and initial weights of the trained models, beside the paper's."""
    train = params.profile.train
    width = (f"width {train.dims[0]}", train.dims[0], settings["dims"][0])
    epochs = (_count(train.epochs, "epoch"), train.epochs, settings["epochs"])
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
        text += f", with {_listed(others)}." if others else "."
    pretrained = any(params.cells[result.run.cell].init != "none" for result in results)
    if pretrained and params.profile.weights.source == "phantom":
        text += " Initial weights from a short pre-training on phantoms, not VMamba's."
    return text


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
        legend.append(
            "Scores are percentages of one confusion matrix over all test pixels at the training "
            "size; mIoU is the lesion's IoU, as in the published code."
        )
    if any(result.run.protocol == "paper" for result in results):
        legend.append(
            "The paper protocol repeats the published code, which chooses the epoch by its loss "
            "on the test images."
        )
    if any(row.protocol == "sound" for row in table.rows):
        legend.append(
            "The sound protocol chooses the epoch on a held-out tenth of the training images and "
            "lowers the learning rate once over the run, whatever T_max; it is scored with the "
            "same metrics, and compared with the published figure of the row above."
        )
    return tuple(legend)


def _notes(table: Table, params: "Params", settings: Mapping[str, Any]) -> tuple[str, ...]:
    """What this table alone has to explain."""
    notes = list(table.spec["notes"])
    if table.spec.get("extra") == "complexity":
        paper_width, size = settings["dims"][0], settings["size"]
        width = params.profile.train.dims[0]
        trained = "" if width == paper_width else f"; the models trained here have width {width}"
        notes.append(
            f"#Params and FLOPs are computed at the paper's width {paper_width} and "
            f"{_px(size, size)}{trained}. FLOPs are multiply-accumulates: the paper's way "
            "(linear, convolution and norm layers), and complete, with SS2D's projections and scan."
        )
    return tuple(notes)
