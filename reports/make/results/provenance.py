"""Where the figures of a report come from: profile, data, seeds, code, packages, machine."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reports.make.results.data import (
    count,
    data_sentences,
    joined_warnings,
    listed,
    phantom_warning,
)
from reports.make.results.metrics import Result, VolumeResult

if TYPE_CHECKING:
    from pipeline.config.params import Params

UNKNOWN = "not recorded"


@dataclass(frozen=True)
class Provenance:
    """What stands in every output of the report.

    Attributes:
        profile, about: the budget's name and its own words.
        data: a sentence for each dataset: source, counts, sizes.
        phantom: one sentence for a visible band where any data are phantoms, else ''.
        runs: how many trained and scored runs the report is made from.
        seeds: theirs, sorted.
        revisions: code revisions that they were trained with, `+changes` marking edited sources.
        devices: what they were trained on, with how many processor threads.
        versions: package name -> version, or versions where runs differ.
        seconds: that all trainings took together, None where a run does not say.
    """

    profile: str
    about: str
    data: list[str]
    phantom: str
    runs: int
    seeds: list[int]
    revisions: list[str]
    devices: list[str]
    versions: dict[str, str]
    seconds: float | None

    def lines(self) -> list[tuple[str, str]]:
        """(heading, text) in the order in which a report prints them."""
        packages = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        seeds = "seed" if len(self.seeds) == 1 else "seeds"
        took = UNKNOWN if self.seconds is None else duration(self.seconds)
        return [
            ("Profile", f"{self.profile}: {self.about}"),
            ("Data", " ".join(self.data) or "nothing measured"),
            ("Runs", f"{count(self.runs, 'run')}, {seeds} {_texts(self.seeds)}"),
            ("Code revision", _texts(self.revisions)),
            ("Trained on", _texts(self.devices)),
            ("Training time, all runs", took),
            ("Packages", packages or UNKNOWN),
        ]


def provenance_of(params: "Params", results: Sequence[Result], names: dict[str, str]) -> Provenance:
    """The provenance of these runs; `names` are the datasets' as tables print them."""
    kinds = (
        [result for result in results if not isinstance(result, VolumeResult)],
        [result for result in results if isinstance(result, VolumeResult)],
    )
    data, warnings = [], []
    for kind in filter(None, kinds):
        shown = {result.dataset for result in kind}
        own = {key: name for key, name in names.items() if key in shown}
        data += data_sentences(kind, own)
        warnings.append(phantom_warning(kind, own))
    checkpoints = [result.checkpoint for result in results]
    seconds = [checkpoint.get("seconds") for checkpoint in checkpoints]
    known = [float(value) for value in seconds if isinstance(value, int | float)]
    return Provenance(
        profile=params.profile_name,
        about=" ".join(params.profile.about.split()),
        data=data,
        phantom=joined_warnings(warnings),
        runs=len(results),
        seeds=sorted({result.run.seed for result in results}),
        revisions=_distinct(checkpoint.get("git") for checkpoint in checkpoints),
        devices=_distinct(map(_device, checkpoints)),
        versions=_versions([checkpoint.get("versions") for checkpoint in checkpoints]),
        seconds=sum(known) if results and len(known) == len(results) else None,
    )


def duration(seconds: float) -> str:
    """Hours and minutes, or seconds below two minutes."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _device(checkpoint: Any) -> str | None:
    device, threads = checkpoint.get("device"), checkpoint.get("threads")
    if not device:
        return None
    return f"{device} ({count(threads, 'thread')})" if threads else str(device)


def _distinct(values: Any) -> list[str]:
    return sorted({str(value) if value else UNKNOWN for value in values})


def _texts(values: Sequence[object]) -> str:
    return listed([str(value) for value in values]) if values else UNKNOWN


def _versions(found: Sequence[Any]) -> dict[str, str]:
    """Every package's version; several where the runs were trained with different ones."""
    versions: dict[str, list[str]] = {}
    for one in found:
        for name, version in (one if isinstance(one, dict) else {}).items():
            if version not in versions.setdefault(name, []):
                versions[name].append(version)
    return {name: " or ".join(sorted(own)) for name, own in versions.items()}
