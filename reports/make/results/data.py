"""A caption's sentences on the data: source, counts, stored sizes, and a warning of phantoms."""

from collections.abc import Mapping, Sequence

from reports.make.results.metrics import SOURCES, VOLUME_SOURCES, Result, VolumeResult
from reports.make.typeset.words import count, listed, px

LESIONS = "Phantom data: these figures say nothing about skin lesions."
ORGANS = "Phantom data: these figures say nothing about organs in real CT."
BOTH = "Phantom data: these figures say nothing about skin lesions or about organs in real CT."


def data_sentences(results: Sequence[Result], datasets: Mapping[str, str]) -> list[str]:
    """A sentence for each dataset; datasets with the same sentence share it."""
    names_by_sentence: dict[str, list[str]] = {}
    for dataset, name in datasets.items():
        dataset_results = [result for result in results if result.dataset == dataset]
        names_by_sentence.setdefault(_data(dataset_results), []).append(name)
    return [
        f"{listed(named)}{' (each)' if len(named) > 1 and results else ''}: {sentence}"
        for sentence, named in names_by_sentence.items()
    ]


def phantom_warning(results: Sequence[Result], datasets: Mapping[str, str]) -> str:
    """The warning that phantoms were used; it names the datasets if some are real."""
    phantoms = [
        name
        for dataset, name in datasets.items()
        if any(r.dataset == dataset and r.data["source"] == "phantom" for r in results)
    ]
    if not phantoms:
        return ""
    warning = ORGANS if isinstance(results[0], VolumeResult) else LESIONS
    if any(result.data["source"] != "phantom" for result in results):
        return warning.replace("data:", f"data ({', '.join(phantoms)}):")
    return warning


def joined_warnings(warnings: Sequence[str]) -> str:
    """The warnings of images and of volumes, in one sentence if they say the same."""
    return BOTH if list(warnings) == [LESIONS, ORGANS] else " ".join(filter(None, warnings))


def _data(results: Sequence[Result]) -> str:
    """One dataset's source, counts and stored sizes, and the effect of resizing on its images."""
    if not results:
        return "nothing measured, the grid runs none of these rows."
    data, volumes = results[0].data, isinstance(results[0], VolumeResult)
    (width, height), (widest, highest) = data["native_min"], data["native_max"]
    low, high = px(width, height), px(widest, highest)
    sizes = sorted({result.size for result in results})
    used = listed([px(size, size) for size in sizes])
    images = _volumes(results[0], low, high) if volumes else _images(results[0], low, high)
    sentences = [f"{images}, used at {used}."]
    unresized = [px(size, size) for size in sizes if low == high == px(size, size)]
    larger = [
        px(size, size)
        for size in sizes
        if max(widest, highest) <= size and px(size, size) not in unresized
    ]
    if unresized and volumes:
        sentences.append(f"At {listed(unresized)} their slices are not resized.")
    elif unresized:
        sentences.append(
            f"At {listed(unresized)} these images are not resized: the soft masks of the published "
            "resizing do not arise."
        )
    if larger:
        images = "their slices" if volumes else "they"
        sentences.append(f"At {listed(larger)} {images} are upsampled and gain no detail.")
    return " ".join(sentences)


def _images(result: Result, low: str, high: str) -> str:
    data = result.data
    # Images of a local archive, or of a prepared set, may have been reduced before.
    stored = "stored at" if data["source"] in ("file", "prepared") else "natively"
    return (
        f"{data['n_train']} training and {data['n_test']} test {SOURCES[data['source']]}, "
        f"{stored} {_between(result, low, high)}"
    )


def _volumes(result: Result, low: str, high: str) -> str:
    data = result.data
    train, test = (
        f"{count(data[f'n_{part}'], f'{words} case')} ({count(data[f'{part}_slices'], 'slice')})"
        for part, words in (("train", "training"), ("test", "test"))
    )
    plane = _between(result, low, high)
    return (
        f"{train} and {test} of {VOLUME_SOURCES[data['source']]}, "
        f"{plane}{' px' if low == high else ''} in plane"
    )


def _between(result: Result, low: str, high: str) -> str:
    """The stored size, or the smallest and largest length of each side."""
    if low == high:
        return low
    (width, height), (widest, highest) = result.data["native_min"], result.data["native_max"]
    return f"{width} to {widest} px wide and {height} to {highest} px high"
