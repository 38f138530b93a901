"""`vmunet compare`: compare two cells on the same test images.

The functions import heavy modules themselves, so that `--help` answers at once.
"""

import argparse
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.commands.sweep import numbers

if TYPE_CHECKING:
    from pipeline.commands.compare_pairs import Named, Pair
    from pipeline.config.params import Params
    from pipeline.config.runs import Run
    from reports.make.results.comparison import Comparison, ScoreLine

WIDTH = 100
LEVEL = 0.05  # a corrected p below it is significant

HELP = "compare two cells on the same test images: differences, intervals, tests"
ABOUT = """\
Compare two cells on the test images that both were scored on: their scores, the differences with
95% intervals, and whether chance can explain a difference: of two methods with three seeds or more
of each, else of these two trained models alone. Run it in the repository's root.

CELL is a cell of params.yaml (base), a cell with its protocol (base-sound), or a run that `vmunet
runs` lists (isic17-64-base-paper-42, or its folder). Cells are compared on every view and under
every protocol for which both have scores, each with all its seeds.
"""

NOTES = """\
examples:
  vmunet compare base scratch                        (on every view that both have scores on)
  vmunet compare base scratch --view isic17-256
  vmunet compare base-paper base-sound               (the two protocols of one cell)
  vmunet compare base scratch --seeds 42,43          (only these of the declared seeds)
  vmunet compare isic17-64-base-paper-42 isic17-96-base-paper-42     (two sizes, by image)

A and B are means over the seeds, in percent. With three seeds or more of each cell, interval and p
of B - A are those of Welch's t test on the seeds' scores with the images' variance added: below
0.05 the two methods differ. With fewer, B - A has a bootstrap interval over the test images, the
same resamples for both, and p is that of a permutation test which swaps the two models' results
image by image (10,000 times; all ways for at most 13 cases): they speak of these trainings alone,
and no difference is marked. p is corrected by Holm's method for the scores of the view. Pooled
scores count all pixels of all images at once, as the paper does; mean scores average over the
images. Of CT volumes DSC and HD95 are the paper's, averaged over cases and organs.

exit status: 0 compared, 2 wrong input.
"""

MODELS = (
    "With fewer than three seeds of each, interval and p are about these trained models, not about "
    "the two methods: two seeds of one method often differ so."
)
METHODS = "Interval and p are over seeds and test {noun}s together."
CORRECTED = "p is corrected for the number of scores, the intervals are each score's own."
# The further difference between two protocols, for each kind of test data.
SELECTION = {
    "image": "Under the paper protocol the epoch was chosen by the loss on these test images, "
    "under the sound one on held-out training images: the first one's figures are too good.",
    "case": "Under the paper protocol the epoch was chosen by the training loss, under the sound "
    "one on held-out training cases.",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `vmunet compare`."""
    parser.set_defaults(command=compare)
    parser.add_argument("a", metavar="CELL", help="a cell, such as base, or a run")
    parser.add_argument("b", metavar="CELL", help="the cell or run to compare it with")
    parser.add_argument("--view", metavar="NAME", help="only on this view, such as isic17-256")
    parser.add_argument(
        "--protocol", choices=["paper", "sound"], help="only runs trained under this protocol"
    )
    parser.add_argument("--seeds", metavar="1,2", help="only these of the declared seeds")


def compare(arguments: argparse.Namespace) -> None:
    """Print the comparison.

    Raises:
        InputError: names are unknown or the same, no pair of runs has scores, or files are broken.
    """
    from pipeline.commands.compare_pairs import pairs, resolve
    from pipeline.config.params import load_params
    from pipeline.config.runs import own_runs, runs

    params = load_params()
    declared = runs(params) + own_runs(params)
    named = [resolve(word, declared, params) for word in (arguments.a, arguments.b)]
    a, b = (_restricted(name, arguments, params) for name in named)
    ready, waiting = _scored(pairs(a, b, params), params)
    from reports.make.results.comparison import compare as compare_runs

    for i, pair in enumerate(ready):
        comparison = compare_runs(Path(), params, pair.a, pair.b)
        print("\n" if i else "", _text(comparison, pair, a.word, b.word), sep="")
    if waiting:
        print("\n" + _wrapped(f"Not compared, because not scored yet: {_how_to_score(waiting)}."))


def _restricted(named: "Named", arguments: argparse.Namespace, params: "Params") -> "Named":
    """The named runs that match the options.

    Raises:
        InputError: an option's value is not declared, or no run matches.
    """
    from dataclasses import replace

    from vmunet.errors import InputError

    seeds = numbers(arguments.seeds)
    if arguments.view:
        params.view(arguments.view)
    declared = sorted({run.seed for run in named.runs})
    for seed in seeds:
        if seed not in declared:
            known = ", ".join(map(str, declared))
            raise InputError(f"--seeds {seed}: {named.word} is declared with {known}")
    matching = [
        run
        for run in named.runs
        if arguments.view in (None, run.view)
        and arguments.protocol in (None, run.protocol)
        and (not seeds or run.seed in seeds)
    ]
    if not matching:
        options = {"--view": arguments.view, "--protocol": arguments.protocol}
        options["--seeds"] = arguments.seeds
        words = " ".join(f"{option} {value}" for option, value in options.items() if value)
        raise InputError(f"{named.word} has no run with {words}; `vmunet runs` lists its runs")
    return replace(named, runs=matching)


def _scored(pairs: Sequence["Pair"], params: "Params") -> tuple[list["Pair"], list["Run"]]:
    """The pairs with the runs that have scores, and the runs without scores.

    Raises:
        InputError: in no pair both sides have scores.
    """
    from pipeline.commands.compare_pairs import Pair
    from vmunet.errors import InputError

    def done(run: "Run") -> bool:
        return (run.metrics_folder(params.profile_name) / "metrics.json").is_file()

    ready = [Pair(*([run for run in side if done(run)] for side in (p.a, p.b))) for p in pairs]
    waiting = [run for pair in pairs for run in (*pair.a, *pair.b) if not done(run)]
    ready = [pair for pair in ready if pair.a and pair.b]
    if not ready:
        raise InputError(f"the runs to compare are not scored yet: {_how_to_score(waiting)}")
    return ready, waiting


def _how_to_score(waiting: Sequence["Run"]) -> str:
    """The runs without scores, and the command that scores them."""
    names = list(dict.fromkeys(run.name for run in waiting))
    listed = " ".join(f"--cells {name}" for name in names[:3])
    further = f" ({len(names) - 3} others in the same way)" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{further}; run `vmunet sweep {listed}`"


def _text(comparison: "Comparison", pair: "Pair", a: str, b: str) -> str:
    """The comparison of one view as lines of at most 100 columns."""
    plural = f"{comparison.units} test {comparison.noun}{'' if comparison.units == 1 else 's'}"
    wide = max(len(line.label) for line in comparison.lines)
    rows = [
        _wrapped(f"{_place(pair)}: {plural}; data: {comparison.source}"),
        _side("A", a, pair.a),
        _side("B", b, pair.b),
        "",
        f"{'':{wide}}  {'A':>7}  {'B':>7}  {'B - A':>7}  {'95% interval':>18}  {'p':>7}",
        *(_row(line, wide) for line in comparison.lines),
        "",
        _wrapped(f"{_verdict(comparison.lines, a, b)} {_speaks_of(comparison)} {CORRECTED}"),
    ]
    if len({run.protocol for run in (*pair.a, *pair.b)}) > 1:
        rows += ["", _wrapped(SELECTION[comparison.noun])]
    size = " at native size" if comparison.noun == "image" else ""
    for name, ahead in ((a, comparison.a_ahead), (b, comparison.b_ahead)):
        if ahead:
            ids = max(len(item) for item, _, _ in ahead)
            rows += ["", _wrapped(f"{name} is furthest ahead (Dice of A and of B{size}) on")]
            rows += [f"  {item:{ids}}  {of_a:7.2f}  {of_b:7.2f}" for item, of_a, of_b in ahead]
    return "\n".join(rows)


def _place(pair: "Pair") -> str:
    """The view and protocol, or those of both sides if they differ."""
    views = dict.fromkeys(runs[0].view for runs in (pair.a, pair.b))
    protocols = dict.fromkeys(runs[0].protocol for runs in (pair.a, pair.b))
    many = "s" if len(protocols) > 1 else ""
    return f"{' and '.join(views)}, {' and '.join(protocols)} protocol{many}"


def _side(letter: str, name: str, runs: Sequence["Run"]) -> str:
    seeds = ", ".join(str(run.seed) for run in runs)
    return _wrapped(f"{letter}  {name}, seed{'' if len(runs) == 1 else 's'} {seeds}")


def _row(line: "ScoreLine", wide: int) -> str:
    interval = f"{_number(line.low, '+'):>7} to {_number(line.high, '+'):>7}"
    return (
        f"{line.label:{wide}}  {_number(line.a):>7}  {_number(line.b):>7}  "
        f"{_number(line.difference, '+'):>7}  {interval:>18}  {_p(line.p):>7}"
        f"{' *' if _significant(line) else ''}"
    )


def _number(value: float, sign: str = "") -> str:
    """Two decimals; a dash for nan."""
    return "--" if value != value else f"{round(value, 2) + 0.0:{sign}.2f}"  # no -0.00


def _p(p: float | None) -> str:
    if p is None:
        return "--"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _significant(line: "ScoreLine") -> bool:
    return line.methods and line.p is not None and line.p < LEVEL


def _speaks_of(comparison: "Comparison") -> str:
    """What interval and p are about."""
    return METHODS.format(noun=comparison.noun) if comparison.lines[0].methods else MODELS


def _verdict(lines: Sequence["ScoreLine"], a: str, b: str) -> str:
    """One sentence that says which of the two is better, in which scores."""
    tested = [line.p for line in lines if line.p is not None]
    if not tested:
        return "No score is defined for both."
    if not lines[0].methods:
        apart = sum(p < LEVEL for p in tested)
        return f"These trained models differ (p < {LEVEL}) in {apart} of {len(lines)} scores."
    if not any(_significant(line) for line in lines):
        return (
            f"No difference between {a} and {b} is significant: the smallest p is "
            f"{_p(min(tested))}."
        )
    parts = []
    for key, name, other in (("b", b, a), ("a", a, b)):
        labels = [line.label for line in lines if _significant(line) and line.better == key]
        if labels:
            scores = "every score" if len(labels) == len(lines) else _listed(labels)
            parts.append(f"{name} is significantly better than {other} in {scores}")
    others = sum(not _significant(line) for line in lines)
    if others:
        scores = "score does" if others == 1 else f"{others} scores do"
        parts.append(f"the other {scores} not differ significantly")
    return "; ".join(parts) + "."


def _listed(labels: Sequence[str]) -> str:
    """The labels in one text; `mean Dice, native size` becomes `mean Dice (native size)`."""
    words = [label.replace(", ", " (", 1) + ")" * (", " in label) for label in labels]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _wrapped(text: str) -> str:
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)
