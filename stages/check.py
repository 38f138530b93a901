"""DVC stage: a report for people about possible mistakes in the data.

    python -m stages.check

Reads  data/raw/<dataset>/ of every dataset of the grid, and reports/published.yaml.
Writes reports/out/data/: index.md, findings.csv, split.json (of whole datasets: whether the split
       is the published one), <dataset>.png (images with their masks' outlines) and between.png
       (copies across datasets, if there are any).
"""

import argparse
import json
from itertools import combinations
from pathlib import Path
from typing import Any

from pipeline.config.params import Params, PhantomSource, SampleSource, load_params
from pipeline.config.yaml_file import read_yaml
from pipeline.stage import run_stage
from vmunet.data.checks.facts import MeasuredDataset, measure
from vmunet.data.checks.findings import find, find_pairs, shared_ids
from vmunet.data.checks.published_split import SplitCheck, check_split
from vmunet.data.checks.report import report, write_findings
from vmunet.data.isic import sample
from vmunet.data.isic.official import dataset_named
from vmunet.drawing.sheets.findings import dataset_groups, draw, pair_groups
from vmunet.drawing.sheets.images import write as write_sheet
from vmunet.files import whole_folder

RAW = Path("data/raw")
PUBLISHED = Path("reports/published.yaml")


def main(argv: list[str] | None = None) -> None:
    """Check every dataset of the grid and write reports/out/data/."""
    parser = argparse.ArgumentParser(prog="python -m stages.check", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.parse_args(argv)
    check(load_params(), Path("reports/out/data"))


def check(params: Params, target: Path) -> None:
    """Check the grid's datasets and write the report to `target`, completely or not at all.

    Raises:
        InputError: a dataset was not downloaded. Mistakes in an image are not errors: the report
            lists them.
    """
    datasets = [measure(name, RAW / name) for name in params.grid.datasets]
    findings = {data.dataset: find(data, declared(params, data.dataset)) for data in datasets}
    pairs = find_pairs(datasets)
    shared = [shared_ids(one, other) for one, other in combinations(datasets, 2)]
    sheets = {
        data.dataset: dataset_groups(
            data,
            findings[data.dataset],
            [pair for pair in pairs if pair.first.dataset == data.dataset],
        )
        for data in datasets
    }
    across = [pair for pair in pairs if pair.across]
    sheets["between"] = pair_groups("the same picture under two ids", across)
    sheets = {name: groups for name, groups in sheets.items() if groups}
    splits = compared(datasets, read_yaml(PUBLISHED))
    rows = {
        name: [*(row for split in splits if split.dataset == name for row in split.findings()), *of]
        for name, of in findings.items()
    }
    about = f"Profile {params.profile_name}: {params.profile.about}"
    with whole_folder(target) as folder:
        for name, groups in sheets.items():
            title = f"{name}   profile {params.profile_name}   outlines: the masks"
            drawn = draw(groups, title, lambda dataset: RAW / dataset)
            write_sheet(folder / f"{name}.png", drawn)
        write_findings(folder / "findings.csv", rows, pairs)
        text = report(about, datasets, findings, pairs, shared, list(sheets), splits)
        (folder / "index.md").write_text(text)
        said = {
            split.dataset: {"source": split.source, "agrees": split.agrees, "text": split.sentence}
            for split in splits
        }
        (folder / "split.json").write_text(json.dumps(said, indent=1) + "\n")


def compared(datasets: list[MeasuredDataset], published: dict[str, Any]) -> list[SplitCheck]:
    """The comparisons of whole datasets with the published means and the scores of Table I."""
    checks = []
    for measured in datasets:
        name = measured.dataset
        scores = [row[name] for row in published["tables"]["I"].values() if name in row]
        rows = [(score["acc"], score["spe"], score["sen"]) for score in scores]
        checks.append(check_split(measured, published["means"][name], rows))
    return [check for check in checks if check is not None]


def declared(params: Params, name: str) -> dict[str, int]:
    """The number of images of each split: of the profile's phantoms or sample, or the official."""
    dataset = dataset_named(name)
    source = params.profile.data[dataset.name]
    if isinstance(source, PhantomSource):
        test = source.training + source.validation - source.n_train
        return {"train": source.n_train, "test": test}
    if isinstance(source, SampleSource):
        return {"train": source.n_train, "test": sample.IMAGES - source.n_train}
    return {"train": dataset.n_train, "test": dataset.n_test}


if __name__ == "__main__":
    run_stage(main)
