"""Losses in their plain form, all at once and with torch's own gradients: what tests and benchmarks compare with."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmark.method import IGNORE


def plain_relation_kl(
    student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor], tau: float, valid: Tensor | None = None
) -> Tensor:
    """What `baselines.cirkd.relation_kl` computes."""
    log_q = F.log_softmax(student[0] @ student[1].T / tau, dim=1)
    log_p = F.log_softmax(teacher[0] @ teacher[1].T / tau, dim=1)
    divergence = F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=1)
    return (divergence if valid is None else torch.where(valid, divergence, 0.0)).sum()


def plain_pairwise(student: Tensor, teacher: Tensor) -> Tensor:
    """What `baselines.skd.pairwise_kd` computes."""

    def similarities(x: Tensor) -> Tensor:
        nodes = F.normalize(F.max_pool2d(x, 2, stride=2, ceil_mode=True).flatten(2), dim=1)
        return nodes.transpose(1, 2) @ nodes

    return F.mse_loss(similarities(student), similarities(teacher))


def plain_variation(x: Tensor, labels: Tensor, classes: int) -> Tensor:
    """What `baselines.ifvd.intra_class_variation` computes."""
    (n, c, h, w), own = x.shape, labels.where(labels != IGNORE, classes).flatten(1)
    features = x.flatten(2).transpose(1, 2)
    index = own[..., None].expand(-1, -1, c)
    sums = x.new_zeros(n, classes + 1, c).scatter_add(1, index, features)
    counts = x.new_zeros(n, classes + 1).scatter_add(1, own, x.new_ones(n, h * w))
    centres = (sums / (counts + 1e-6)[..., None]).gather(1, index)
    return F.cosine_similarity(features, centres, dim=2, eps=1e-8).view_as(labels)
