"""GPUs and cores for stages."""

import pytest

from pipeline.sweep.devices import THREADS, Devices


@pytest.mark.parametrize(
    ("gpus", "workers", "expected"),
    [
        ("none", 0, {"CUDA_VISIBLE_DEVICES": ""}),  # as --gpus says
        ("1", 0, {"CUDA_VISIBLE_DEVICES": "1"}),
        ("all", 0, {}),
        ("all", 2, {}),  # the cells run elsewhere: this machine's GPU is free
        ("none", 2, {"CUDA_VISIBLE_DEVICES": ""}),
    ],
)
def test_a_stage_that_runs_alone_has_all_cores_and_the_gpu(
    gpus: str, workers: int, expected: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    devices = Devices(2, gpus, workers)
    with devices.reserve(alone=True) as environment:
        assert environment == expected


@pytest.mark.parametrize(
    ("gpus", "workers", "visible"),
    [("all", 0, "0"), ("1", 0, "1"), ("none", 0, ""), ("all", 2, "")],
)
def test_parallel_stages_share_the_machine(
    gpus: str, workers: int, visible: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    for name in THREADS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    devices = Devices(2, gpus, workers)
    with devices.reserve() as environment:
        assert environment["CUDA_VISIBLE_DEVICES"] == visible
        if devices.width > 1:
            assert environment["OMP_NUM_THREADS"] == "1"  # a person's value is an upper limit
            assert environment["VMUNET_THREADS"] == str(devices.threads)
