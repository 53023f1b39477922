"""CIRKD: pixels relate to the pixels of other images, and to memories of pixels and regions, as the teacher's do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal

import torch
import torch.distributed
import torch.nn.functional as F
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from benchmark.method import IGNORE, Method, Part, Shapes, Taps
from benchmark.method.blocks import ROWS, added
from benchmark.method.grids import coarser, labels_on, pooled

# Relations ---------------------------------------------------------------------------------------------------------


class _RelationKL(torch.autograd.Function):
    """The sum of `relation_kl`, row block by row block; gradients are made on the way, so that no block is kept."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        rows, columns, rows_t, columns_t, tau, valid = inputs
        for_rows = torch.zeros_like(rows) if ctx.needs_input_grad[0] else None
        for_columns = torch.zeros_like(columns) if ctx.needs_input_grad[1] else None
        total = rows.new_zeros(())
        for start in range(0, len(rows), ROWS):
            block = slice(start, start + ROWS)
            log_p = F.log_softmax(rows_t[block] @ columns_t.T / tau, dim=1)
            log_q = F.log_softmax(rows[block] @ columns.T / tau, dim=1)
            p = log_p.exp()
            divergence = (p * log_p.sub_(log_q)).sum(dim=1)
            total += (divergence if valid is None else torch.where(valid[block], divergence, 0.0)).sum()
            if for_rows is None and for_columns is None:
                continue
            slope = log_q.exp_().sub_(p)  # of the divergence, by the student's similarities / tau
            if valid is not None:
                slope.masked_fill_(~valid[block, None], 0.0)
            if for_rows is not None:
                for_rows[block] = slope @ columns
            if for_columns is not None:
                for_columns.addmm_(slope.T, rows[block])
        ctx.save_for_backward(for_rows, for_columns)
        ctx.tau = tau
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        gradients = (None if x is None else x * (gradient / ctx.tau) for x in ctx.saved_tensors)
        return (*gradients, None, None, None, None)


def relation_kl(
    student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor], tau: float, valid: Tensor | None = None
) -> Tensor:
    """KL(p || q) summed over rows: p and q are the softmax of the teacher's and student's similarities / tau.

    A row's similarities are its inner products with all columns. Only `ROWS` rows of similarities live at once.

    Args:
        student: rows (P, C) and columns (M, C), float32, both with gradient if they ask for it.
        teacher: rows (P, C') and columns (M, C'); they get no gradient.
        tau: temperature.
        valid: rows that count, (P,) bool; None: all.
    """
    return _RelationKL.apply(*student, *teacher, tau, valid)


def unit_pixels(x: Tensor) -> Tensor:
    """A map (N, C, H, W) as unit vectors (N, H W, C), in float32."""
    return F.normalize(x.float().flatten(2), dim=1, eps=1e-12).transpose(1, 2).contiguous()


def minibatch_relation(student: Tensor, teacher: Tensor, tau: float = 0.1, pool: bool = False) -> Tensor:
    """Relations between all pixels of all ordered pairs of images (an image with itself included), mean over rows.

    Similarity: cosine. A row is one pixel against all pixels of one image; no factor tau^2.

    Args:
        student: a map (N, C, H, W), any float type; computed in float32.
        teacher: a map (N, C', H, W) on the same grid.
        tau: temperature.
        pool: average-pool both 2x2 first (ceil mode).

    Source: Yang et al., CVPR 2022, eq. 4 and 5; CIRKD `losses/cirkd_mini_batch.py` @2d8ad0f.
    """
    if pool:
        student, teacher = (F.avg_pool2d(x.float(), 2, stride=2, ceil_mode=True) for x in (student, teacher))
    s, t = unit_pixels(student), unit_pixels(teacher)
    n, p, _ = s.shape
    pairs = ((i, j) for i in range(n) for j in range(n))
    return added(relation_kl((s[i], s[j]), (t[i], t[j]), tau) for i, j in pairs) / (n * n * p)


def memory_relation(
    student: Tensor, teacher: Tensor, memory: Tensor, valid: Tensor, tau: float = 0.1, kd_tau: float = 1.0
) -> Tensor:
    """Relations of pixels to remembered teacher vectors, kd_tau^2 times the mean over valid pixels; 0 if none is.

    Args:
        student, teacher: unit vectors (P, C).
        memory: unit vectors (M, C), what both are compared with.
        valid: pixels that count, (P,) bool.
        tau: temperature of the similarities.
        kd_tau: temperature of the distillation, on top.

    Source: Yang et al., CVPR 2022, eq. 8 to 11; CIRKD `losses/cirkd_memory.py` @2d8ad0f.
    """
    total = relation_kl((student, memory), (teacher, memory), tau * kd_tau, valid)
    return kd_tau**2 * total / valid.sum().clamp(min=1)


# Memory ------------------------------------------------------------------------------------------------------------


class Memory(nn.Module):
    """Queues of teacher vectors per class: single pixels, and regions (the mean of a class in an image).

    Args:
        classes: K.
        channels: C.
        pixels, regions: length of each class' queue; 150 classes x 20,000 x 256 floats are 2.86 GiB.
        update: at most so many pixels of a class enter per image.
    """

    pixels: Tensor
    regions: Tensor
    pixels_pointer: Tensor
    regions_pointer: Tensor

    def __init__(self, classes: int, channels: int, pixels: int, regions: int, update: int = 16) -> None:
        super().__init__()
        self.update = min(update, pixels)
        for name, length in (("pixels", pixels), ("regions", regions)):
            self.register_buffer(name, F.normalize(torch.randn(classes, length, channels), dim=2))
            self.register_buffer(f"{name}_pointer", torch.zeros(classes, dtype=torch.long))

    @torch.no_grad()
    def enqueue(
        self, vectors: Tensor, labels: Tensor, rule: str = "own_class", orders: list[Tensor] | None = None
    ) -> None:
        """Let a batch enter: per image and present class one region, and up to `update` random pixels.

        Args:
            vectors: the teacher's unit vectors (N, P, C).
            labels: (N, P), int64; ignored pixels enter nowhere.
            rule: `own_class`: the pixels drawn are of the class. `as_released`: the numbers drawn for the n pixels of a
                class index the whole image, so its first n positions enter, whatever their class.
            orders: for each image and present class, in that order, a permutation of range(n) or its beginning; None:
                drawn here.
        """
        classes = len(self.pixels)
        index = labels.where(labels != IGNORE, classes)
        counts = labels.new_zeros(len(labels), classes + 1).scatter_add(1, index, torch.ones_like(index))[:, :classes]
        # The one wait for the device: which rows are written depends on which classes there are.
        *present, pixel, region = torch.cat([counts, self.pixels_pointer[None], self.regions_pointer[None]]).tolist()
        drawn = iter(orders) if orders is not None else None
        for image, sizes in enumerate(present):
            by_class = index[image].argsort(stable=True)
            sums = vectors.new_zeros(classes + 1, vectors.shape[2]).index_add(0, index[image], vectors[image])
            regions, first = F.normalize(sums[:classes], dim=1), 0
            for k, size in enumerate(sizes):
                if size == 0:
                    continue
                self.regions[k, region[k]] = regions[k]
                region[k] = (region[k] + 1) % self.regions.shape[1]
                order = torch.randperm(size, device=labels.device) if drawn is None else next(drawn)
                order = order[: self.update]
                places = by_class[first + order] if rule == "own_class" else order
                start, length = pixel[k], self.pixels.shape[1]
                pixel[k] = start + len(order)
                if pixel[k] >= length:
                    start, pixel[k] = length - len(order), 0
                self.pixels[k, start : start + len(order)] = vectors[image, places]
                first += size
        self.pixels_pointer.copy_(torch.tensor(pixel))
        self.regions_pointer.copy_(torch.tensor(region))


# All ranks ---------------------------------------------------------------------------------------------------------


class _Gather(torch.autograd.Function):
    """All ranks' tensors, one after the other; backward sums the gradients that all ranks have for the own one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(parts, x)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous()
        torch.distributed.all_reduce(gradient)
        return gradient.chunk(torch.distributed.get_world_size())[torch.distributed.get_rank()]


def gathered(x: Tensor) -> Tensor:
    """The tensors (N, ...) of all ranks, one after the other; `x` itself where there is one process.

    The gradient flows to the parts of all ranks: where each computes the same loss of the whole, and gradients are
    averaged over ranks as DDP does, the result is the gradient of one process with the whole batch.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return x
    return _Gather.apply(x.contiguous()) if torch.distributed.get_world_size() > 1 else x


@contextmanager
def drawing_alike() -> Iterator[None]:
    """Within it all ranks draw the numbers that the first would draw, so that their memories stay the same."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        yield
        return
    seed = torch.randint(2**62, ())
    torch.distributed.broadcast(seed, 0)
    with torch.random.fork_rng():
        torch.manual_seed(int(seed))
        yield


# Method ------------------------------------------------------------------------------------------------------------


class CIRKD(Method):
    """Cross-image relational KD (Yang et al., CVPR 2022, eq. 4 to 12) on the classifier's input.

    Resize policy: the finer of the two maps is averaged over the cells of the coarser first, because the cost is
    quadratic in pixels; labels nearest to that grid.

    - Paper: pixel relations across the images of a batch, and to a pixel and a region memory; KD of weight 1 besides.
    - Released code: "the batch" is what one GPU holds, 2 images (1 for SegFormer: then no pair crosses images); the
      gather over GPUs is commented out. The pixel queue of a class holds whatever pixels are first in the image. The
      memory is filled before the loss, and starts as noise.
    - Here: pairs within groups of `group` images, so that a larger batch on one device means the same; `gather` takes
      the images of all ranks first (then `group=0` makes all pairs). The pixel queue holds pixels of its own class;
      `pixel_queue="as_released"` does as the code. An all-ignored batch gives 0, not NaN. KD is `kd`'s affair.
    """

    title = "CIRKD"
    source = "Yang et al., CVPR 2022, arXiv 2203.14883, eq. 4-12; winycg/CIRKD @2d8ad0f"
    version = 1
    variants = {
        "pixel queue as released": {"pixel_queue": "as_released"},
        "without memories": {"pixel_weight": 0.0, "region_weight": 0.0},
        "pairs across the whole batch": {"group": 0},
    }
    taps = ("pre_classifier",)

    minibatch_weight: NonNegativeFloat = 1.0
    pixel_weight: NonNegativeFloat = 0.1
    region_weight: NonNegativeFloat = 0.1
    tau: PositiveFloat = 0.1
    kd_tau: PositiveFloat = 1.0
    """Temperature of the memories' distillation, on top of `tau`."""
    group: NonNegativeInt = 2
    """Images are paired within groups of so many (0: all); "2 images per GPU" is part of the published method."""
    gather: bool = False
    """Pair the images of all ranks, not only of the own."""
    pool: bool = False
    """Average-pool 2x2 before the mini-batch relations, as in CIRKD's SegFormer script."""
    pixel_queue: Literal["own_class", "as_released"] = "own_class"
    pixel_memory: Annotated[int, Field(ge=2)] = 20_000
    region_memory: Annotated[int, Field(ge=2)] = 2_000
    pixel_update: PositiveInt = 16
    pixel_contrast: PositiveInt = 4096
    """A pixel is compared with `pixel_contrast // K + 1` remembered pixels per class."""
    region_contrast: PositiveInt = 1024

    project: nn.Sequential
    memory: Memory

    def build(self, student: Shapes, teacher: Shapes) -> dict[str, Part]:
        """`memory`, the queues; `project`, the student's head for the comparison with them."""
        if self.pixel_weight == 0 and self.region_weight == 0:
            return {}
        before, width = student["pre_classifier"].channels, teacher["pre_classifier"].channels
        classes = student["logits"].channels
        head = nn.Sequential(
            nn.Conv2d(before, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 1, bias=False),
        )
        memory = Memory(classes, width, self.pixel_memory, self.region_memory, self.pixel_update)
        return {"project": Part(head), "memory": Part(memory)}

    def losses(self, student: Taps, teacher: Taps, target: Tensor, step: int) -> dict[str, Tensor]:
        """`minibatch`, `pixel_memory` and `region_memory`, those with a weight."""
        size = coarser(student["pre_classifier"], teacher["pre_classifier"])
        f, t = pooled(student["pre_classifier"], size), pooled(teacher["pre_classifier"], size)
        terms: dict[str, Tensor] = {}
        if self.minibatch_weight > 0:
            student_maps, teacher_maps = (gathered(f), gathered(t)) if self.gather else (f, t)
            count = self.group or len(student_maps)
            groups = zip(student_maps.split(count), teacher_maps.split(count), strict=True)
            relations = [minibatch_relation(a, b, self.tau, self.pool) for a, b in groups]
            terms["minibatch"] = self.minibatch_weight * torch.stack(relations).mean()
        if self.parts:
            terms |= self.memory_terms(f.float(), unit_pixels(t), labels_on(target, size).flatten(1))
        return terms

    def memory_terms(self, student: Tensor, teacher: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The two memory terms, after the batch of all ranks has entered the memory.

        Args:
            student: a map (N, C, H, W), float32.
            teacher: unit vectors (N, H W, C').
            labels: (N, H W).
        """
        with drawing_alike():
            self.memory.enqueue(gathered(teacher), gathered(labels), self.pixel_queue)
        s, t, valid = (
            unit_pixels(self.project(student)).flatten(0, 1),
            teacher.flatten(0, 1),
            labels.flatten() != IGNORE,
        )
        terms: dict[str, Tensor] = {}
        for name, weight, queue, total in (
            ("pixel_memory", self.pixel_weight, self.memory.pixels, self.pixel_contrast),
            ("region_memory", self.region_weight, self.memory.regions, self.region_contrast),
        ):
            if weight > 0:
                classes, length, _ = queue.shape
                index = torch.randperm(length, device=queue.device)[: total // classes + 1]
                chosen = queue[:, index].flatten(0, 1)
                terms[name] = weight * memory_relation(s, t, chosen, valid, self.tau, self.kd_tau)
        return terms
