"""DVC stage: a run's model card.

    python -m stages.model_card isic17-256 base paper 42

Reads  metrics/<profile>/<view>/<cell>/<protocol>/<seed>/metrics.json and
       runs/<view>/<cell>/<protocol>/<seed>/run.json.
Writes reports/out/cards/<view>/<cell>/<protocol>/<seed>/MODEL_CARD.md.
"""

import json
from collections.abc import Sequence

from pipeline.config.params import load_params
from pipeline.config.runs import parse_run
from pipeline.stage import run_stage
from reports.make.model_card import model_card
from vmunet.files import whole_file


def main(argv: Sequence[str] | None = None) -> None:
    """Write the card of VIEW CELL PROTOCOL SEED."""
    run, params = parse_run(argv, "model_card", __doc__), load_params()
    metrics = json.loads((run.metrics_folder(params.profile_name) / "metrics.json").read_text())
    record = json.loads((run.folder / "run.json").read_text())
    text = model_card(metrics, record, params.profile.weights.source)
    with whole_file(run.card) as part:
        part.write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    run_stage(main)
