"""The subcommand `vmunet runs`: list the declared runs and their states."""

import argparse

HELP = "list the declared runs and their states"
ABOUT = """\
List every run that params.yaml declares, and whether its weights and metrics exist. Run it in the
repository's root. `dvc repro STAGE@NAME` brings a run up to date; STAGE is

  evaluate              for the grid's isic views under its protocols
  evaluate_elsewhere    for its other sizes
  evaluate_sound        for its cells under the sound protocol
  evaluate_repeats      for the further seeds of some cells (grid.repeats)
  evaluate_volumes      for its volumes
  evaluate_own_images   for your own images
  evaluate_own_volumes  for your own volumes

The same names with train instead of evaluate train without scoring.
"""
NOTES = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare that `vmunet runs` has no arguments."""
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
        f"{f' ({len(own)} on your own datasets)' if own else ''}, {trained} with weights, "
        f"{scored} with metrics; `dvc status` says which of them are up to date"
    )
