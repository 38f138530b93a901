"""What the figures of each dataset were made from, and how resizing changed its images."""

from collections.abc import Mapping, Sequence

from reports.make.results.metrics import SOURCES, VOLUME_SOURCES, Result, VolumeResult
from reports.make.typeset.sheet import Kind, Origin
from reports.make.typeset.words import count, listed, px
from vmunet.data.isic.official import DATASETS

LESIONS = "Figures on phantoms say nothing about skin lesions."
ORGANS = "Figures on phantoms say nothing about organs in real CT."
SAMPLE = "Not the paper's {} and {} images: the figures do not compare with the published ones."


def origins(results: Sequence[Result], datasets: Mapping[str, str]) -> tuple[Origin, ...]:
    """What the figures of each dataset were made from; `datasets` are the names by key."""
    return tuple(
        _origin(name, [result for result in results if result.dataset == dataset])
        for dataset, name in datasets.items()
    )


def resizing(results: Sequence[Result], datasets: Mapping[str, str]) -> list[str]:
    """What resizing does to the stored images; datasets with the same sentences share them."""
    names_by_text: dict[str, list[str]] = {}
    for dataset, name in datasets.items():
        of_dataset = [result for result in results if result.dataset == dataset]
        if of_dataset and (text := _resizing(of_dataset)):
            names_by_text.setdefault(text, []).append(name)
    return [f"{listed(names)}: {text}" for text, names in names_by_text.items()]


def _origin(name: str, results: Sequence[Result]) -> Origin:
    if not results:
        return Origin(name, "none", "", "nothing measured.", "")
    result = results[0]
    source = result.data["source"]
    kind: Kind = source if source in ("phantom", "sample") else "real"
    sizes = listed([px(size, size) for size in sorted({one.size for one in results})])
    if isinstance(result, VolumeResult):
        short, text, caution = _volumes(result)
    else:
        short, text, caution = _images(result)
    return Origin(name, kind, short, f"{text}, used at {sizes}.", caution)


def _images(result: Result) -> tuple[str, str, str]:
    """The short words, the full ones and the caution for a dataset of images."""
    train, test, source = (result.data[name] for name in ("n_train", "n_test", "source"))
    counts = f"{train:,} training and {test:,} test"
    if source == "phantom":
        return f"{counts} phantoms", f"{counts} {SOURCES[source]}", LESIONS
    # Images of a local archive, a prepared set or the sample may have been reduced before.
    stored = f"{'natively' if source == 'http' else 'stored at'} {_stored(result)}"
    if source == "sample":
        official = DATASETS[result.dataset]
        short = f"a sample of {train + test:,} real images, {train:,} to train and {test:,} to test"
        text = (
            f"a sample of {train + test:,} real {official.title} images ({train:,} to train, "
            f"{test:,} to test), {stored}"
        )
        return short, text, SAMPLE.format(f"{official.n_train:,}", f"{official.n_test:,}")
    return f"{counts} images", f"{counts} {SOURCES[source]}, {stored}", ""


def _volumes(result: Result) -> tuple[str, str, str]:
    """The same for a dataset of CT volumes."""
    data, source = result.data, result.data["source"]
    train, test = (
        f"{count(data[f'n_{part}'], f'{words} case')} ({count(data[f'{part}_slices'], 'slice')})"
        for part, words in (("train", "training"), ("test", "test"))
    )
    low, high = _range(result)
    text = (
        f"{train} and {test} of {VOLUME_SOURCES[source]}, "
        f"{_stored(result)}{' px' if low == high else ''} in plane"
    )
    kind = "phantom CT volumes" if source == "phantom" else "CT volumes"
    short = f"{data['n_train']} training and {data['n_test']} test {kind}"
    return short, text, ORGANS if source == "phantom" else ""


def _range(result: Result) -> tuple[str, str]:
    (width, height), (widest, highest) = result.data["native_min"], result.data["native_max"]
    return px(width, height), px(widest, highest)


def _stored(result: Result) -> str:
    """The stored size, or the smallest and largest length of each side."""
    low, high = _range(result)
    if low == high:
        return low
    (width, height), (widest, highest) = result.data["native_min"], result.data["native_max"]
    return f"{width} to {widest} px wide and {height} to {highest} px high"


def _resizing(results: Sequence[Result]) -> str:
    """The effect of resizing on one dataset's images; '' if they are reduced."""
    volumes = isinstance(results[0], VolumeResult)
    low, high = _range(results[0])
    longest = max(results[0].data["native_max"])
    sizes = sorted({result.size for result in results})
    unresized = [px(size, size) for size in sizes if low == high == px(size, size)]
    larger = [
        px(size, size) for size in sizes if longest <= size and px(size, size) not in unresized
    ]
    sentences = []
    if unresized and volumes:
        sentences.append(f"At {listed(unresized)} the slices are not resized.")
    elif unresized:
        sentences.append(
            f"At {listed(unresized)} the images are not resized: the soft masks of the published "
            "resizing do not arise."
        )
    if larger:
        pictures = "the slices" if volumes else "the images"
        sentences.append(f"At {listed(larger)} {pictures} are upsampled and gain no detail.")
    return " ".join(sentences)
