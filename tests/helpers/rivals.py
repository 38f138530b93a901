"""Golden values of the other models' authors' code: filling a model by rule, and comparing it.

Each file in tests/golden/rivals/ holds the names and shapes of a state dict, and the outputs, loss
and gradient norms that the authors' code gave in float64 for weights and inputs drawn by name.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tests.helpers.paths import GOLDEN

RIVALS = GOLDEN / "rivals"
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal values that depend on the name alone."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    generator = np.random.Generator(np.random.PCG64(seed))
    return generator.standard_normal(math.prod(shape)).reshape(shape)


def value(name: str, shape: tuple[int, ...]) -> Tensor:
    """What the rule puts into the entry `name` of a state dict."""
    drawn, last = draw(name, shape), name.rsplit(".", 1)[-1]
    if last == "num_batches_tracked":
        drawn = np.zeros(shape)
    elif last == "running_mean":
        drawn = 0.1 * drawn
    elif last == "running_var":
        drawn = 1 + 0.1 * np.abs(drawn)
    elif len(shape) >= 2:
        drawn = drawn / math.sqrt(math.prod(shape[1:]))
    elif last == "weight":
        drawn = 1 + 0.1 * drawn
    else:
        drawn = 0.1 * drawn
    return torch.from_numpy(np.asarray(drawn, dtype=np.float32))


def images(name: str, shape: list[int]) -> Tensor:
    return torch.from_numpy(draw(name, tuple(shape)).astype(np.float32)).double()


def fill(model: nn.Module, rename: Callable[[str], str]) -> None:
    """Fill parameters and batch statistics; buffers that the model computes stay."""
    parameters = {name for name, _ in model.named_parameters()}
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name in parameters or name.rsplit(".", 1)[-1] in STATISTICS:
                tensor.copy_(value(rename(name), tuple(tensor.shape)).to(tensor.dtype))


def without_drop(model: nn.Module) -> nn.Module:
    """The model with dropout and drop path switched off."""
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        elif type(module).__name__ == "DropPath":
            module.rate = 0.0
    return model


def read(file: str) -> dict[str, Any]:
    return json.loads((RIVALS / file).read_text())


def check(
    build: Callable[[], nn.Module],
    file: str,
    adapt: Callable[[Any], Any] = lambda output: output,
    rename: Callable[[str], str] = lambda name: name,
    run: Callable[[nn.Module, Tensor], Any] = lambda model, images: model(images),
    tolerance: float = 1e-8,
    whole: bool = True,
) -> None:
    """Assert that a model is the golden one: names, shapes, outputs, loss, gradients, statistics.

    Args:
        adapt: makes the golden outputs of the model's: a tensor, or tensors by name (`out0`...).
        rename: the golden name of an entry of the model's state dict.
        run: calls the model.
        whole: False leaves out loss, gradients and the train mode.
    """
    golden = read(file)
    model = without_drop(build().double())
    computed = {n for n, _ in model.named_buffers() if n.rsplit(".", 1)[-1] not in STATISTICS}
    shapes = {rename(n): list(t.shape) for n, t in model.state_dict().items() if n not in computed}
    wanted = {name: shape for name, shape, kind, *_ in golden["state_dict"] if kind != "computed"}
    assert shapes == wanted, {
        "missing": sorted(wanted.keys() - shapes.keys())[:5],
        "extra": sorted(shapes.keys() - wanted.keys())[:5],
        "shapes": [n for n in shapes.keys() & wanted.keys() if shapes[n] != wanted[n]][:5],
    }
    assert sum(p.numel() for p in model.parameters()) == golden["params"]
    for mode, expected in golden["golden"].items():
        if mode == "eval" and not whole:
            expected = {key: expected[key] for key in ("input", "outputs")}
        if mode == "eval" or (mode == "train" and whole):
            _check_run(model, mode, expected, adapt, rename, run, tolerance)


def _check_run(
    model: nn.Module,
    mode: str,
    golden: Mapping[str, Any],
    adapt: Callable[[Any], Any],
    rename: Callable[[str], str],
    run: Callable[[nn.Module, Tensor], Any],
    tolerance: float,
) -> None:
    fill(model, rename)
    model.train(mode == "train").zero_grad()
    with torch.set_grad_enabled("loss" in golden):
        output = adapt(run(model, images(golden["input"]["name"], golden["input"]["shape"])))
    outputs = output if isinstance(output, dict) else {"out": output}
    for name, expected in golden["outputs"].items():
        found = outputs[name].detach()
        assert list(found.shape) == expected["shape"], (mode, name, found.shape)
        values = torch.tensor(expected["values"], dtype=torch.float64)
        limit = tolerance * max(expected["std"], values.abs().max().item())
        picked = found.reshape(-1)[torch.tensor(expected["indices"])]
        assert (picked - values).abs().max().item() <= limit, (mode, name)
        assert abs(found.mean().item() - expected["mean"]) <= limit
        assert abs(found.std(unbiased=False).item() - expected["std"]) <= limit
    if "loss" in golden:
        weighted = [
            outputs[n] * images(f"loss_weight:{n}", list(outputs[n].shape))
            for n in golden["outputs"]
        ]
        loss = torch.stack([w.mean() for w in weighted]).sum()
        loss.backward()
        assert abs(loss.item() - golden["loss"]) <= tolerance * max(abs(golden["loss"]), 1e-3)
        gradients = {rename(n): p.grad for n, p in model.named_parameters() if p.grad is not None}
        for name, norm in golden["grad_norms"].items():
            found = gradients[name].norm().item()
            assert abs(found - norm) <= 100 * tolerance * max(norm, 1e-12), (mode, name)
        for name, norm in golden.get("all_grad_norms", {}).items():
            if norm > 1e-6 and name in gradients:  # below it the gradient may be rounding alone
                found = gradients[name].norm().item()
                assert abs(found - norm) <= 100 * tolerance * norm, (mode, name)
    state = {rename(n): t for n, t in model.state_dict().items()}
    for name, norm in golden.get("buffers_after", {}).items():
        found = state[name].double().norm().item()
        assert abs(found - norm) <= 100 * tolerance * max(norm, 1e-12), (mode, name)
