"""Compute all values of the report once, and render its tables.

Reads params.yaml, reports/published.yaml, reports/tables.yaml, reports/recipes.yaml,
reports/checklists.yaml, reports/templates/tables/ and the files of each run of the grid in
metrics/; writes reports/out/tables/.

report.json holds all values: rows, statistics, captions, provenance. It is all that the stages page
and pdf read of the runs. Each table is also written as .tex and .csv:

table1 to table6: the paper's tables, with published and measured values; table5-cost: parameters,
    FLOPs, speed.
models: the same cost of the models of Tables I and II; recipes: how their authors train them.
comparison: every measured row with its interval, difference and test.
confusion: the confusion matrices behind Table I, published and measured.
agreement: whether runs with the paper's settings reach its figures, from three seeds on.
protocols: the paper protocol against the sound one.
cross: models on the other dataset's images, if the grid has such tests.
reproductions: the scores that others report for the published code.
sound, sound-native: every run on images under the sound metrics (one sound.csv).
strata: the main cell by parts of the test images.
organs: every run on volumes under both conventions.

checklists.md answers reporting checklists (CLAIM, TRIPOD+AI).
all.tex is a document with all tables, index.md the same for a terminal. runs.csv lists the metrics
file, checkpoint, data hash, code revision and MLflow run of each run. scores.json holds the
runs' headline scores, for `dvc metrics diff`.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from pipeline.config.params import load_params
from pipeline.config.runs import runs
from pipeline.stage import run_stage
from reports.make.report import TABLES
from reports.make.results.statistics import Statistics
from reports.make.tables.writing import make_tables


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.tables", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.parse_args(argv)
    params, root = load_params(), Path()
    make_tables(root, params, runs(params), Statistics(root))
    print(f"written to {TABLES}")


if __name__ == "__main__":
    run_stage(main)
