"""Count the memory that training VM-UNet takes and a block's memory traffic, without a GPU.

    python -m benchmarks.activations

Compares the published way to compute SS2D (`benchmarks/published.py`) with this repository's, at
the paper's full width. Nothing is timed: both tables are sums of tensor sizes.

Saved for the backward pass: bytes of every tensor that autograd keeps from the forward pass of a
training step, each memory counted once, parameters not counted. The count is made with two
images and with three; the difference is the cost of an image, and the rest (half-precision copies
of weights, for example) does not grow with the batch. If several operations keep the same memory,
it counts for the first of them.

Traffic: bytes of the inputs and outputs of every operation in the forward and backward pass of
one VSS block of the first stage, per image of a batch of two. Views and allocations cost nothing. A
device that reads and writes every operation's tensors once moves as many bytes; the count does not
see bytes that an operation writes and reads again within itself.

Operators with the same inputs, outputs and saved tensors replace the kernels of a GPU; they
compute nothing. `published` keeps the tensors that mamba-ssm's CUDA scan keeps: its inputs and the
states between chunks of 2,048 steps. `ours gpu` keeps those of our Triton kernels, and `ours cpu`
is the code that runs here. An operator's row counts the memory that it keeps and that no operation
before it kept. For bf16, PyTorch's LayerNorm takes and returns float32 as in CUDA's autocast; the
CPU's autocast would leave it in bfloat16.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import vmunet.model
from benchmarks.measure import arguments, write
from benchmarks.published import PublishedSS2D, PublishedVMUNet
from vmunet import VMUNet
from vmunet.model import VSSBlock, chain, scaled_by
from vmunet.scan.triton import saved_shape
from vmunet.training.losses import bce_dice

CHUNK = 2048  # steps between the states that mamba-ssm's scan keeps
Operator = Callable[..., Any]


def stand_in(name: str, states: Callable[..., Sequence[int]], casts: bool = False) -> Operator:
    """An operator that computes nothing; forward and backward are one operation each in a count.

    Args:
        name: of the operator. Its output is like its first input.
        states: a function from the inputs to the shape of the float32 tensor that it keeps too.
        casts: whether the output is in bfloat16 under autocast.
    """

    @torch.library.custom_op(f"vmunet_benchmarks::{name}", mutates_args=())
    def forward(inputs: list[Tensor], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        y = torch.zeros(inputs[0].shape, dtype=dtype)
        return y, torch.zeros(list(states(*inputs)))

    @torch.library.custom_op(f"vmunet_benchmarks::{name}_backward", mutates_args=())
    def backward(gy: Tensor, inputs: list[Tensor], states: Tensor) -> list[Tensor]:
        return [torch.zeros_like(tensor) for tensor in inputs]

    def keep(ctx: Any, inputs: tuple[list[Tensor], Any], output: tuple[Tensor, Tensor]) -> None:
        ctx.set_materialize_grads(False)  # only the backward pass uses the states
        ctx.save_for_backward(*inputs[0], output[1])

    def gradients(ctx: Any, gy: Tensor, _: None) -> tuple[list[Tensor], None]:
        *inputs, states = ctx.saved_tensors
        return backward(gy, inputs, states), None

    def call(*inputs: Any) -> Tensor:
        half = casts and torch.is_autocast_enabled("cpu")
        dtype = torch.bfloat16 if half else inputs[0].dtype
        return forward([t for t in inputs if isinstance(t, Tensor)], dtype)[0]

    forward.register_autograd(gradients, setup_context=keep)
    return call


cuda_operator = stand_in(
    "cuda_scan", lambda u, dt, A, *_: (*u.shape[:2], -(-u.shape[2] // CHUNK), 2 * A.shape[1])
)


def cuda_scan(*inputs: Tensor) -> Tensor:
    """(b, 4d, l); like mamba-ssm's scan it copies inputs whose last axis is not contiguous."""
    return cuda_operator(*(t if t.stride(-1) == 1 else t.contiguous() for t in inputs))


@dataclass(frozen=True)
class Case:
    """A way to compute the model: its class, and the operators that it calls, by name."""

    model: Callable[..., VMUNet]
    operators: dict[str, Operator]


def statistics(image: Tensor, *_: Any) -> Sequence[int]:
    """The shape of the mean and deviation of every pixel."""
    return 2, *image.shape[:3]


norm_operator = stand_in("layer_norm", statistics, casts=True)


def add_layer_norm(
    x: Tensor, update: Tensor, scale: Tensor | None, *others: Any
) -> tuple[Tensor, Tensor]:
    """It keeps what a sum of its own and a norm keep; only its traffic would be less."""
    total = x + scaled_by(scale, update)
    return total, norm_operator(total, *others)


OPERATORS = "conv_silu", "ss2d_projected", "gated_norm", "layer_norm", "add_layer_norm"
CPU = {name: getattr(vmunet.model, name) for name in OPERATORS}
GPU = {
    "conv_silu": stand_in("conv_silu", lambda *_: (0,)),
    "ss2d_projected": stand_in("scan", lambda x, step, weight, A, *_: saved_shape(x, A)),
    "gated_norm": stand_in("gated_norm", statistics),
    "layer_norm": norm_operator,
    "add_layer_norm": add_layer_norm,
}
CASES = {
    "published": Case(partial(PublishedVMUNet, cuda_scan), CPU),  # calls none of them
    "ours cpu": Case(VMUNet, CPU),
    "ours gpu": Case(VMUNet, GPU),
}


class Labels(TorchFunctionMode):
    """Keeps track of the running module and operation; LayerNorm works as in CUDA's autocast."""

    def __init__(self) -> None:
        super().__init__()
        self.modules: list[str] = []
        self.operation = ""
        self.inside = ""

    @property
    def label(self) -> str:
        place = self.modules[-1] if self.modules else "loss"
        return f"{place}: {self.inside or self.operation}"

    def __torch_function__(
        self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        self.operation = getattr(function, "__name__", str(function))
        if function is torch.nn.functional.layer_norm and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                return function(args[0].float(), *args[1:], **(kwargs or {}))
        return function(*args, **(kwargs or {}))

    def named(self, name: str, operator: Operator) -> Operator:
        """The operator, with one label for everything in it."""

        def labelled(*inputs: Any) -> Any:
            self.inside = name
            try:
                return operator(*inputs)
            finally:
                self.inside = ""

        return labelled

    @contextmanager
    def following(self, model: nn.Module) -> Iterator[None]:
        """Keep track of modules: `SS2D.in_proj` for a layer, `SS2D` for its own operations."""
        names = {}
        for parent in model.modules():
            for name, child in parent.named_children():
                leaf = not list(child.children())
                own = type(child).__name__.removeprefix("Published")
                parents = type(parent).__name__.removeprefix("Published")
                names[child] = f"{parents}.{name}" if leaf else own

        def enter(module: nn.Module, inputs: Any) -> None:
            self.modules.append(names.get(module, type(module).__name__))

        def leave(module: nn.Module, inputs: Any, output: Any) -> None:
            self.modules.pop()

        hooks = register_module_forward_pre_hook(enter), register_module_forward_hook(leave)
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


def saved_bytes(case: Case, half: bool, batch: int, size: int, **config: Any) -> Counter[str]:
    """Bytes that one step keeps for its backward pass, by module and operation."""
    torch.manual_seed(0)
    model = case.model(**config)
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}
    counted: Counter[str] = Counter()
    labels = Labels()

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own and storage.data_ptr() not in kept:
            kept[storage.data_ptr()] = storage  # kept, so that no other storage gets its address
            counted[labels.label] += storage.nbytes()
        return tensor

    for module in model.modules():
        if isinstance(module, PublishedSS2D):
            module.scan = labels.named("ss2d", module.scan)
    images = 255 * torch.rand(batch, 3, size, size)
    masks = torch.rand(batch, 1, size, size).round()
    labelled = {name: labels.named(name, call) for name, call in case.operators.items()}
    with (
        patch.multiple(vmunet.model, **labelled),
        labels.following(model),
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        labels,
    ):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            logits = model(images)
        loss = bce_dice(logits, masks, "probabilities")
    del loss  # until here the graph holds the counted tensors
    return counted


def saved_per_image(case: Case, half: bool, size: int, **config: Any) -> dict[str, Any]:
    """Bytes per image by operation, largest first, and bytes that do not grow with the batch."""
    # Two and three images, not one and two: with one image some copies are views.
    two, three = (saved_bytes(case, half, batch, size, **config) for batch in (2, 3))
    each = Counter({label: three[label] - two[label] for label in three})
    return {
        "per_image": each.total(),
        "fixed": two.total() - 2 * each.total(),
        "by_operation": {label: count for label, count in each.most_common() if count},
    }


class Traffic(TorchDispatchMode):
    """Adds up the bytes of the inputs and outputs of every operation, forward and backward."""

    FREE = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided")
    OVERWRITING = ("copy_", "fill_", "zero_")

    def __init__(self) -> None:
        super().__init__()
        self.counted: Counter[str] = Counter()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        output = function(*args, **(kwargs or {}))
        name = function.overloadpacket.__name__
        read = tensors((args[1:] if name in self.OVERWRITING else args, kwargs))
        written = tensors(output)
        mutates = function._schema.is_mutable
        owners = {tensor.untyped_storage().data_ptr() for tensor in tensors((args, kwargs))}
        if not mutates and all(t.untyped_storage().data_ptr() in owners for t in written):
            return output  # a view, or a reshape that is a view
        if name not in self.FREE:
            self.counted[name] += sum(map(size_of, read)) + sum(map(size_of, written))
        return output


def tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in torch.utils._pytree.tree_leaves(values) if isinstance(leaf, Tensor)]


def size_of(tensor: Tensor) -> int:
    """Bytes of a tensor; an expanded tensor counts as large as its memory."""
    return min(tensor.nbytes, tensor.untyped_storage().nbytes())


def block_traffic(case: Case, half: bool, size: int, batch: int = 2) -> dict[str, Any]:
    """Bytes per image that one VSS block of the first stage reads and writes, both passes."""
    torch.manual_seed(0)
    model = case.model()
    block = next(module for module in model.modules() if isinstance(module, VSSBlock))
    x = torch.randn(batch, size // 4, size // 4, model.config["dims"][0], requires_grad=True)
    gy = torch.randn_like(x)
    traffic = Traffic()
    with patch.multiple(vmunet.model, **case.operators), traffic, Labels():
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            y = chain([block], x)
        y.backward(gy)
    by_operation = {name: count / batch for name, count in traffic.counted.most_common()}
    return {"bytes": sum(by_operation.values()), "by_operation": by_operation}


def table(title: str, columns: dict[str, dict[str, float]], rows: int) -> None:
    """Print the largest rows of several counts in columns, in MB."""
    together: Counter[str] = Counter()
    for column in columns.values():
        together.update(column)  # adds
    largest = [label for label, _ in together.most_common(rows)]
    print(f"\n{title:36}" + "".join(f"{name:>16}" for name in columns))
    for label in largest:
        print(f"{label:36}" + "".join(f"{c.get(label, 0) / 1e6:16.2f}" for c in columns.values()))
    rest = {n: sum(v for k, v in c.items() if k not in largest) for n, c in columns.items()}
    print(f"{'everything else':36}" + "".join(f"{rest[n] / 1e6:16.2f}" for n in columns))
    print(f"{'sum':36}" + "".join(f"{sum(c.values()) / 1e6:16.2f}" for c in columns.values()))


def main() -> None:
    parser = arguments(__doc__, "activations.json", rounds=None, threads=False)
    parser.add_argument("--size", type=int, default=256, help="of an image (default: 256)")
    parser.add_argument("--rows", type=int, default=24, help="rows to print (default: 24)")
    options = parser.parse_args()
    types = {"fp32": False, "bf16": True}
    saved, traffic = {}, {}
    for kind, half in types.items():
        for name, case in CASES.items():
            saved[f"{name} {kind}"] = saved_per_image(case, half, options.size)
            if name != "ours cpu":  # a count cannot see numba's kernels
                traffic[f"{name} {kind}"] = block_traffic(case, half, options.size)
    table(
        "saved for backward, MB an image",
        {title: count["by_operation"] for title, count in saved.items()},
        options.rows,
    )
    table(
        "traffic of a block, MB an image",
        {title: count["by_operation"] for title, count in traffic.items()},
        options.rows,
    )
    write(options.output, {"size": options.size, "saved": saved, "block_traffic": traffic})


if __name__ == "__main__":
    main()
