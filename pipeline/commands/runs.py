"""The subcommand `vmunet runs`: the declared grid, and what of it is done."""

import argparse

HELP = "list the declared grid and what is done"
ABOUT = """\
List every run that the active profile declares, and whether its weights and metrics are there.
Run it in the repository's root. `dvc repro STAGE@NAME` makes one of them up to date; STAGE is

  evaluate              the grid's isic views under its protocols
  evaluate_elsewhere    its other sizes
  evaluate_sound        its cells under the sound protocol
  evaluate_volumes      its volumes
  evaluate_own_images   images of your own
  evaluate_own_volumes  volumes of your own

and the same with train in place of evaluate trains without scoring.
"""
NOTES = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare that `vmunet runs` takes none."""
    parser.set_defaults(command=list_runs)


def list_runs(arguments: argparse.Namespace) -> None:
    """Run the subcommand.

    Raises:
        InputError: params.yaml or the profile cannot be read.
    """
    from pipeline.config.params import load_params
    from pipeline.config.runs import own_runs, runs

    params = load_params()
    own = own_runs(params)
    declared = runs(params) + own
    width = max((len(run.name) for run in declared), default=0)
    trained = scored = 0
    for run in declared:
        has_weights = (run.folder / "weights.safetensors").is_file()
        metrics = run.metrics_folder(params.profile_name) / "metrics.json"
        has_metrics = metrics.is_file()
        trained, scored = trained + has_weights, scored + has_metrics
        state = "scored" if has_metrics else "trained" if has_weights else "-"
        print(f"{run.name:{width}}  {state}")
    print(
        f"profile {params.profile_name}: {len(declared)} runs"
        f"{f' ({len(own)} on datasets of your own)' if own else ''}, {trained} with weights, "
        f"{scored} with metrics; `dvc status` says which of them are up to date"
    )
