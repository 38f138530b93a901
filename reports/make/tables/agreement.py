"""Whether runs with the paper's settings reach the paper's figures: a statement over seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from reports.make.report import OURS
from reports.make.results.metrics import Result, VolumeResult
from reports.make.results.scores import mean_and_std
from reports.make.results.views import TableViews
from reports.make.tables.captions import own_settings, runs_caption, trained
from reports.make.tables.comparison import Compared
from reports.make.tables.inputs import Inputs
from reports.make.tidy import Tidy, tidy
from reports.make.typeset.sheet import Block, Line, Sheet, Span, plain
from reports.make.typeset.words import bracketed, number, signed
from vmunet.errors import InputError
from vmunet.evaluation.runs import (
    SEEDS,
    Agreement,
    agreement,
    mean_interval,
    prediction_interval,
)

DECLARED = "reports/published.yaml: equivalence"
SETTINGS = ("epochs", "batch_size", "learning_rate", "t_max", "states")
NOTES = (
    "Every row of VM-UNet that has three seeds or more and the paper's settings: protocol, data, "
    "image size, width, states, epochs, batch size, learning rate, T_max and initial weights. Of "
    "any other row nothing is said here.",
    "Prediction: the 95% interval in which one new run is expected, from the spread of the seeds "
    "(normal theory); in or out: whether it holds the published figure, which is the best of an "
    "unknown number of runs, chosen on test images.",
    "90% interval: of the mean of all runs minus the published figure. Equivalent: it lies within "
    "the margin (two one-sided tests at 5%); different: none of it does; undecided: a part does, "
    "and more seeds may decide.",
    "Three seeds decide little. In simulations with runs that vary by 0.83 points, the prediction "
    "interval of a method whose mean is 1.5 points below the published figure holds that figure in "
    "87% of cases, and the verdict is undecided in 70%; of a method that equals it the verdict is "
    "equivalent in 9%, with ten seeds in 62% (benchmarks/results/agreement.json).",
)


@dataclass(frozen=True)
class Agreed:
    """One metric of one row over its seeds, in percent.

    Attributes:
        scores: of each run.
        margin: the largest difference of the mean that counts as none.
    """

    row: Compared
    scores: tuple[float, ...]
    published: float
    margin: float

    @property
    def prediction(self) -> tuple[float, float]:
        return prediction_interval(self.scores)

    @property
    def predicted(self) -> bool:
        """Whether the published figure could be one of these runs."""
        low, high = self.prediction
        return low <= self.published <= high

    @property
    def difference(self) -> float:
        return fmean(self.scores) - self.published

    @property
    def interval(self) -> tuple[float, float]:
        """The 90% interval of the difference."""
        low, high = mean_interval(self.scores)
        return low - self.published, high - self.published

    @property
    def verdict(self) -> Agreement:
        return agreement(self.scores, self.published, self.margin)


def agreed(rows: Sequence[Compared], inputs: Inputs) -> list[Agreed]:
    """The rows of which something can be said, by dataset and metric.

    Raises:
        InputError: published.yaml has no margins.
    """
    try:
        margins = inputs.published["equivalence"]["margins"]
    except (KeyError, TypeError):
        raise InputError(
            f"{DECLARED}: no margins; state for each dataset and metric which difference counts "
            "as none, before the runs that it judges"
        ) from None
    return [
        Agreed(
            row,
            tuple(100 * result.scores[row.metric] for result in row.results),
            row.figure.published,
            margins[row.dataset][row.metric],
        )
        for row in rows
        if row.metric in margins.get(row.dataset, {})
        and row.figure.published is not None
        and len(row.results) >= SEEDS
        and _as_published(row, inputs)
    ]


def _as_published(row: Compared, inputs: Inputs) -> bool:
    """Whether the row's runs were trained and tested as the paper's: VM-UNet, and every setting,
    on images whose split, if the data stage could check it, is the published one."""
    first = row.results[0]
    cell = inputs.params.cells[first.run.cell]
    pretrained = inputs.params.profile.weights.source in ("http", "file")
    return (
        row.row.model == OURS
        and first.run.protocol == "paper"
        and not _other_split(first, inputs)
        and (cell.init == "none" or pretrained)
        and not own_settings(inputs.params, row.results)
        and all(_trained_as_published(result, inputs) for result in row.results)
    )


def _other_split(result: Result, inputs: Inputs) -> bool:
    split = inputs.splits.get(result.dataset)
    return bool(split and split["source"] == result.data["source"] and not split["agrees"])


def _trained_as_published(result: Result, inputs: Inputs) -> bool:
    train, paper = trained(inputs, result)
    views = TableViews(inputs.params, inputs.declared, inputs.published).views[result.dataset]
    published_size = {view: size for size, view in views.items()}[result.run.view]
    cases = inputs.published["cases"][result.dataset]
    return (
        result.size == published_size
        and result.epochs == paper["epochs"]
        and list(train.dims) == list(paper["dims"])
        and all(getattr(train, name) == paper[name] for name in SETTINGS)
        and result.data["source"] not in ("phantom", "sample")
        and [result.data["n_train"], result.data["n_test"]] == [cases["train"], cases["test"]]
        # Of volumes a micro batch changes the loss: Dice is pooled over the batch.
        and not (isinstance(result, VolumeResult) and result.checkpoint.get("micro_batch"))
    )


def agreement_sheet(inputs: Inputs, rows: Sequence[Agreed]) -> Sheet:
    blocks: dict[str, list[Line]] = {}
    for of in rows:
        heading = inputs.declared["metrics"][of.row.metric]["heading"]
        texts = (
            of.row.label,
            ", ".join(of.row.tables),
            str(len(of.scores)),
            number(of.published),
            number(*mean_and_std(of.scores)),
            bracketed(*of.prediction),
            "in" if of.predicted else "out",
            signed(of.difference),
            bracketed(*of.interval, sign=True),
            number(of.margin),
            of.verdict,
        )
        title = f"{inputs.heading(of.row.dataset)}, {heading} (%)"
        blocks.setdefault(title, []).append(Line(plain(texts)))
    results = [result for of in rows for result in of.row.results]
    reason = inputs.published["equivalence"]["reason"]
    return Sheet(
        name="agreement",
        caption=runs_caption(
            inputs,
            "Agreement with the paper over the seeds",
            (*NOTES, f"Margin: {reason}"),
            results,
        ),
        head=(
            *("Row", "Tables", "seeds", "publ.", "meas.", "prediction", "publ."),
            *("mean", "90% interval", "margin", "verdict"),
        ),
        blocks=tuple(Block(title, tuple(lines)) for title, lines in blocks.items()),
        spans=((Span("One new run", 6, 7), Span("Mean minus published", 8, 11)),),
        left=2,
        source="reports/published.yaml",
    )


def agreement_data(rows: Sequence[Agreed]) -> Tidy:
    """Tidy: a line for each row and metric; percent, rounded to 6 decimals."""
    records: list[dict[str, Any]] = []
    for of in rows:
        run, (mean, std) = of.row.results[0].run, mean_and_std(of.scores)
        records.append(
            {"row": of.row.label, "tables": " ".join(of.row.tables)}
            | {"dataset": of.row.dataset, "metric": of.row.metric}
            | {"view": run.view, "cell": run.cell, "protocol": run.protocol}
            | {"published": of.published, "mean": mean, "std": std, "n_seeds": len(of.scores)}
            | dict(zip(("prediction_low", "prediction_high"), of.prediction, strict=True))
            | {"published_in_prediction": of.predicted, "difference": of.difference}
            | dict(zip(("difference_low_90", "difference_high_90"), of.interval, strict=True))
            | {"margin": of.margin, "verdict": of.verdict}
            | {"metrics_files": ";".join(result.path for result in of.row.results)}
        )
    return tidy(records)
