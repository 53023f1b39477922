"""What the CIRKD and Af-DCD codebases build differently from mmseg: backbones and heads for the flavour `cirkd`.

Facts of winycg/CIRKD @2d8ad0f; all are mmseg modules, so the networks stay plain `EncoderDecoder`s.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmcv.cnn import ConvModule
from mmseg.models.backbones import MixVisionTransformer, MobileNetV2, ResNetV1c
from mmseg.models.backbones.resnet import BasicBlock
from mmseg.models.decode_heads import ASPPHead, PSPHead
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.decode_heads.psp_head import PPM
from mmseg.models.utils import resize
from mmseg.registry import MODELS
from torch import Tensor, nn


def _dilate(convolution: nn.Conv2d, dilation: int) -> None:
    """Dilate a 3x3 convolution, the padding with it, so that it keeps its output's size."""
    convolution.dilation = convolution.padding = (dilation, dilation)


@MODELS.register_module()
class CirkdResNet(ResNetV1c):
    """A ResNet whose basic blocks dilate their second convolution too (mmseg's never do)."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for name, dilation in zip(self.res_layers, self.dilations, strict=True):
            for block in getattr(self, name):
                if isinstance(block, BasicBlock):
                    _dilate(block.conv2, dilation)


@MODELS.register_module()
class CirkdMobileNetV2(MobileNetV2):
    """MobileNetV2 at stride 8 with every block of the last four stages dilated (in mmseg each stage's first only).

    The block whose stride was removed has half the dilation of those that follow it.
    """

    DILATIONS = {"layer4": (1, 2, 2, 2), "layer5": (2, 2, 2), "layer6": (2, 4, 4), "layer7": (4,)}

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for name, dilations in self.DILATIONS.items():
            for block, dilation in zip(getattr(self, name), dilations, strict=True):
                (depthwise,) = (layer.conv for layer in block.conv if layer.conv.groups > 1)
                _dilate(depthwise, dilation)


@MODELS.register_module()
class CirkdMixVisionTransformer(MixVisionTransformer):
    """NVlabs' MiT: layer norms of patch embeddings and of reduced keys have eps 1e-5, all others 1e-6."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for embedding, blocks, _ in self.layers:
            embedding.norm.eps = 1e-5
            for block in blocks:
                if block.attn.sr_ratio > 1:
                    block.attn.norm.eps = 1e-5


@MODELS.register_module()
class CirkdASPPHead(ASPPHead):
    """ASPP, a 1x1 projection with dropout 0.5, then a 3x3 block; the pooled picture comes last in the concatenation."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        common = {"conv_cfg": self.conv_cfg, "norm_cfg": self.norm_cfg, "act_cfg": self.act_cfg}
        self.bottleneck = ConvModule((len(self.dilations) + 1) * self.channels, self.channels, 1, **common)
        self.project_dropout = nn.Dropout(0.5)
        self.block = ConvModule(self.channels, self.channels, 3, padding=1, **common)

    def _forward_feature(self, inputs: Sequence[Tensor]) -> Tensor:
        x = self._transform_inputs(inputs)
        pooled = resize(
            self.image_pool(x), size=x.shape[2:], mode="bilinear", align_corners=self.align_corners, warning=False
        )
        joined = torch.cat([*self.aspp_modules(x), pooled], dim=1)
        return self.block(self.project_dropout(self.bottleneck(joined)))


@MODELS.register_module()
class CirkdPSPHead(PSPHead):
    """Pyramid pooling whose branches have a quarter of the input's channels each (mmseg: as many as the head)."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        common = {"conv_cfg": self.conv_cfg, "norm_cfg": self.norm_cfg, "act_cfg": self.act_cfg}
        width = self.in_channels // 4
        self.psp_modules = PPM(self.pool_scales, self.in_channels, width, align_corners=self.align_corners, **common)
        joined = self.in_channels + len(self.pool_scales) * width
        self.bottleneck = ConvModule(joined, self.channels, 3, padding=1, **common)


@MODELS.register_module()
class CirkdSegformerHead(BaseDecodeHead):
    """NVlabs' SegFormer head: a linear layer per stage without norm, joined from the last stage to the first."""

    def __init__(self, **options: Any) -> None:
        super().__init__(input_transform="multiple_select", **options)
        self.linears = nn.ModuleList(nn.Linear(channels, self.channels) for channels in self.in_channels)
        joined = len(self.linears) * self.channels
        # with a bias, although a norm follows, so no ConvModule: it would warn
        self.fuse = nn.Sequential(nn.Conv2d(joined, self.channels, 1), nn.BatchNorm2d(self.channels), nn.ReLU())

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Logits (N, K, H/4, W/4) of the four stages."""
        stages = self._transform_inputs(inputs)
        size = stages[0].shape[2:]
        maps = []
        for x, linear in zip(stages, self.linears, strict=True):
            x = linear(x.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, x.shape[2:])
            maps.append(resize(x, size=size, mode="bilinear", align_corners=self.align_corners, warning=False))
        return self.cls_seg(self.fuse(torch.cat(maps[::-1], dim=1)))
