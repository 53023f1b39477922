"""Structured knowledge distillation: pixel-wise, pair-wise, and holistic by an adversary."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor, nn
from torch.func import functional_call

from baselines.kd import pixel_kd
from benchmark.method import Method, Part, Shapes, Taps
from benchmark.method.blocks import ROWS
from benchmark.method.grids import coarser, pooled, resize

SMALLEST = 64
"""The discriminator's four stride-2 convolutions and its last 4x4 one need as many pixels on the shorter side."""


class _SimilarityDistance(torch.autograd.Function):
    """Sum of the squared differences of two images' similarities, some rows at a time.

    The gradient, 4 (X X^T - X' X'^T) X, is made on the way, so that no rows are kept.
    """

    @staticmethod
    def forward(ctx: Any, nodes: Tensor, nodes_t: Tensor) -> Tensor:
        gradient = torch.empty_like(nodes)
        total = nodes.new_zeros(())
        for start in range(0, len(nodes), ROWS):
            rows = slice(start, start + ROWS)
            difference = (nodes[rows] @ nodes.T).sub_(nodes_t[rows] @ nodes_t.T)
            torch.mm(difference, nodes, out=gradient[rows])
            total += difference.square_().sum()
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (saved,) = ctx.saved_tensors
        return saved * (4 * gradient), None


def pairwise_kd(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared difference of the similarities between positions, mean over images and pairs of nodes.

    Nodes: 2x2 max-pooling, stride 2, ceil mode. Similarity: cosine of the channel vectors of two nodes of an image.
    Only `ROWS` rows of similarities live at once.

    Args:
        student: a map (N, C, H, W), any float type; computed in float32.
        teacher: a map (N, C', H, W) on the same grid; it gets no gradient.

    Source: CIRKD `losses/skd.py` @2d8ad0f.
    """

    def nodes(x: Tensor) -> Tensor:
        cells = F.max_pool2d(x.float(), 2, stride=2, ceil_mode=True).flatten(2)
        return F.normalize(cells, dim=1, eps=1e-12).transpose(1, 2).contiguous()

    x, x_t = nodes(student), nodes(teacher)
    n, p, _ = x.shape
    return torch.stack([_SimilarityDistance.apply(*image) for image in zip(x, x_t, strict=True)]).sum() / (n * p**2)


def pairwise_kd_original(student: Tensor, teacher: Tensor, scale: float = 0.5) -> Tensor:
    """As `pairwise_kd`, with few nodes, and vectors divided by a norm that carries no gradient.

    Nodes: max-pooling with kernel and stride `int(scale H), int(scale W)`, ceil mode: 2x2 nodes for scale 0.5 and even
    sizes, 3x3 for odd ones. Vectors are divided by their norm + 1e-8. Mean over images and pairs of nodes.

    Args:
        student: a map (N, C, H, W), any float type; computed in float32.
        teacher: a map (N, C', H, W) on the same grid.
        scale: size of a node as a fraction of the map.

    Source: Liu et al., CVPR 2019, pair-wise distillation; SKD `utils/criterion.py` @ce208e1.
    """

    def similarities(x: Tensor) -> Tensor:
        kernel = [max(1, int(size * scale)) for size in x.shape[2:]]
        nodes = F.max_pool2d(x.float(), kernel, stride=kernel, ceil_mode=True).flatten(2)
        nodes = nodes / (nodes.detach().norm(dim=1, keepdim=True) + 1e-8)
        return nodes.transpose(1, 2) @ nodes

    return F.mse_loss(similarities(student), similarities(teacher))


def adversary_size(a: Tensor, b: Tensor) -> tuple[int, int]:
    """The coarser of two grids, scaled up to at least `SMALLEST` on the shorter side."""
    h, w = coarser(a, b)
    shorter = min(h, w)
    if shorter >= SMALLEST:
        return h, w
    return -(-h * SMALLEST // shorter), -(-w * SMALLEST // shorter)  # rounded up


class SpectralConv2d(nn.Conv2d):
    """A convolution whose weight is divided by an estimate of its largest singular value.

    One power iteration per forward pass in training: v = W^T u, u = W v (both normalised), sigma = u W v. The gradient
    takes u and v as constants. Source: Miyato et al., ICLR 2018.
    """

    u: Tensor
    v: Tensor

    def __init__(self, before: int, after: int, kernel: int, stride: int = 1, padding: int = 0) -> None:
        super().__init__(before, after, kernel, stride=stride, padding=padding)
        rows, columns = self.weight.flatten(1).shape
        self.register_buffer("u", F.normalize(torch.randn(rows), dim=0, eps=1e-12))
        self.register_buffer("v", F.normalize(torch.randn(columns), dim=0, eps=1e-12))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C', H', W')."""
        matrix = self.weight.flatten(1)
        u, v = self.u, self.v
        if self.training:
            with torch.no_grad():
                # New tensors, for the graph to hold: later passes of the same step overwrite the buffers.
                v = F.normalize(matrix.T @ u, dim=0, eps=1e-12)
                u = F.normalize(matrix @ v, dim=0, eps=1e-12)
                self.u.copy_(u)
                self.v.copy_(v)
        sigma = torch.dot(u, matrix @ v)
        return F.conv2d(x, self.weight / sigma, self.bias, self.stride, self.padding)


class SelfAttention(nn.Module):
    """x + gamma * attention over the positions of x (Zhang et al., ICML 2019), unscaled, gamma from 0."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, channels // 8, 1)
        self.key = nn.Conv2d(channels, channels // 8, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        q, k, v = (layer(x).flatten(2) for layer in (self.query, self.key, self.value))
        attention = torch.softmax(q.transpose(1, 2) @ k, dim=2)
        return x + self.gamma * (v @ attention.transpose(1, 2)).view_as(x)


class Discriminator(nn.Module):
    """Tells logits (N, K, H, W) of the teacher from the student's: scores (N, 1, H', W'), high for the teacher.

    BatchNorm on the input; four spectral-norm 4x4 convolutions of stride 2 with LeakyReLU 0.1 and `width` 1, 2, 4, 8
    times; self-attention after the last two; a 4x4 convolution to one score. Source: CIRKD `utils/sagan.py` @2d8ad0f.
    """

    def __init__(self, classes: int, width: int = 64) -> None:
        super().__init__()

        def down(before: int, after: int) -> nn.Sequential:
            return nn.Sequential(SpectralConv2d(before, after, 4, stride=2, padding=1), nn.LeakyReLU(0.1))

        self.norm = nn.BatchNorm2d(classes)
        self.down1 = down(classes, width)
        self.down2 = down(width, 2 * width)
        self.down3 = down(2 * width, 4 * width)
        self.attention1 = SelfAttention(4 * width)
        self.down4 = down(4 * width, 8 * width)
        self.attention2 = SelfAttention(8 * width)
        self.last = nn.Conv2d(8 * width, 1, 4)

    def forward(self, logits: Tensor) -> Tensor:
        """Scores of logits of at least `SMALLEST` pixels on the shorter side."""
        x = self.down3(self.down2(self.down1(self.norm(logits.float()))))
        return self.last(self.attention2(self.down4(self.attention1(x))))


def hinge_adversary(discriminator: nn.Module, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """The generator's and the discriminator's loss, both means over images and scores.

    Generator: -D(student). Discriminator: relu(1 - D(teacher)) + relu(1 + D(student)). One backward pass of a sum of
    both is safe: the generator's loss reaches only the student, the discriminator's only its own parameters. The
    discriminator's buffers advance three times: D(student), D(student detached), D(teacher).

    Args:
        discriminator: maps (N, K, H, W) to scores (N, 1, H', W').
        student: logits (N, K, H, W).
        teacher: logits (N, K, H, W), need not be on the same grid.

    Source: CIRKD `losses/adv.py` @2d8ad0f.
    """
    frozen = {name: parameter.detach() for name, parameter in discriminator.named_parameters()}
    generator = -functional_call(discriminator, frozen, (student,)).mean()
    fake = discriminator(student.detach())
    real = discriminator(teacher.detach())
    return generator, F.relu(1.0 - real).mean() + F.relu(1.0 + fake).mean()


class SKD(Method):
    """Structured KD (Liu et al., CVPR 2019 and TPAMI 2020): pixel-wise + pair-wise + holistic distillation.

    Resize policy: pixel-wise as in `kd` (teacher bilinearly to the student's grid); pair-wise: the finer classifier
    input is averaged over the cells of the coarser; adversary: both logits bilinearly to the coarser grid, so that
    sharpness does not tell them apart, and to at least 64 pixels on the shorter side.

    - Paper and its code: pair-wise on 2x2 nodes (`pairwise="original"`, weight 0.5), pixel-wise as `skd_original` in
      `kd` with weight 10, WGAN-GP with SGD, weight 0.1 for both sides.
    - CIRKD's code: pair-wise on 2x2 *windows*, weight 10; KD of weight 1; hinge adversary with Adam, weight 0.001 for
      the student and 0.1 for the discriminator, which trains even where its weight for the student is 0.
    - Here: CIRKD's forms, because the numbers this suite is compared with were run in that codebase, and its weights
      mean nothing with another reduction; WGAN-GP is not offered. A term of weight 0 is not computed: without a
      generator weight there is no adversary.
    """

    title = "SKD"
    source = "Liu et al., CVPR 2019, arXiv 1903.04197; forms and weights of winycg/CIRKD @2d8ad0f"
    version = 2
    variants = {
        "original pair-wise": {"pairwise": "original", "pairwise_weight": 0.5},
        "without adversary": {"generator_weight": 0.0},
    }

    tau: PositiveFloat = 1.0
    pixel_weight: NonNegativeFloat = 1.0
    pairwise_weight: NonNegativeFloat = 10.0
    generator_weight: NonNegativeFloat = 0.001
    discriminator_weight: NonNegativeFloat = 0.1
    pairwise: Literal["cirkd", "original"] = "cirkd"
    scale: Annotated[float, Field(gt=0, le=1)] = 0.5
    width: Annotated[int, Field(ge=2)] = 64

    taps = ("logits", "pre_classifier")

    discriminator: Discriminator

    def build(self, student: Shapes, teacher: Shapes) -> dict[str, Part]:
        """`discriminator`, with an Adam of its own."""
        if self.generator_weight == 0:
            return {}
        adam = {"type": "Adam", "lr": 4e-4, "betas": (0.9, 0.99)}
        return {"discriminator": Part(Discriminator(student["logits"].channels, self.width), optimizer=adam)}

    def losses(self, student: Taps, teacher: Taps, target: Tensor, step: int) -> dict[str, Tensor]:
        """`pixel`, `pairwise`, and the adversary's `generator` and (not felt by the student) `discriminator`."""
        z, z_t = student["logits"], teacher["logits"]
        terms: dict[str, Tensor] = {}
        if self.pixel_weight > 0:
            terms["pixel"] = self.pixel_weight * pixel_kd(z, resize(z_t, z.shape[2:]), self.tau)
        if self.pairwise_weight > 0:
            f, f_t = student["pre_classifier"], teacher["pre_classifier"]
            nodes = coarser(f, f_t)
            f, f_t = pooled(f, nodes), pooled(f_t, nodes)
            if self.pairwise == "original":
                terms["pairwise"] = self.pairwise_weight * pairwise_kd_original(f, f_t, self.scale)
            else:
                terms["pairwise"] = self.pairwise_weight * pairwise_kd(f, f_t)
        if self.generator_weight > 0:
            size = adversary_size(z, z_t)
            generator, discriminator = hinge_adversary(self.discriminator, resize(z, size), resize(z_t, size))
            terms["generator"] = self.generator_weight * generator
            terms["discriminator"] = self.discriminator_weight * discriminator
        return terms
