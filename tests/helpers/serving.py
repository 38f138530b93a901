"""A small model, and the page of `vmunet serve` as a server in this process."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from vmunet import VMUNet
from vmunet.serving.app import listen, make_app, make_server
from vmunet.serving.segmenter import Segmenter
from vmunet.weights.checkpoints import save_checkpoint


def write_weights(path: Path, **facts: Any) -> Path:
    """Weights of a small model whose output varies over an image; `classes` may be among facts."""
    torch.manual_seed(0)
    outputs = len(facts.get("classes", ())) + 1
    blocks: dict[str, Any] = {"depths": (1, 1, 1, 1), "depths_decoder": (1, 1, 1, 1)}
    model = VMUNet(dims=(8, 16, 32, 64), num_classes=outputs, **blocks)
    with torch.no_grad():
        model.final_conv.weight *= 5
    path.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(
        path, model, {"normalisation": "minmax", "size": 64, "protocol": "paper"} | facts
    )
    return path


@contextmanager
def served(segmenter: Segmenter, examples: Sequence[Path] = ()) -> Iterator[str]:
    """The address of the page, as long as the block runs."""
    listener = listen(0)
    server = make_server(make_app(segmenter, "some weights", examples))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()
        assert not thread.is_alive()
