"""Networks by name: plain mmseg `EncoderDecoder`s, their taps in one forward pass, and the facts about them.

The flavour is mmseg's: ResNetV1c, decode heads with dropout 0.1, `align_corners=False`, the whole picture decoded at
once. Batch normalisation is plain BN (a multi-GPU trainer converts it), nothing is pretrained (weights are the caller's
affair), and there is no data preprocessor: inputs arrive normalised.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine import ConfigDict
from mmseg.models import EncoderDecoder
from mmseg.registry import MODELS
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmark.errors import unknown
from benchmark.networks import TAPS, Family, Network, TapShape

Config = dict[str, Any]

STAGES = ("c1", "c2", "c3", "c4")
BN = {"type": "BN", "requires_grad": True}


def network_config(name: str, classes: int) -> Config:
    """The mmseg config of network `name` for `classes` classes: a plain dict.

    Raises:
        KdsegError: there is no such network.
    """
    if name not in _NETWORKS:
        raise unknown("model", name, _NETWORKS)
    return _NETWORKS[name].config(classes)


def build_network(name: str, classes: int) -> EncoderDecoder:
    """Build network `name` with fresh weights, in train mode.

    Both steps draw from the global torch generator, and `init_weights` does not overwrite all that the constructors
    drew: seed it before this call.
    """
    network = MODELS.build(ConfigDict(network_config(name, classes)))
    network.init_weights()
    return network


def forward_taps(network: EncoderDecoder, inputs: Tensor, names: Collection[str] = TAPS) -> dict[str, Tensor]:
    """One forward pass, in whichever mode `network` is in.

    The task loss needs no second pass: `network.decode_head.loss_by_feat(taps["logits"], samples)`, and the same with
    `auxiliary_head` and `aux_logits`.

    Args:
        network: any network of this module.
        inputs: normalised pictures (N, 3, H, W).
        names: which of `benchmark.networks.TAPS` to return. A network without auxiliary head has no `aux_logits`.

    Returns:
        The taps by name, (N, C, h, w) each. `logits` and `aux_logits` have their head's resolution; `pre_classifier` is
        what the classifier reads, after dropout.
    """
    taps: dict[str, Tensor] = {}
    # On `conv_seg`, for mmseg calls `decode_head.forward` directly in training: hooks on the head itself never fire.
    hook = network.decode_head.conv_seg.register_forward_pre_hook(lambda _, args: taps.update(pre_classifier=args[0]))
    try:
        features = network.extract_feat(inputs)
        taps |= dict(zip(STAGES, features, strict=True))
        taps["logits"] = network.decode_head(features)
        if network.with_auxiliary_head and "aux_logits" in names:
            taps["aux_logits"] = network.auxiliary_head(features)
    finally:
        hook.remove()
    return {name: taps[name] for name in TAPS if name in names and name in taps}


def facts(name: str, classes: int = 19, size: tuple[int, int] = (512, 512)) -> Network:
    """Measure network `name` on one picture of `size`: parameters without auxiliary head, FLOPs, shape of every tap.

    FLOPs are those that `torch.utils.flop_counter` counts in the forward pass without auxiliary head: convolutions,
    matrix products and attention, two per multiply-accumulate.
    """
    network = build_network(name, classes).eval()
    picture = torch.zeros(1, 3, *size)
    with torch.no_grad():
        with FlopCounterMode(display=False) as counter:
            forward_taps(network, picture, ("logits",))
        taps = forward_taps(network, picture)
    parameters = sum(p.numel() for key, p in network.named_parameters() if not key.startswith("auxiliary_head."))
    return Network(
        name=name,
        title=_NETWORKS[name].title,
        family=_NETWORKS[name].family,
        parameters=parameters,
        gflops=round(counter.get_total_flops() / 1e9, 3),
        classes=classes,
        size=size,
        taps={tap: TapShape(channels=t.shape[1], stride=round(size[0] / t.shape[2])) for tap, t in taps.items()},
    )


def write_facts(path: Path) -> None:
    """Measure all networks and write `networks.json`."""
    content = {"networks": [facts(name).model_dump(mode="json") for name in _NETWORKS]}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


# Backbones -------------------------------------------------------------------------------------------------------


class _Backbone(NamedTuple):
    family: Family
    channels: tuple[int, int, int, int]  # of its four stages
    config: Config


def _resnet(depth: int, base: int = 64, widths: tuple[int, ...] = (64, 128, 256, 512)) -> _Backbone:
    """ResNetV1c at stride 8: the last two stages are dilated instead of strided."""
    config = {
        "type": "ResNetV1c",
        "depth": depth,
        "stem_channels": base,
        "base_channels": base,
        "out_indices": (0, 1, 2, 3),
        "strides": (1, 2, 1, 1),
        "dilations": (1, 1, 2, 4),
        "contract_dilation": True,
        "norm_cfg": BN,
        "norm_eval": False,
        "style": "pytorch",
    }
    return _Backbone(Family.CNN, widths, config)


def _mobilenet(widen: float = 1.0, channels: tuple[int, int, int, int] = (24, 32, 96, 320)) -> _Backbone:
    """MobileNetV2 at stride 8; its stages end at layers 2, 3, 5 and 7."""
    config = {
        "type": "MobileNetV2",
        "widen_factor": widen,
        "out_indices": (1, 2, 4, 6),
        "strides": (1, 2, 2, 1, 1, 1, 1),
        "dilations": (1, 1, 1, 2, 2, 4, 4),
        "norm_cfg": BN,
    }
    return _Backbone(Family.CNN, channels, config)


def _mit(embed: int, layers: tuple[int, int, int, int], drop_path: float = 0.1) -> _Backbone:
    """Mix Vision Transformer, the backbone of SegFormer: strides 4, 8, 16, 32."""
    heads = (1, 2, 5, 8)
    config = {
        "type": "MixVisionTransformer",
        "embed_dims": embed,
        "num_layers": layers,
        "num_heads": heads,
        "patch_sizes": (7, 3, 3, 3),
        "sr_ratios": (8, 4, 2, 1),
        "out_indices": (0, 1, 2, 3),
        "mlp_ratio": 4,
        "qkv_bias": True,
        "drop_path_rate": drop_path,
    }
    return _Backbone(Family.TRANSFORMER, tuple(embed * h for h in heads), config)


# Heads -----------------------------------------------------------------------------------------------------------


def _head(kind: str, classes: int, loss_weight: float = 1.0, **options: Any) -> Config:
    # the mean is over labelled pixels, as in the papers; mmseg's default counts ignored ones in the divisor
    loss = {"type": "CrossEntropyLoss", "avg_non_ignore": True, "loss_weight": loss_weight}
    common = {"num_classes": classes, "dropout_ratio": 0.1, "norm_cfg": BN, "align_corners": False}
    return {"type": kind, **common, "loss_decode": loss, **options}


def _network(backbone: _Backbone, head: Config, auxiliary: Config | None = None) -> Config:
    config = {
        "type": "EncoderDecoder",
        "pretrained": None,
        "backbone": backbone.config,
        "decode_head": head,
        "train_cfg": {},
        "test_cfg": {"mode": "whole"},
    }
    return config | ({"auxiliary_head": auxiliary} if auxiliary else {})


def _auxiliary(backbone: _Backbone, classes: int) -> Config | None:
    """An FCN head on stage 3, for ResNets."""
    if backbone.config["type"] != "ResNetV1c":
        return None
    width = backbone.channels[2]
    options = {"in_channels": width, "in_index": 2, "channels": width // 4, "num_convs": 1, "concat_input": False}
    return _head("FCNHead", classes, loss_weight=0.4, **options)


def _deeplabv3(
    classes: int, backbone: _Backbone, channels: int, dilations: tuple[int, int, int, int] = (1, 12, 24, 36)
) -> Config:
    """Atrous spatial pyramid pooling on the last stage (Chen et al., arXiv 1706.05587)."""
    options = {"in_channels": backbone.channels[3], "in_index": 3, "channels": channels, "dilations": dilations}
    return _network(backbone, _head("ASPPHead", classes, **options), _auxiliary(backbone, classes))


def _pspnet(classes: int, backbone: _Backbone, channels: int) -> Config:
    """Pyramid pooling on the last stage (Zhao et al., CVPR 2017)."""
    options = {"in_channels": backbone.channels[3], "in_index": 3, "channels": channels, "pool_scales": (1, 2, 3, 6)}
    return _network(backbone, _head("PSPHead", classes, **options), _auxiliary(backbone, classes))


def _segformer(classes: int, backbone: _Backbone, channels: int) -> Config:
    """All four stages through linear layers, joined at stride 4 (Xie et al., NeurIPS 2021)."""
    options = {"in_channels": backbone.channels, "in_index": (0, 1, 2, 3), "channels": channels}
    return _network(backbone, _head("SegformerHead", classes, **options), _auxiliary(backbone, classes))


# Names -----------------------------------------------------------------------------------------------------------

_R18, _R101 = _resnet(18), _resnet(101, widths=(256, 512, 1024, 2048))
_MBV2 = _mobilenet()
_MIT_B0, _MIT_B4 = _mit(32, (2, 2, 2, 2)), _mit(64, (3, 8, 27, 3))

# DeepLabV3 sits on a transformer at stride 32: a crop of 512 gives a map of 16 x 16, where rates 24 and 36 would reach
# only padding. These cover the same share of the picture as 1, 12, 24, 36 do at stride 8.
_AT_STRIDE_32 = (1, 3, 6, 9)


class _Entry(NamedTuple):
    title: str
    backbone: _Backbone
    head: Callable[..., Config]

    @property
    def family(self) -> Family:
        return self.backbone.family

    def config(self, classes: int) -> Config:
        return self.head(classes, self.backbone)


_NETWORKS = {
    "deeplabv3_r18": _Entry("DeepLabV3-R18", _R18, partial(_deeplabv3, channels=128)),
    "deeplabv3_mbv2": _Entry("DeepLabV3-MBV2", _MBV2, partial(_deeplabv3, channels=128)),
    "deeplabv3_r101": _Entry("DeepLabV3-R101", _R101, partial(_deeplabv3, channels=512)),
    "pspnet_r18": _Entry("PSPNet-R18", _R18, partial(_pspnet, channels=128)),
    "segformer_mit_b0": _Entry("SegFormer-MiT-B0", _MIT_B0, partial(_segformer, channels=256)),
    "segformer_mit_b4": _Entry("SegFormer-MiT-B4", _MIT_B4, partial(_segformer, channels=256)),
    "deeplabv3_mit_b0": _Entry("DeepLabV3-MiT-B0", _MIT_B0, partial(_deeplabv3, channels=128, dilations=_AT_STRIDE_32)),
    "deeplabv3_mit_b4": _Entry("DeepLabV3-MiT-B4", _MIT_B4, partial(_deeplabv3, channels=256, dilations=_AT_STRIDE_32)),
    # For the demo and for tests, small enough for a CPU. An all-MLP head learns thin things sooner than ASPP does.
    "resnet_tiny": _Entry("ResNet-tiny", _resnet(18, 12, (12, 24, 48, 96)), partial(_segformer, channels=48)),
    "resnet_small": _Entry("ResNet-small", _resnet(18, 24, (24, 48, 96, 192)), partial(_segformer, channels=96)),
    "segformer_tiny": _Entry("SegFormer-tiny", _mit(16, (1, 1, 1, 1), drop_path=0.0), partial(_segformer, channels=48)),
    "segformer_small": _Entry(
        "SegFormer-small", _mit(32, (1, 1, 1, 1), drop_path=0.0), partial(_segformer, channels=96)
    ),
    "deeplabv3_tiny": _Entry("DeepLabV3-tiny", _resnet(18, 8, (8, 16, 32, 64)), partial(_deeplabv3, channels=32)),
}
