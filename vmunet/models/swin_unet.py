"""Swin U-Net: a U-Net of Swin Transformer blocks alone, with patch expanding in its decoder.

Cao et al., "Swin-Unet: Unet-like Pure Transformer for Medical Image Segmentation", 2021 (arXiv
2105.05537); repository HuCaoFighting/Swin-Unet, without a licence. Written from a description of
its layers. The names of the state dict are the published ones without the prefix `swin_unet.`.

Every level of the decoder has two blocks: the published code reads the decoder's depths from the
encoder's and never uses the ones in its configuration. Its drop path rates are those of the
encoder's stage at the same resolution. Linear layers start as in Swin Transformer; the authors
start from its ImageNet weights instead.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vmunet.architecture import Model, scaled, sides
from vmunet.model import PatchEmbed, PatchMerging, drop_path_rates, init_linear_layers
from vmunet.models.parts.sizes import legal_size
from vmunet.models.parts.swin import PatchExpand, SwinStage, usual_window

DEPTHS = (2, 2, 2, 2)
HEADS = (3, 6, 12, 24)
PATCH = 4


class SwinUNet(Model):
    """Swin U-Net (paper, section 3).

    Args:
        in_channels: channels of the images; a 1-channel image is repeated to fill 3.
        num_classes: channels of the logits.
        width: factor on the channels of every layer; the heads stay.
        size: side of the images, or (height, width).
        window: side of the attention's windows, or (height, width). At every stage they divide the
            feature map or cover it. By default, for each axis, the legal one nearest to 7 by
            ratio: 7 at 224 px, as published, and 8 at 64, 256 or 512 px.
        drop_path_rate: largest drop path rate, rising over the encoder.
    """

    title = "Swin U-Net"
    stride = 32
    sized = True

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 9,
        width: float = 1.0,
        size: int | Sequence[int] = 224,
        window: int | Sequence[int] | None = None,
        drop_path_rate: float = 0.2,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.size = legal_size(type(self), size)
        maps = [[side // (PATCH * 2**i) for side in self.size] for i in range(4)]
        windows = usual_window(maps) if window is None else list(sides(window))
        self.config = {
            "in_channels": in_channels,
            "num_classes": num_classes,
            "width": width,
            "size": list(self.size),
            "window": windows,
            "drop_path_rate": drop_path_rate,
        }
        C = scaled(96, width, HEADS[0])
        dims = [C * 2**i for i in range(4)]
        rates = list(drop_path_rates(DEPTHS, drop_path_rate))

        def stage(i: int, **resize: nn.Module | None) -> SwinStage:
            return SwinStage(dims[i], HEADS[i], maps[i], windows, rates[i], **resize)

        self.patch_embed = PatchEmbed(in_channels, C)
        self.layers = nn.ModuleList(
            stage(i, downsample=PatchMerging(dims[i]) if i < 3 else None) for i in range(4)
        )
        self.norm = nn.LayerNorm(dims[3])
        self.layers_up = nn.ModuleList([PatchExpand(dims[3], 2, dims[2])])
        self.concat_back_dim = nn.ModuleList([nn.Identity()])  # the first level has no skip
        for i in (2, 1, 0):
            self.concat_back_dim.append(nn.Linear(2 * dims[i], dims[i]))
            expand = PatchExpand(dims[i], 2, dims[i - 1]) if i else None
            self.layers_up.append(stage(i, upsample=expand))
        self.norm_up = nn.LayerNorm(C)
        self.up = PatchExpand(C, PATCH, C)
        self.output = nn.Conv2d(C, num_classes, 1, bias=False)
        init_linear_layers(self)

    def forward(self, images: Tensor) -> Tensor:
        """Logits `(batch, num_classes, height, width)` of images of the size it was built for."""
        x = self.patch_embed(self.check(images))
        skips = []  # the inputs of the encoder's stages
        for stage in self.layers:
            skips.append(x)
            x = stage(x)
        x = self.layers_up[0](self.norm(x))
        for i in (1, 2, 3):
            x = self.concat_back_dim[i](torch.cat([x, skips[3 - i]], dim=-1))
            x = self.layers_up[i](x)
        x = self.up(self.norm_up(x))
        return self.output(x.permute(0, 3, 1, 2))
