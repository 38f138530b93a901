"""The origin of a report's figures, as the runs' own files record it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reports.make.report import UNKNOWN, Provenance
from reports.make.results.data import data_sentences, joined_warnings, phantom_warning
from reports.make.results.metrics import Result, VolumeResult
from reports.make.typeset.words import count

if TYPE_CHECKING:
    from pipeline.config.params import Params


def provenance_of(
    params: "Params", results: Sequence[Result], names: Mapping[str, str]
) -> Provenance:
    """The provenance of these runs; `names` are the datasets' names in the tables."""
    kinds: tuple[Sequence[Result], ...] = (
        [result for result in results if not isinstance(result, VolumeResult)],
        [result for result in results if isinstance(result, VolumeResult)],
    )
    data, warnings = [], []
    for kind in filter(None, kinds):
        datasets = {result.dataset for result in kind}
        own_names = {key: name for key, name in names.items() if key in datasets}
        data += data_sentences(kind, own_names)
        warnings.append(phantom_warning(kind, own_names))
    checkpoints = [result.checkpoint for result in results]
    seconds = [checkpoint.get("seconds") for checkpoint in checkpoints]
    known_seconds = [float(value) for value in seconds if value is not None]
    return Provenance(
        profile=params.profile_name,
        about=" ".join(params.profile.about.split()),
        data=data,
        phantom=joined_warnings(warnings),
        runs=len(results),
        seeds=sorted({result.run.seed for result in results}),
        revisions=_distinct(checkpoint.get("git") for checkpoint in checkpoints),
        devices=_distinct(map(_device, checkpoints)),
        versions=_versions([checkpoint.get("versions") or {} for checkpoint in checkpoints]),
        seconds=sum(known_seconds) if results and len(known_seconds) == len(results) else None,
    )


def _device(checkpoint: Mapping[str, Any]) -> str | None:
    device, threads = checkpoint.get("device"), checkpoint.get("threads")
    if not device:
        return None
    return f"{device} ({count(threads, 'thread')})" if threads else str(device)


def _distinct(values: Iterable[object]) -> list[str]:
    return sorted({str(value) if value else UNKNOWN for value in values})


def _versions(recorded: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Every package's version; several if the runs were trained with different ones."""
    versions: dict[str, list[str]] = {}
    for of_run in recorded:
        for name, version in of_run.items():
            if version not in versions.setdefault(name, []):
                versions[name].append(version)
    return {name: " or ".join(sorted(distinct)) for name, distinct in versions.items()}
