"""The MLP of a transformer layer."""

from torch import Tensor, nn
from torch.nn import functional as F


class MLP(nn.Module):
    """Linear, GELU, linear, `factor` times as wide inside: `(.., d) -> (.., d)`."""

    def __init__(self, dim: int, factor: int = 4, dropout: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, factor * dim)
        self.fc2 = nn.Linear(factor * dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = self.dropout(F.gelu(self.fc1(x)))
        return self.dropout(self.fc2(x))
