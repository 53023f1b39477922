"""Networks by name: plain mmseg `EncoderDecoder`s, their taps in one forward pass, and the facts about them.

A bare name is mmseg's flavour: ResNetV1c, heads with dropout 0.1, `align_corners=False`, the whole picture decoded at
once. `NAME@cirkd` is that of the CIRKD and Af-DCD codebases (`cirkd.py`). Batch normalisation is plain BN (a
multi-GPU trainer converts it), nothing is pretrained (weights are the caller's affair), and there is no data
preprocessor: inputs arrive normalised.
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

from benchmark.core.errors import unknown
from benchmark.spec.networks import TAPS, Family, Network, TapShape

Config = dict[str, Any]

Widths = tuple[int, int, int, int]
"""Channels of a backbone's four stages."""

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
        names: which of `benchmark.spec.networks.TAPS` to return. A network without auxiliary head has no `aux_logits`.

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
    # Shapes and counts need no numbers; built on the CPU, for some constructors read tensors.
    network = MODELS.build(ConfigDict(network_config(name, classes))).eval().to("meta")
    picture = torch.zeros(1, 3, *size, device="meta")
    with torch.no_grad():
        with FlopCounterMode(display=False) as counter:
            forward_taps(network, picture, ("logits",))
        taps = forward_taps(network, picture)
    auxiliary = sum(p.numel() for key, p in network.named_parameters() if key.startswith("auxiliary_head."))
    return Network(
        name=name,
        title=_NETWORKS[name].title,
        family=_NETWORKS[name].family,
        parameters=sum(p.numel() for p in network.parameters()) - auxiliary,
        auxiliary_parameters=auxiliary,
        gflops=round(counter.get_total_flops() / 1e9, 3),
        classes=classes,
        size=size,
        taps={tap: TapShape(channels=t.shape[1], stride=round(size[0] / t.shape[2])) for tap, t in taps.items()},
        note=_NETWORKS[name].note,
    )


def write_facts(path: Path) -> None:
    """Measure all networks and write `networks.json`."""
    content = {"networks": [facts(name).model_dump(mode="json") for name in _NETWORKS]}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


# Backbones -------------------------------------------------------------------------------------------------------


class _Backbone(NamedTuple):
    family: Family
    channels: Widths
    config: Config


def _resnet(depth: int, base: int = 64, widths: Widths = (64, 128, 256, 512), cirkd: bool = False) -> _Backbone:
    """ResNetV1c at stride 8: the last two stages are dilated instead of strided; `cirkd`: with a stem twice as wide."""
    config = {
        "type": "CirkdResNet" if cirkd else "ResNetV1c",
        "depth": depth,
        "stem_channels": 2 * base if cirkd else base,
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


def _mobilenet(cirkd: bool = False) -> _Backbone:
    """MobileNetV2 at stride 8; its stages end at layers 2, 3, 5 and 7."""
    config = {
        "type": "CirkdMobileNetV2" if cirkd else "MobileNetV2",
        "widen_factor": 1.0,
        "out_indices": (1, 2, 4, 6),
        "strides": (1, 2, 2, 1, 1, 1, 1),
        "dilations": (1, 1, 1, 2, 2, 4, 4),
        "norm_cfg": BN,
    }
    return _Backbone(Family.CNN, (24, 32, 96, 320), config)


def _mit(embed: int, layers: tuple[int, ...], drop_path: float = 0.1, cirkd: bool = False) -> _Backbone:
    """Mix Vision Transformer, the backbone of SegFormer: strides 4, 8, 16, 32."""
    config = {
        "type": "CirkdMixVisionTransformer" if cirkd else "MixVisionTransformer",
        "embed_dims": embed,
        "num_layers": layers,
        "num_heads": (1, 2, 5, 8),
        "patch_sizes": (7, 3, 3, 3),
        "sr_ratios": (8, 4, 2, 1),
        "out_indices": (0, 1, 2, 3),
        "mlp_ratio": 4,
        "qkv_bias": True,
        "drop_path_rate": drop_path,
    }
    return _Backbone(Family.TRANSFORMER, (embed, 2 * embed, 5 * embed, 8 * embed), config)


# Heads -----------------------------------------------------------------------------------------------------------


def _swin_t() -> _Backbone:
    """Swin-T (Liu et al., ICCV 2021) as mmseg configures it for UPerNet: strides 4, 8, 16, 32."""
    config = {
        "type": "SwinTransformer",
        "embed_dims": 96,
        "depths": (2, 2, 6, 2),
        "num_heads": (3, 6, 12, 24),
        "window_size": 7,
        "out_indices": (0, 1, 2, 3),
        "drop_path_rate": 0.3,
    }
    return _Backbone(Family.TRANSFORMER, (96, 192, 384, 768), config)


def _mscan_t() -> _Backbone:
    """MSCAN-T, the backbone of SegNeXt-T (Guo et al., NeurIPS 2022): attention by large convolutions."""
    config = {
        "type": "MSCAN",
        "embed_dims": [32, 64, 160, 256],
        "mlp_ratios": [8, 8, 4, 4],
        "depths": [3, 3, 5, 2],
        "drop_path_rate": 0.1,
        "attention_kernel_sizes": [5, [1, 7], [1, 11], [1, 21]],
        "attention_kernel_paddings": [2, [0, 3], [0, 5], [0, 10]],
        "act_cfg": {"type": "GELU"},
        "norm_cfg": BN,
    }
    return _Backbone(Family.CNN, (32, 64, 160, 256), config)


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
    """An FCN head on stage 3, for ResNets and Swin."""
    if backbone.config["type"] not in ("ResNetV1c", "CirkdResNet", "SwinTransformer"):
        return None
    width = backbone.channels[2]
    options: Config = {
        "in_channels": width,
        "in_index": 2,
        "channels": width // 4,
        "num_convs": 1,
        "concat_input": False,
    }
    return _head("FCNHead", classes, loss_weight=0.4, **options)


def _upernet(classes: int, backbone: _Backbone, channels: int) -> Config:
    """Pyramid pooling and feature pyramid (Xiao et al., ECCV 2018)."""
    options: Config = {"in_channels": backbone.channels, "in_index": (0, 1, 2, 3), "channels": channels}
    head = _head("UPerHead", classes, pool_scales=(1, 2, 3, 6), **options)
    return _network(backbone, head, _auxiliary(backbone, classes))


def _segnext(classes: int, backbone: _Backbone, channels: int) -> Config:
    """SegNeXt's Hamburger head on the last three stages (Guo et al., NeurIPS 2022)."""
    options: Config = {"in_channels": backbone.channels[1:], "in_index": (1, 2, 3), "channels": channels}
    options |= {"ham_channels": channels, "ham_kwargs": {"MD_R": 16}, "norm_cfg": {"type": "GN", "num_groups": 32}}
    return _network(backbone, _head("LightHamHead", classes, **options))


def _cirkd(config: Config) -> Config:
    """A config with the CIRKD codebase's heads, of which all but SegFormer's align corners."""
    renamed = {"ASPPHead": "CirkdASPPHead", "PSPHead": "CirkdPSPHead", "SegformerHead": "CirkdSegformerHead"}
    for name in ("decode_head", "auxiliary_head"):
        if name in config:
            kind = config[name]["type"]
            own = {"dropout_ratio": 0.0} if kind == "SegformerHead" else {"align_corners": True}
            config[name] |= {"type": renamed.get(kind, kind), **own}
    return config


def _deeplabv3(
    classes: int, backbone: _Backbone, channels: int, dilations: tuple[int, int, int, int] = (1, 12, 24, 36)
) -> Config:
    """Atrous spatial pyramid pooling on the last stage (Chen et al., arXiv 1706.05587)."""
    options: Config = {"in_channels": backbone.channels[3], "in_index": 3, "channels": channels, "dilations": dilations}
    return _network(backbone, _head("ASPPHead", classes, **options), _auxiliary(backbone, classes))


def _pspnet(classes: int, backbone: _Backbone, channels: int) -> Config:
    """Pyramid pooling on the last stage (Zhao et al., CVPR 2017)."""
    options: Config = {"in_channels": backbone.channels[3], "in_index": 3, "channels": channels}
    options |= {"pool_scales": (1, 2, 3, 6)}
    return _network(backbone, _head("PSPHead", classes, **options), _auxiliary(backbone, classes))


def _segformer(classes: int, backbone: _Backbone, channels: int) -> Config:
    """All four stages through linear layers, joined at stride 4 (Xie et al., NeurIPS 2021)."""
    options: Config = {"in_channels": backbone.channels, "in_index": (0, 1, 2, 3), "channels": channels}
    return _network(backbone, _head("SegformerHead", classes, **options), _auxiliary(backbone, classes))


# Names -----------------------------------------------------------------------------------------------------------

_MIT_LAYERS = {"b0": (2, 2, 2, 2), "b1": (2, 2, 2, 2), "b2": (3, 4, 6, 3), "b3": (3, 4, 18, 3), "b4": (3, 8, 27, 3)}
_BOTTLENECKS = (256, 512, 1024, 2048)

_AT_STRIDE_32 = (1, 3, 6, 9)
_RATES = (
    "inferred: no source states the rates of DeepLabV3 on a transformer; at stride 32 a crop of 512 is a map of 16x16, "
    "where 24 and 36 reach only padding, and 3, 6, 9 see what 12, 24, 36 see at stride 8; {name}_rates12 has the latter"
)


class _Entry(NamedTuple):
    title: str
    backbone: _Backbone
    head: Callable[..., Config]
    note: str = ""

    @property
    def family(self) -> Family:
        return self.backbone.family

    def config(self, classes: int) -> Config:
        return self.head(classes, self.backbone)


def _of_the_papers(cirkd: bool) -> dict[str, _Entry]:
    """The papers' networks in one flavour; heads are as wide as its codebase makes them."""
    resnets = {
        "r18": _resnet(18, cirkd=cirkd),
        "r50": _resnet(50, widths=_BOTTLENECKS, cirkd=cirkd),
        "r101": _resnet(101, widths=_BOTTLENECKS, cirkd=cirkd),
    }
    cnns = resnets | {"mbv2": _mobilenet(cirkd)}
    mits = {size: _mit(32 if size == "b0" else 64, layers, cirkd=cirkd) for size, layers in _MIT_LAYERS.items()}
    entries: dict[str, _Entry] = {}
    for key, backbone in cnns.items():
        narrow = key in ("r18", "mbv2")
        aspp = partial(_deeplabv3, channels=128 if narrow else 256 if cirkd else 512)
        entries[f"deeplabv3_{key}"] = _Entry(f"DeepLabV3-{key.upper()}", backbone, aspp)
        psp = partial(_pspnet, channels=128 if narrow else 512)
        entries[f"pspnet_{key}"] = _Entry(f"PSPNet-{key.upper()}", backbone, psp)
    for key, backbone in mits.items():
        title = f"MiT-{key.upper()}"
        wide = 768 if cirkd and key not in ("b0", "b1") else 256
        entries[f"segformer_mit_{key}"] = _Entry(f"SegFormer-{title}", backbone, partial(_segformer, channels=wide))
        aspp = partial(_deeplabv3, channels=128 if key == "b0" else 256)
        name = f"deeplabv3_mit_{key}"
        dense = partial(aspp, dilations=_AT_STRIDE_32)
        entries[name] = _Entry(f"DeepLabV3-{title}", backbone, dense, _RATES.format(name=name))
        entries[f"{name}_rates12"] = _Entry(f"DeepLabV3-{title} (rates 12/24/36)", backbone, aspp)
    if not cirkd:
        return entries
    return {
        f"{name}@cirkd": _Entry(f"{entry.title} @cirkd", entry.backbone, partial(_flavoured, entry.head), entry.note)
        for name, entry in entries.items()
    }


def _flavoured(head: Callable[..., Config], classes: int, backbone: _Backbone) -> Config:
    """What the function `head` makes, turned into the CIRKD codebase's."""
    return _cirkd(head(classes, backbone))


_NETWORKS = {
    **_of_the_papers(cirkd=False),
    **_of_the_papers(cirkd=True),
    "upernet_swin_t": _Entry("UPerNet-Swin-T", _swin_t(), partial(_upernet, channels=512)),
    "segnext_t": _Entry("SegNeXt-T", _mscan_t(), partial(_segnext, channels=256)),
    # For the demo and for tests, small enough for a CPU. An all-MLP head learns thin things sooner than ASPP does.
    "resnet_tiny": _Entry("ResNet-tiny", _resnet(18, 12, (12, 24, 48, 96)), partial(_segformer, channels=48)),
    "resnet_small": _Entry("ResNet-small", _resnet(18, 24, (24, 48, 96, 192)), partial(_segformer, channels=96)),
    "segformer_tiny": _Entry("SegFormer-tiny", _mit(16, (1, 1, 1, 1), drop_path=0.0), partial(_segformer, channels=48)),
    "segformer_small": _Entry(
        "SegFormer-small", _mit(32, (1, 1, 1, 1), drop_path=0.0), partial(_segformer, channels=96)
    ),
    "deeplabv3_tiny": _Entry("DeepLabV3-tiny", _resnet(18, 8, (8, 16, 32, 64)), partial(_deeplabv3, channels=32)),
}
