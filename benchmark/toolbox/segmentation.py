"""What mmseg does for one batch: normalise and pad it, the task loss, the prediction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from mmseg.models import EncoderDecoder, SegDataPreProcessor
from mmseg.models.utils import resize
from torch import Tensor

from benchmark.definitions import Normalisation


class Batch(NamedTuple):
    """Normalised and padded pictures (N, 3, H, W), and their labels (N, H, W), int64."""

    inputs: Tensor
    target: Tensor


class Preprocessor:
    """Brings raw batches to a device under one normalisation, padded to `crop` (with zeros, labels with 255)."""

    def __init__(self, normalisation: Normalisation, crop: tuple[int, int] | None, device: torch.device) -> None:
        self.module = SegDataPreProcessor(
            mean=normalisation.mean, std=normalisation.std, bgr_to_rgb=normalisation.channels == "rgb", size=crop
        ).to(device)

    def train(self, raw: Mapping[str, list[Any]]) -> Batch:
        """A training batch; `raw` stays as it is."""
        samples = [sample.clone() for sample in raw["data_samples"]]
        data = self.module({"inputs": raw["inputs"], "data_samples": samples}, True)
        target = torch.stack([sample.gt_sem_seg.data.squeeze(0) for sample in data["data_samples"]])
        return Batch(data["inputs"], target)

    def evaluate(self, raw: Mapping[str, list[Any]]) -> Tensor:
        """Whole pictures of one size (N, 3, H, W), not padded."""
        return self.module({"inputs": raw["inputs"]}, False)["inputs"]


def task_losses(network: EncoderDecoder, taps: Mapping[str, Tensor], target: Tensor) -> dict[str, Tensor]:
    """The heads' own losses, weighted as the network says, under mmseg's names.

    What mmseg's `loss_by_feat` computes, without the pixel accuracy that it adds and that nobody reads here.

    Args:
        network: its heads have one loss each.
        taps: `logits`, and `aux_logits` if there is an auxiliary head.
        target: labels (N, H, W).
    """
    heads = {"decode": (network.decode_head, taps["logits"])}
    if network.with_auxiliary_head:
        heads["aux"] = (network.auxiliary_head, taps["aux_logits"])
    losses = {}
    for prefix, (head, logits) in heads.items():
        full = resize(logits, size=target.shape[1:], mode="bilinear", align_corners=head.align_corners, warning=False)
        losses[f"{prefix}.{head.loss_decode.loss_name}"] = head.loss_decode(
            full, target, ignore_index=head.ignore_index
        )
    return losses


def predict(network: EncoderDecoder, inputs: Tensor) -> Tensor:
    """The predicted classes (N, H, W) of whole pictures (N, 3, H, W), by the network's own test mode."""
    height, width = inputs.shape[-2:]
    metas = [{"img_shape": (height, width), "ori_shape": (height, width), "pad_shape": (height, width)}] * len(inputs)
    return network.inference(inputs, metas).argmax(1)
