"""The report of a study: reports/out/search/<study>/index.md with plots, and the cell to paste."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from pipeline.config.params import Params
from pipeline.config.yaml_file import read_yaml
from pipeline.search.space import as_yaml, overrides
from pipeline.search.study import SharedStudy, running
from vmunet.files import whole_folder

REPORTS = Path("reports/out/search")
MOST_IN_LEGEND = 12
STATES = {
    TrialState.COMPLETE: "done",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


@dataclass(frozen=True)
class SearchReport:
    """The report that was written.

    Attributes:
        path: the path of index.md.
        best: a sentence about the best trial.
        cell: a heading and the best trial's cell in the lines of params.yaml; '' if no trial has
            ended well.
    """

    path: Path
    best: str
    cell: str


def write_report(study: SharedStudy, params: Params, root: Path = Path(".")) -> SearchReport:
    """Write the report again, completely or not at all."""
    folder = root / REPORTS / study.name
    best = study.best()
    cell = best_cell(study, best, params, root) if best else ""
    sentence = sentence_on(study, best)
    with study.locked(), whole_folder(folder) as part:
        plots = draw(study.study, part)
        text = page(study, params, sentence, cell, plots)
        (part / "index.md").write_text(text, encoding="utf-8")
        if cell:
            (part / "cell.yaml").write_text(f"cells:\n{cell}", encoding="utf-8")
    return SearchReport(
        folder / "index.md",
        sentence,
        f"its cell, to paste under cells: in params.yaml:\n{cell}" if cell else "",
    )


def sentence_on(study: SharedStudy, best: FrozenTrial | None) -> str:
    """A sentence about the best trial, compared with the cell's own settings."""
    if best is None:
        return "no trial has come to its end yet"
    text = f"best: trial {best.number}, loss {best.value:.4f} in epoch {best.user_attrs['epoch']}"
    own_trials = [t for t in study.trials() if t.user_attrs.get("own") and t.values]
    if not own_trials or own_trials[-1].value is None:
        return text
    if own_trials[-1].number == best.number:
        return f"{text}: the cell's own settings"
    complete = own_trials[-1].state is TrialState.COMPLETE
    early = "" if complete else f", pruned after epoch {own_trials[-1].last_step}"
    return f"{text} (the cell's own settings: {own_trials[-1].value:.4f}{early})"


def best_cell(study: SharedStudy, best: FrozenTrial, params: Params, root: Path) -> str:
    """The best trial as a cell: the searched cell's own lines, overridden by the trial's values."""
    facts = study.facts
    declared = read_yaml(root / "params.yaml").get("cells", {}).get(facts.cell) or {}
    values = overrides(facts.dimensions, best.params, facts.kind)
    name = f"{facts.cell}-tuned"
    while name in params.cells:
        name += "-again"
    return as_yaml(name, {**declared, **values})


def draw(study: Study, folder: Path) -> dict[str, str]:
    """Draw the plots; for each title the Markdown of its picture, or why it could not be drawn."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from optuna.visualization import matplotlib as plots

    def importances(study: Study) -> Any:
        if len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))) < 2:
            raise ValueError("needs two trials that came to their end")
        return plots.plot_param_importances(study)

    kinds: dict[str, tuple[str, Callable[[Study], Any]]] = {
        "History": ("history.png", plots.plot_optimization_history),
        "Importance": ("importance.png", importances),
        "Epochs": ("epochs.png", plots.plot_intermediate_values),
    }
    drawn = {}
    for title, (name, plot) in kinds.items():
        try:
            axes = plot(study)
            label_axes(axes, title)
            axes.figure.set_size_inches(8, 4.5)
            axes.figure.savefig(folder / name, dpi=110, bbox_inches="tight")
            drawn[title] = f"![{title}]({name})"
        except (ValueError, RuntimeError, ZeroDivisionError) as error:
            drawn[title] = f"Not drawn: {error}."
        finally:
            pyplot.close("all")
    return drawn


def label_axes(axes: Any, title: str) -> None:
    """Replace Optuna's general labels, and remove a legend that would hide the plot."""
    axes.set_title("")
    if title != "Importance":
        axes.set_ylabel("loss on held-out images")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlabel("epoch" if title == "Epochs" else "trial")
    legend = axes.get_legend()
    if legend is not None and (title == "Importance" or len(legend.get_texts()) > MOST_IN_LEGEND):
        legend.remove()


def page(
    study: SharedStudy, params: Params, sentence: str, cell: str, plots: dict[str, str]
) -> str:
    """The report in Markdown."""
    facts = study.facts
    about = " ".join(params.profile.about.split())
    lines = [
        f"# Search {study.name}",
        "",
        f"{sentence[0].upper()}{sentence[1:]}.",
        "",
        f"Cell `{facts.cell}` on `{facts.view}`, protocol `{facts.protocol}`, at most "
        f"{facts.epochs} epochs, seed {facts.seed}, profile `{facts.profile}`: {about} A trial is "
        "worth its lowest loss (cross-entropy + Dice, weights 1 and 1) on the held-out part of the "
        "training images, the same for all; no test image was read. The best of many trials looks "
        "better on these images than it is: score its cell on the test images once.",
        "",
    ]
    if cell:
        lines += [
            "## The cell",
            "",
            "```yaml",
            "cells:",
            cell.rstrip("\n"),
            "```",
            "",
            "Paste it into `params.yaml`, and its name into `grid.ablations` or `grid.sound_cells` "
            "(for your own data `own.cells`), so that it is run.",
            "",
        ]
    for title, content in plots.items():
        lines += [f"## {title}", "", content, ""]
    return "\n".join([*lines, "## Trials", "", *table(study), ""])


def table(study: SharedStudy) -> list[str]:
    """A line for each trial."""
    dimensions = study.facts.dimensions
    head = ["trial", "state", "epoch", "loss", "seconds", *(d.name for d in dimensions), ""]
    lines = ["| " + " | ".join(head) + " |", "|---|---|" + "---:|" * (len(head) - 3) + "---|"]
    for trial in study.trials():
        state = STATES[trial.state]
        if trial.user_attrs.get("interrupted"):
            state = "stopped, done again"
        epoch, loss = "", ""
        if trial.intermediate_values and not running(trial):
            epoch = str(trial.user_attrs.get("epoch", trial.last_step))
            loss = f"{min(trial.intermediate_values.values()):.4f}"
        values = [
            str(d.rounded(trial.params[d.name])) if d.name in trial.params else ""
            for d in dimensions
        ]
        notes = "own settings" if trial.user_attrs.get("own") else ""
        why = str(trial.user_attrs.get("reason", "")).replace("|", "\\|")
        cells = [
            str(trial.number),
            state,
            epoch,
            loss,
            str(trial.user_attrs.get("seconds", "")),
            *values,
            "; ".join(filter(None, (notes, why))),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines
