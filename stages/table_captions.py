"""What a table says of itself: profile, data, image counts, seeds and protocols.

Everything is read from the runs' own metrics files, so that a demo table cannot be mistaken for
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
    sentences = [f"Profile {params.profile_name}."]
    said: dict[str, list[str]] = {}
    for dataset in table.spec["datasets"]:
        own = [result for result in results if result.dataset == dataset]
        said.setdefault(_data(own), []).append(names[dataset])
    for words, of in said.items():
        each = " (each)" if len(of) > 1 and results else ""
        sentences.append(f"{_listed(of)}{each}: {words}")
    if results:
        sentences.append(_runs(results))
        sentences.append(_models(params, results, settings))
    phantoms = [
        names[dataset]
        for dataset in table.spec["datasets"]
        if any(r.dataset == dataset and r.data["source"] == "phantom" for r in results)
    ]
    warning = PHANTOM if phantoms else ""
    if phantoms and any(result.data["source"] != "phantom" for result in results):
        warning = PHANTOM.replace("data:", f"data ({', '.join(phantoms)}):")
    return Caption(
        title=table.spec["title"],
        warning=warning,
        text=" ".join(sentences),
        legend=_legend(table, results),
        notes=_notes(table, params, settings),
    )


def _order(result: Result) -> tuple[str, int, str]:
    return result.dataset, result.size, result.path


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _px(width: int, height: int) -> str:
    return f"{width}×{height}"


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _data(results: list[Result]) -> str:
    """Source, image counts and native sizes of one dataset, and what resizing does to them."""
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
    sentences = [
        f"{data['n_train']} training and {data['n_test']} test {SOURCES[data['source']]}, "
        f"natively {native}, used at {used}."
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
    """How many runs, under which protocols, with which seeds."""
    protocols = [
        f"{count} under the {protocol} protocol"
        for protocol in ("paper", "sound")
        if (count := sum(result.run.protocol == protocol for result in results))
    ]
    seeds = sorted({result.run.seed for result in results})
    numbers = ", ".join(str(seed) for seed in seeds)
    spread = (
        f"One seed ({numbers}): single values, without a spread."
        if len(seeds) == 1
        else f"Mean ± sample standard deviation over {len(seeds)} seeds ({numbers})."
    )
    return f"{_count(len(results), 'run')}: {_listed(protocols)}. {spread}"


def _models(params: "Params", results: list[Result], settings: Mapping[str, Any]) -> str:
    """Width, epochs and initial weights of the trained models, beside the paper's."""
    train = params.profile.train
    width, paper_width = train.dims[0], settings["dims"][0]
    epochs, paper_epochs = train.epochs, settings["epochs"]
    if (width, epochs) == (paper_width, paper_epochs):
        text = f"Models of width {width} trained for {_count(epochs, 'epoch')}, as in the paper."
    else:
        text = (
            f"Models of width {width} (paper: {paper_width}) trained for "
            f"{_count(epochs, 'epoch')} (paper: {paper_epochs})."
        )
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
            "The sound protocol chooses the epoch on a held-out tenth of the training images; it "
            "is scored with the same metrics, and compared with the published figure of the row "
            "above."
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
