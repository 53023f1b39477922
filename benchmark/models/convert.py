"""Other codebases' checkpoints, turned into ours: every tensor finds its place, or the import says which do not.

Formats: CIRKD and Af-DCD (DeepLabV3 and PSPNet on ResNet and MobileNetV2, SegFormer), NVlabs' MiT backbones, names of
OpenMMLab, which are ours, and ImageNet backbones of torchvision, timm and OpenMMLab that keep the network's order.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from mmseg.models import EncoderDecoder
from torch import Tensor

from benchmark.core.errors import KdsegError
from benchmark.core.files import file_sha256
from benchmark.models import checkpoints
from benchmark.models.build import build_network

StateDict = dict[str, Tensor]

_NORM = {"0": "conv", "1": "bn"}
"""A convolution and its norm, in a Sequential there and in a ConvModule here."""

_STEM = {"conv": {"1": "0", "2": "3", "3": "6"}, "bn": {"1": "1", "2": "4", "3": "7"}}

_RULES = (
    (r"pretrained\.(conv|bn)(\d)\.", lambda m: f"backbone.stem.{_STEM[m[1]][m[2]]}."),
    (r"pretrained\.(layer\d)\.", lambda m: f"backbone.{m[1]}."),
    (r"auxlayer\.block\.([01])\.", lambda m: f"auxiliary_head.convs.0.{_NORM[m[1]]}."),
    (r"auxlayer\.block\.4\.", lambda m: "auxiliary_head.conv_seg."),
    (r"head\.psp\.conv(\d)\.([01])\.", lambda m: f"decode_head.psp_modules.{int(m[1]) - 1}.1.{_NORM[m[2]]}."),
    (r"head\.classifier\.", lambda m: "decode_head.conv_seg."),
    (r"head\.aspp\.b0\.([01])\.", lambda m: f"decode_head.aspp_modules.0.{_NORM[m[1]]}."),
    (r"head\.aspp\.b([123])\.block\.([01])\.", lambda m: f"decode_head.aspp_modules.{m[1]}.{_NORM[m[2]]}."),
    (r"head\.aspp\.b4\.gap\.([12])\.", lambda m: f"decode_head.image_pool.1.{_NORM[str(int(m[1]) - 1)]}."),
    (r"head\.aspp\.project\.([01])\.", lambda m: f"decode_head.bottleneck.{_NORM[m[1]]}."),
    (r"head\.block\.4\.", lambda m: "decode_head.conv_seg."),
    (r"(?:\w+\.)*linear_c(\d)\.proj\.", lambda m: f"decode_head.linears.{int(m[1]) - 1}."),
    (r"(?:\w+\.)*linear_fuse\.(?:([01])|conv|bn)\.", lambda m: f"decode_head.fuse.{m[1] or int('bn' in m[0])}."),
    (r"(?:\w+\.)*linear_pred\.", lambda m: "decode_head.conv_seg."),
)
"""How a CIRKD name begins, and what that is here (spec: every name of that codebase's v1 models)."""

_MIT = re.compile(r"(?:\w+\.)*?(patch_embed\d\..+|block\d\.\d+\..+|norm\d\..+)")
"""A name of an NVlabs' MiT, whatever stands before it."""

_MIT_RULES = (
    (r"patch_embed(\d)\.proj\.", lambda m: f"layers.{int(m[1]) - 1}.0.projection."),
    (r"patch_embed(\d)\.norm\.", lambda m: f"layers.{int(m[1]) - 1}.0.norm."),
    (r"norm(\d)\.", lambda m: f"layers.{int(m[1]) - 1}.2."),
    (r"block(\d)\.(\d+)\.attn\.proj\.", lambda m: f"layers.{int(m[1]) - 1}.1.{m[2]}.attn.attn.out_proj."),
    (r"block(\d)\.(\d+)\.mlp\.fc1\.", lambda m: f"layers.{int(m[1]) - 1}.1.{m[2]}.ffn.layers.0."),
    (r"block(\d)\.(\d+)\.mlp\.dwconv\.dwconv\.", lambda m: f"layers.{int(m[1]) - 1}.1.{m[2]}.ffn.layers.1."),
    (r"block(\d)\.(\d+)\.mlp\.fc2\.", lambda m: f"layers.{int(m[1]) - 1}.1.{m[2]}.ffn.layers.4."),
    (r"block(\d)\.(\d+)\.", lambda m: f"layers.{int(m[1]) - 1}.1.{m[2]}."),
)


def import_checkpoint(file: Path, name: str, classes: int | None = None) -> tuple[dict[str, Tensor], dict[str, object]]:
    """The weights in `file` as a state dict of network `name`, strictly, and where they came from.

    Args:
        file: a whole segmentation network, or a backbone alone (then the result is a backbone's state dict).
        name: of `benchmark.spec.networks`, e.g. `deeplabv3_r101@cirkd`.
        classes: how many; None: as many as the file's classifier has (19 for a backbone).

    Raises:
        KdsegError: a tensor that is missing, unexpected or of another shape, by name.
    """
    state = _state(file)
    meta: dict[str, object] = {"model": name, "source": file.name, "source_sha256": file_sha256(file)}
    renamed = rename(state)
    whole = any(key.startswith("decode_head.") for key in renamed)
    file_classes = _classes(renamed) if whole else None
    if whole and classes is not None and file_classes is not None and classes != file_classes:
        raise KdsegError(f"{file}: its classifier has {file_classes} classes, not {classes}")
    network = build_network(name, classes or file_classes or 19)
    if not whole:
        return _backbone(network, file, state), meta | {"part": "backbone"}
    fit(network, renamed, str(file))
    return dict(network.state_dict()), meta | {"classes": classes or file_classes}


def rename(state: Mapping[str, Tensor]) -> StateDict:
    """A state dict under our names; what has no rule keeps its name."""
    pyramid = any(key.startswith("head.psp.") for key in state)
    mit = {match[1]: value for key, value in state.items() if (match := _MIT.fullmatch(key))}
    rest = {key: value for key, value in state.items() if not _MIT.fullmatch(key)}
    renamed: StateDict = {f"backbone.{key}": value for key, value in rename_mit(mit).items()} if mit else {}
    for key, value in rest.items():
        block = re.match(r"head\.block\.([01])\.", key)
        if block:
            layer = "bottleneck" if pyramid else "block"
            key = f"decode_head.{layer}.{_NORM[block[1]]}." + key[block.end() :]
        else:
            key = _apply(_RULES, key)
        renamed[key] = value
    return renamed


def rename_mit(state: Mapping[str, Tensor]) -> StateDict:
    """NVlabs' MiT as mmseg's: queries, keys and values in one tensor; linear layers of the MLP as 1x1 convolutions."""
    renamed: StateDict = {}
    for key, value in state.items():
        parts = re.match(r"block(\d)\.(\d+)\.attn\.(q|kv)\.(weight|bias)", key)
        if not parts:
            if re.search(r"\.mlp\.fc[12]\.weight$", key):
                value = value[..., None, None] if value.ndim == 2 else value
            renamed[_apply(_MIT_RULES, key)] = value
        elif parts[3] == "q":
            joined = torch.cat([value, state[key.replace(".q.", ".kv.")]])
            renamed[f"layers.{int(parts[1]) - 1}.1.{parts[2]}.attn.attn.in_proj_{parts[4]}"] = joined
    return renamed


def fit(network: EncoderDecoder, state: Mapping[str, Tensor], where: str) -> None:
    """Load a renamed state dict strictly; MobileNetV2 of CIRKD finds its place by order.

    Raises:
        KdsegError: as `checkpoints.fit`.
    """
    features = [key for key in state if key.startswith("pretrained.net.features.")]
    if features:
        own = [key for key in network.state_dict() if key.startswith("backbone.")]
        if len(own) == len(features):
            places = dict(zip(features, own, strict=True))
            state = {places.get(key, key): value for key, value in state.items()}
    checkpoints.fit(network, state, where)


def _backbone(network: EncoderDecoder, file: Path, state: StateDict) -> StateDict:
    """A backbone's state dict from an ImageNet file: by NVlabs' names, else as `checkpoints.load_backbone`."""
    mit = {match[1]: value for key, value in state.items() if (match := _MIT.fullmatch(key))}
    if mit:
        checkpoints.fit(network.backbone, rename_mit(mit), str(file))
    else:
        checkpoints.load_backbone(network.backbone, file)
    return dict(network.backbone.state_dict())


def _state(file: Path) -> StateDict:
    content = checkpoints.load(file)
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict):
        raise KdsegError(f"{file}: holds no state dict; expected parameter names with tensors")
    state = {str(key).removeprefix("module."): value for key, value in content.items() if isinstance(value, Tensor)}
    if not state:
        raise KdsegError(f"{file}: holds no tensors; expected a state dict")
    return state


def _classes(state: Mapping[str, Tensor]) -> int | None:
    classifier = state.get("decode_head.conv_seg.weight")
    return None if classifier is None else len(classifier)


def _apply(rules: tuple, key: str) -> str:
    for pattern, replacement in rules:
        match = re.match(pattern, key)
        if match:
            return replacement(match) + key[match.end() :]
    return key
