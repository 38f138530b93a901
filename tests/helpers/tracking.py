"""A real MLflow server that can be killed, and invented runs for it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from pipeline.tracking.header import header_of
from pipeline.tracking.live import RunTracker


class Server:
    """`mlflow server` on a free port of 127.0.0.1 with a SQLite store in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
        command += ["--port", str(self.port), "--workers", "1"]
        command += ["--backend-store-uri", f"sqlite:///{self.folder}/store.db"]
        command += ["--artifacts-destination", f"{self.folder}/artifacts"]
        kept = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW")}
        kept["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
        with open(self.folder / "server.log", "a") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder, env=kept, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=2) as answer:
                    if answer.status == 200:
                        return
            except OSError:
                time.sleep(0.1)
        raise AssertionError((self.folder / "server.log").read_text()[-3000:])

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


def record(seed: int = 1, **changes: object) -> dict:
    """The content of run.json of an invented run. It started in 2001 and took 1.5 s."""
    return {
        "run": {
            "view": "isic17-32",
            "cell": "scratch",
            "protocol": "paper",
            "seed": seed,
            "profile": "tiny",
            "dataset": "isic17",
            "size": 32,
        },
        "cell": {"init": "none", "drop_path_rate": 0.2},
        "train": {"epochs": 8, "batch_size": 4},
        "protocol": {"name": "paper"},
        "data_hash": "d" * 64,
        "code_hash": "c" * 64,
        "weights_hash": "",
        "git": "0123456789ab",
        "dvc_lock": "e" * 64,
        "device": "CPU",
        "micro_batch": None,
        "epoch": 2,
        "mlflow_run_id": "",
        "mlflow_key": f"{seed:032x}",
        "started": 10**12,
        "seconds": 1.5,
    } | changes


def row(epoch: int) -> dict[str, float]:
    return {"epoch": epoch, "learning_rate": 1e-3, "train_loss": 2 / epoch, "selection_loss": 1.0}


def tracker(history: int = 0, **changes: object) -> RunTracker:
    """The live run of `record(**changes)`, which starts now after this number of epochs."""
    content = {"started": time.time_ns() // 10**6} | changes
    rows = [row(epoch) for epoch in range(1, history + 1)]
    return RunTracker(header_of(record(**content), "I III"), rows)


def store_content() -> list[tuple]:
    """The store's content about the runs of the tiny profile, without their ids."""
    from pipeline.tracking import client

    mlflow = client()
    experiment = mlflow.get_experiment_by_name("tiny")
    runs = mlflow.search_runs([experiment.experiment_id], order_by=["tags.seed"])
    return [
        (
            run.info.run_name,
            run.info.status,
            run.info.start_time,
            run.info.end_time,
            run.data.params,
            run.data.tags,
            [
                (metric.key, metric.step, metric.value, metric.timestamp)
                for key in sorted(run.data.metrics)
                for metric in mlflow.get_metric_history(run.info.run_id, key)
            ],
            [file.path for file in mlflow.list_artifacts(run.info.run_id)],
        )
        for run in runs
    ]


def losses(run_id: str) -> list[tuple[int, float]]:
    """Steps and values of the training loss in the store."""
    from pipeline.tracking import client

    return [(m.step, m.value) for m in client().get_metric_history(run_id, "train_loss")]


def write_run(
    root: Path, seed: int, make_weights=None, epochs: int = 3, **changes: object
) -> tuple[Path, Path]:
    """Write the folders in runs/ and metrics/ of a trained and evaluated run, and its card.

    It has no weights unless `make_weights` writes them.
    """
    place = Path("isic17-32", "scratch", "paper", str(seed))
    folder, scores = root / "runs" / place, root / "metrics" / "tiny" / place
    folder.mkdir(parents=True)
    scores.mkdir(parents=True)
    if make_weights:
        make_weights(folder / "weights.safetensors")
    content = record(seed, **changes)
    (folder / "run.json").write_text(json.dumps(content))
    names = list(row(1))
    lines = [",".join(str(row(e)[name]) for name in names) for e in range(1, epochs + 1)]
    (folder / "history.csv").write_text("\n".join([",".join(names), *lines]) + "\n")
    copied = ("started", "mlflow_run_id", "code_hash", "data_hash")
    metrics = {
        "checkpoint": {name: content[name] for name in copied},
        "paper": {"miou": 0.5},
        "sound": {"native_size": {"mean_dice": 0.6, "intervals": {"mean_dice": [0.5, 0.7]}}},
    }
    (scores / "metrics.json").write_text(json.dumps(metrics))
    (scores / "contact_sheet.png").write_bytes(b"no image")
    card = root / "reports/out/cards" / place / "MODEL_CARD.md"
    card.parent.mkdir(parents=True)
    card.write_text("no card")
    return folder, scores
