"""What mmseg does for one batch: normalise and pad it, the task loss, the prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from mmseg.models import EncoderDecoder, SegDataPreProcessor
from mmseg.models.losses.cross_entropy_loss import cross_entropy
from mmseg.models.utils import resize
from torch import Tensor

from benchmark.method import IGNORE
from benchmark.spec.definitions import Normalisation


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
        self.module._non_blocking = device.type == "cuda"  # batches are pinned there; mmseg's class has no option

    def train(self, raw: Mapping[str, list[Any]]) -> Batch:
        """A training batch; `raw` stays as it is."""
        samples = [sample.clone() for sample in raw["data_samples"]]
        data = self.module({"inputs": raw["inputs"], "data_samples": samples}, True)
        target = torch.stack([sample.gt_sem_seg.data.squeeze(0) for sample in data["data_samples"]])
        return Batch(data["inputs"], target)

    def evaluate(self, raw: Mapping[str, list[Any]]) -> Tensor:
        """Whole pictures of one size (N, 3, H, W), not padded."""
        return self.module({"inputs": raw["inputs"]}, False)["inputs"]


def seg_ce(logits: Tensor, target: Tensor, align_corners: bool = True, avg_non_ignore: bool = True) -> Tensor:
    """Cross-entropy of logits that are enlarged bilinearly to the labels' size.

    Args:
        logits: (N, K, h, w).
        target: labels (N, H, W), int64, `IGNORE` where a pixel does not count.
        align_corners: how they are enlarged; CIRKD's codebase (`losses/task.py`, 2d8ad0f) does so with True, mmseg's
            networks with False.
        avg_non_ignore: the mean is over the labelled pixels of the batch (0 if there are none), as in that codebase;
            else over all pixels, as in mmseg's configs.
    """
    full = resize(logits, size=target.shape[1:], mode="bilinear", align_corners=align_corners, warning=False)
    # Counted here, for mmseg reads the number on the host, and so waits for the device in every step.
    count = (target != IGNORE).sum() if avg_non_ignore else None
    return cross_entropy(full, target, ignore_index=IGNORE, avg_factor=count)


def task_losses(
    network: EncoderDecoder, taps: Mapping[str, Tensor], target: Tensor, avg_non_ignore: bool = True
) -> dict[str, Tensor]:
    """The cross-entropy of each head, weighted as the network says, under mmseg's names.

    What mmseg's `loss_by_feat` computes, without the pixel accuracy that it adds and that nobody reads here.

    Args:
        network: its heads say how their logits are enlarged, and the weight of their loss.
        taps: `logits`, and `aux_logits` if there is an auxiliary head.
        target: labels (N, H, W).
        avg_non_ignore: as `seg_ce` has it.
    """
    heads = {"decode": (network.decode_head, taps["logits"])}
    if network.with_auxiliary_head:
        heads["aux"] = (network.auxiliary_head, taps["aux_logits"])
    losses = {}
    for prefix, (head, logits) in heads.items():
        loss = seg_ce(logits, target, head.align_corners, avg_non_ignore)
        losses[f"{prefix}.{head.loss_decode.loss_name}"] = head.loss_decode.loss_weight * loss
    return losses


def predict(network: EncoderDecoder, inputs: Tensor, size: Sequence[int] | None = None, parts: int = 1) -> Tensor:
    """The predicted classes (N, H, W) of whole pictures (N, 3, h, w).

    Args:
        network: in one part it predicts by its own test mode.
        inputs: normalised pictures.
        size: (H, W), of the pictures before they were resized; None: (h, w).
        parts: vertical strips that pictures are cut into; their logits are joined, then enlarged once (CIRKD evaluates
            SegFormer on Cityscapes in two squares).
    """
    if parts > 1:
        strips = [network.decode_head(network.extract_feat(strip)) for strip in inputs.chunk(parts, dim=3)]
        logits = torch.cat(strips, dim=3)
    else:
        shape = tuple(inputs.shape[-2:])
        metas = [{"img_shape": shape, "ori_shape": shape, "pad_shape": shape}] * len(inputs)
        logits = network.inference(inputs, metas)
    wanted = tuple(size or inputs.shape[-2:])
    if tuple(logits.shape[-2:]) != wanted:
        logits = resize(logits, size=wanted, mode="bilinear", align_corners=network.align_corners, warning=False)
    return logits.argmax(1)
