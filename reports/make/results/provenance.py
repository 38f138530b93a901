"""The origin of a report's figures, as the runs' own files record it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reports.make.report import OURS, UNKNOWN, Provenance
from reports.make.results.data import origins
from reports.make.results.metrics import Result
from reports.make.typeset.sheet import Origin
from reports.make.typeset.words import count, listed

if TYPE_CHECKING:
    from pipeline.config.params import Params


def provenance_of(
    params: "Params", results: Sequence[Result], names: Mapping[str, str]
) -> Provenance:
    """The provenance of these runs; `names` are the datasets' names in the tables."""
    measured = measured_origins(results, names).values()
    checkpoints = [result.checkpoint for result in results]
    seconds = [checkpoint.get("seconds") for checkpoint in checkpoints]
    known_seconds = [float(value) for value in seconds if value is not None]
    return Provenance(
        profile=params.profile_name,
        about=" ".join(params.profile.about.split()),
        data=[origin.sentences for origin in measured],
        runs=len(results),
        seeds=sorted({result.run.seed for result in results}),
        revisions=_distinct(checkpoint.get("git") for checkpoint in checkpoints),
        devices=_distinct(map(_device, checkpoints)),
        versions=_versions([checkpoint.get("versions") or {} for checkpoint in checkpoints]),
        seconds=sum(known_seconds) if results and len(known_seconds) == len(results) else None,
    )


def measured_origins(results: Sequence[Result], names: Mapping[str, str]) -> dict[str, Origin]:
    """What the figures of each measured dataset were made from, by key, in the order of `names`."""
    measured = {result.dataset for result in results}
    datasets = {key: name for key, name in names.items() if key in measured}
    return dict(zip(datasets, origins(results, datasets), strict=True))


def summary_of(params: "Params", results: Sequence[Result], names: Mapping[str, str]) -> str:
    """What was run on what, in one sentence."""
    if not results:
        return f"Profile {params.profile_name}: nothing was measured."
    cells = dict.fromkeys(result.run.cell for result in results)
    variants = sum(params.cells[cell].model == OURS for cell in cells)
    others = len({params.cells[cell].model for cell in cells} - {OURS})
    models = [f"{count(variants, 'variant')} of VM-UNet"] if variants else []
    models += [count(others, "other model")] if others else []
    protocols = sorted({result.run.protocol for result in results})
    seeds = sorted({result.run.seed for result in results})
    datasets = [f"{one.name} ({one.short})" for one in measured_origins(results, names).values()]
    return (
        f"Profile {params.profile_name}: {count(len(results), 'run')} of {listed(models)} "
        f"under the {listed(protocols)} protocol{'s' if protocols[1:] else ''}, "
        f"seed{'s' if seeds[1:] else ''} {listed([str(seed) for seed in seeds])}, trained and "
        f"tested on {listed(datasets)}."
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
