"""ResNet-34 (He et al. 2016) as a feature extractor, with torchvision's names.

A checkpoint of torchvision loads into it, apart from `fc` and the stages that are left out.
"""

from torch import Tensor, nn

from vmunet.architecture import scaled
from vmunet.models.parts.kaiming import kaiming_normal

DEPTHS = (3, 4, 6, 3)  # blocks of each stage
CHANNELS = (64, 128, 256, 512)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: `(b, c, h, w) -> (b, d, h/stride, w/stride)`."""

    def __init__(self, channels: int, dim: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, dim, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(dim)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(dim, dim, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(dim)
        self.downsample = None
        if stride > 1 or channels != dim:
            shortcut = nn.Conv2d(channels, dim, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(dim))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet34(nn.Module):
    """The first `stages` stages of ResNet-34; `dims` are the channels of their outputs."""

    def __init__(self, in_channels: int = 3, stages: int = 4, width: float = 1.0) -> None:
        super().__init__()
        self.dims = [scaled(channels, width, 2) for channels in CHANNELS[:stages]]
        channels = self.dims[0]
        self.conv1 = nn.Conv2d(in_channels, channels, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.stages: list[str] = []
        for i, dim in enumerate(self.dims):
            blocks = [BasicBlock(channels, dim, stride=2 if i else 1)]
            blocks += [BasicBlock(dim, dim) for _ in range(DEPTHS[i] - 1)]
            self.stages.append(f"layer{i + 1}")
            self.add_module(self.stages[-1], nn.Sequential(*blocks))
            channels = dim
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                kaiming_normal(module.weight, mode="fan_out")

    def forward(self, images: Tensor) -> list[Tensor]:
        """Every stage's output, `(b, dims[i], h / 2^(i + 2), w / 2^(i + 2))`."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        outputs = []
        for stage in self.stages:
            x = self.get_submodule(stage)(x)
            outputs.append(x)
        return outputs
