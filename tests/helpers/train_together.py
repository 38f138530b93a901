"""One process of a small training, started by `launch`: `OUT EPOCHS SAMPLES MICRO_BATCH KILLED`.

Writes OUT/<rank>.json with the history and the sum of each weight, OUT/<rank>.pid, and
OUT/state.pt. At the end of the epoch KILLED, process 1 ends itself by SIGKILL.
"""

import json
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from tests.helpers.discs import CPU, LOSS, SETTINGS, Discs, tiny_model
from vmunet.protocols import PAPER
from vmunet.training.distributed import ALONE, group_of, joined
from vmunet.training.loop import train


class Doubles(Discs):
    """In float64, where AdamW's first steps do not blow up the rounding of small gradients."""

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, target = super().__getitem__(index)
        return image.double(), target.double()


def main() -> None:
    folder, *numbers = sys.argv[1:]
    epochs, samples, micro_batch, killed = map(int, numbers)
    group = group_of() or ALONE
    out = Path(folder)
    (out / f"{group.rank}.pid").write_text(str(os.getpid()))

    def on_epoch(row: dict[str, float]) -> None:
        if row["epoch"] == killed and group.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if epochs > 100:
            time.sleep(0.1)

    model = tiny_model().double()
    with joined(group, CPU):
        progress = train(
            model,
            Doubles(samples),
            Doubles(6),
            LOSS,
            replace(SETTINGS, epochs=epochs),
            PAPER,
            7,
            CPU,
            state=out / "state.pt",
            on_epoch=on_epoch,
            micro_batch=micro_batch or None,
            group=group,
        )
    weights = {name: tensor.double().sum().item() for name, tensor in model.state_dict().items()}
    result = {"history": progress.history, "weights": weights}
    (out / f"{group.rank}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
