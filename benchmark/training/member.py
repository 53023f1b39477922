"""One run inside a cohort: its student, method, optimisers and state; it steps, saves and finishes on its own."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmark.core.environment import code_version
from benchmark.core.errors import KdsegError, one_line, unknown
from benchmark.core.files import append_line
from benchmark.core.weights import by_sha256
from benchmark.method import Method, Shapes, Taps
from benchmark.method.blocks import added
from benchmark.method.recipes import make_method
from benchmark.models import checkpoints
from benchmark.models.build import build_network
from benchmark.models.segmentation import Batch
from benchmark.records.areas import scores
from benchmark.records.record import Divergence, Result, Scores
from benchmark.records.run_directory import RunDirectory
from benchmark.runtime import distributed
from benchmark.runtime.clocks import Spent, Stopwatch
from benchmark.runtime.device import out_of_memory
from benchmark.runtime.parallel import with_shared_gradients, with_shared_statistics
from benchmark.runtime.randomness import stream
from benchmark.spec import definitions
from benchmark.spec.networks import TAPS, network
from benchmark.spec.runs import Run, run_recipe
from benchmark.training.distiller import Distiller
from benchmark.training.optim import build_optimizer, build_own_optimizer, build_schedules
from benchmark.training.tracking import Tracker


class Diverged(Exception):
    """A loss or gradient is not finite; the message says which."""


class DamagedResume(KdsegError):
    """A resume file that cannot be read; the run can go on from an older one."""

    def __init__(self, file: Path, reason: str) -> None:
        super().__init__(reason)
        self.file = file


class Member:
    """A run while it trains.

    Attributes:
        tracker: its way to wandb, from when its cohort trains.
        alive: False once it diverged; it then takes no more steps.
        iteration: how many iterations its weights have seen.
        prepared: how many batches the method's first stage has seen, and `ready` whether it is over.
        steps, alone: time the iterations, and what else no other run shares.
        earlier: what it spent in earlier attempts.
    """

    def __init__(self, run: Run, directory: RunDirectory, device: torch.device, files: Mapping[str, str]) -> None:
        self.run, self.directory, self.device = run, directory, device
        self.protocol = definitions.protocol(run.protocol)
        self.dataset = definitions.dataset(run.dataset)
        self.recipe = run_recipe(run)
        self.method = _build_method(run)
        self.student = _build_student(run, files)
        key = (run.seed, run.model)
        distiller = Distiller(self.student, self.method, key, self.protocol.avg_non_ignore).to(device)
        self.distiller = with_shared_statistics(distiller, device)
        self.losses_of: nn.Module = self.distiller
        self._build_optimisers()
        self.iteration = 0
        self.alive = True
        self.divergence: Divergence | None = None
        self.best: Scores | None = None
        self.curve: list[tuple[int, float]] = []
        self.areas: np.ndarray | None = None
        self.resumed_at: list[int] = []
        self.prepared, self.ready = 0, False
        self.steps, self.alone = Stopwatch(device), Stopwatch(device)
        self.earlier = Spent()
        self.images = ""
        self.code = [code_version()]
        self.tracker = Tracker()

    def _build_optimisers(self) -> None:
        own = {name: part for name, part in self.method.parts.items() if part.optimizer is not None}
        shared = {name: part.module for name, part in self.method.parts.items() if name not in own}
        together = nn.ModuleDict({"student": self.student, "method": nn.ModuleDict(shared)})
        self.shared = list(together.parameters())
        self.optimizer = build_optimizer(together, self.recipe.optim, self.run.precision)
        self.own = {name: build_own_optimizer(part.module, part.optimizer or {}) for name, part in own.items()}
        self.schedules = build_schedules(self.optimizer, self.recipe.optim, self.recipe.data.iterations)

    # Training --------------------------------------------------------------------------------------------------

    def share(self) -> None:
        """From now on all processes of the job take the same steps."""
        self.losses_of = with_shared_gradients(self.distiller)

    def step(self, batch: Batch, teacher: Taps) -> None:
        """One iteration; if it diverges the run leaves, with its weights as they were before."""
        with self.steps.running():
            try:
                self._update(batch, teacher)
            except Diverged as reason:
                self.alive = False
                self.divergence = Divergence(iteration=self.iteration + 1, reason=str(reason))
                self.optimizer.zero_grad()
            else:
                self.iteration += 1

    def _update(self, batch: Batch, teacher: Taps) -> None:
        self.distiller.train()
        losses = self._losses(batch, teacher)
        total = added(losses.values())
        self.optimizer.backward(self.optimizer.scale_loss(total))
        # The one wait for the device in a step: whether weights may change at all must be known before they do.
        if not torch.isfinite(torch.stack([total.detach(), *self._finish_gradients()])).all():
            _check(losses)
            raise Diverged("gradient is not finite")
        self.optimizer.step()
        for wrapper in self.own.values():
            wrapper.step()
        for schedule in self.schedules:
            schedule.step()
        for wrapper in (self.optimizer, *self.own.values()):
            wrapper.zero_grad()
        self.losses = {name: value.detach() for name, value in losses.items()}  # without the graph

    def _losses(self, batch: Batch, teacher: Taps) -> dict[str, Tensor]:
        """All losses.

        With several processes, what goes wrong in one is raised in all, before any of them waits for gradients.
        """
        if distributed.world() == 1:
            with self.optimizer.optim_context(self.losses_of):
                return self.losses_of(batch, teacher, self.iteration)
        problem = None
        try:
            with self.optimizer.optim_context(self.losses_of):
                losses = self.losses_of(batch, teacher, self.iteration)
            _check(losses)
        except Exception as error:
            if out_of_memory(error):
                raise
            problem = str(error) if isinstance(error, Diverged) else None, one_line(error)
        agreed = distributed.agree(problem)
        if agreed:
            diverged, message = agreed
            raise Diverged(diverged) if diverged else distributed.FailedTogether(message)
        return losses

    def _finish_gradients(self) -> list[Tensor]:
        """Clip gradients where a part or the recipe asks for it; returns the norms that must be finite.

        A loss scaler multiplies all gradients, skips the student's step if one overflows (so none must be finite), and
        divides those of the student's optimiser only: parts with an optimiser of their own are divided here, and left
        as they are in a step that overflows, which costs a wait for the device for each such part.
        """
        scaler = getattr(self.optimizer, "loss_scaler", None)
        norms = []
        for name, part in self.method.parts.items():
            parameters = _with_gradient(part.module.parameters())
            limit = part.clip_norm
            if scaler is not None and name in self.own:
                scale = scaler.get_scale()
                for parameter in parameters:
                    parameter.grad /= scale
                if not torch.isfinite(_norm(parameters)):
                    self.own[name].zero_grad()
                    continue
            elif scaler is not None and limit is not None:
                limit *= scaler.get_scale()
            if limit is not None and parameters:
                nn.utils.clip_grad_norm_(parameters, limit)
            if name in self.own and parameters:
                norms.append(_norm(parameters))
        shared = _with_gradient(self.shared)
        if self.recipe.optim.clip_norm:
            if scaler is not None:
                scaler.unscale_(self.optimizer.optimizer)
            norms.append(nn.utils.clip_grad_norm_(shared, self.recipe.optim.clip_norm))
        elif scaler is None:
            norms.append(_norm(shared))
        return norms if scaler is None else []

    def log_losses(self) -> None:
        """Append the last losses to `scalars.jsonl`."""
        values = distributed.averaged({name: float(value) for name, value in self.losses.items()})
        self._log({"iteration": self.iteration, "lr": self.optimizer.get_lr()["lr"][0], **values})

    def validated(self, areas: np.ndarray) -> None:
        """Take note of a validation; the best weights are kept."""
        metrics = scores(areas)
        names = self.dataset.classes
        iou = {name: None if np.isnan(value) else float(value) for name, value in zip(names, metrics.iou, strict=True)}
        current = Scores(iteration=self.iteration, miou=metrics.miou, macc=metrics.macc, aacc=metrics.aacc, iou=iou)
        self.last, self.areas = current, areas
        self.curve.append((self.iteration, metrics.miou))
        self._log({"iteration": self.iteration, "mIoU": metrics.miou})
        if self.best is None or current.miou > self.best.miou:
            self.best = current
            self.save_student("best.pth")

    def result(self) -> Result | None:
        """The scores, if the run came to its end."""
        if self.divergence or self.best is None:
            return None
        return Result(last=self.last, best=self.best, curve=tuple(self.curve))

    # Files -----------------------------------------------------------------------------------------------------

    def save_student(self, name: str) -> None:
        """Write the student alone, as a plain mmseg checkpoint."""
        if not self.directory.writable():
            return
        meta = {
            "iteration": self.iteration,
            "model": self.run.model,
            "dataset_meta": {"classes": list(self.dataset.classes), "palette": [list(c) for c in self.dataset.palette]},
        }
        checkpoints.save(self.directory.path / name, {"meta": meta, "state_dict": self.student.state_dict()})

    def save_resume(self, spent: Spent) -> None:
        """Write all that going on from here needs, and what it has spent; two generations are kept."""
        if not self.directory.writable():
            return
        state = {
            "run": self.run.id,
            "iteration": self.iteration,
            "student": self.student.state_dict(),
            "method": self.distiller.method_state(),
            "optimizer": self.optimizer.state_dict(),
            "own": {name: wrapper.state_dict() for name, wrapper in self.own.items()},
            "schedules": [schedule.state_dict() for schedule in self.schedules],
            "images": self.images,
            "code": self.code,
            "best": self.best.model_dump() if self.best else None,
            "curve": self.curve,
            "resumed_at": self.resumed_at,
            "prepared": (self.prepared, self.ready),
            "spent": asdict(spent),
        }
        checkpoints.save(self.directory.path / f"resume_{self.iteration}.pth", state)
        self.directory.prune_resume_files()

    def start(self, iteration: int) -> None:
        """Begin at an iteration: from a resume file, which the first has only after a stage of the method's own."""
        self.directory.trim_scalars(iteration)
        if iteration or iteration in self.directory.resume_files():
            self._load_resume(iteration)

    def _load_resume(self, iteration: int) -> None:
        file = self.directory.resume_files()[iteration]
        try:
            state = checkpoints.load(file)
        except KdsegError as error:
            raise DamagedResume(file, str(error)) from None
        if not isinstance(state, dict) or state.get("run") != self.run.id:
            raise DamagedResume(file, f"{file}: is no resume file of run {self.run.id}")
        try:
            self._restore(state, iteration)
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise DamagedResume(file, f"{file}: does not fit run {self.run.id}: {type(error).__name__}") from None

    def _restore(self, state: dict[str, Any], iteration: int) -> None:
        self.student.load_state_dict(state["student"])
        self.method.load_state_dict(state["method"])
        self.optimizer.load_state_dict(state["optimizer"])
        for name, wrapper in self.own.items():
            wrapper.load_state_dict(state["own"][name])
        for schedule, saved in zip(self.schedules, state["schedules"], strict=True):
            schedule.load_state_dict(saved)
        self.iteration = state["iteration"]
        self.images = state["images"]
        self.code = [*(tuple(each) for each in state["code"]), *self.code]
        self.best = Scores(**state["best"]) if state["best"] else None
        self.curve = [tuple(point) for point in state["curve"]]
        self.resumed_at = [*state["resumed_at"], iteration]
        self.prepared, self.ready = state["prepared"]
        self.earlier = Spent(**state["spent"])

    def check_images(self, images: str) -> None:
        """Refuse to go on with other training images (`images` is the hash of their list) than the run began with."""
        if self.images not in ("", images):
            raise KdsegError(
                f"run {self.run.id}: was begun on other images than this data root has; give the first root again, "
                "or --no-resume to start anew"
            )
        self.images = images

    def own_seconds(self) -> float:
        """What it took in this attempt that no other run shares."""
        return sum(self.steps.seconds()) + sum(self.alone.seconds())

    def _log(self, line: dict[str, Any]) -> None:
        if not self.directory.writable():
            return
        append_line(self.directory.path / "scalars.jsonl", json.dumps(line))
        self.tracker.log(line)


def _build_student(run: Run, files: Mapping[str, str]) -> nn.Module:
    """The student with the initial weights of (seed, model): the same for every method."""
    classes = len(definitions.dataset(run.dataset).classes)
    with stream(run.seed, "init", run.model):
        student = build_network(run.model, classes)
    if run.weights:
        checkpoints.load_backbone(student.backbone, by_sha256(files, run.weights))
    return student


def _build_method(run: Run) -> Method:
    classes = len(definitions.dataset(run.dataset).classes)
    method = make_method(run.method.name, run.method.hyper)
    for tap in method.taps:
        if tap not in TAPS:
            raise unknown("tap", tap, TAPS, f"method {run.method.name}")
    student = network(run.model).shapes(classes)
    teacher: Shapes = network(run.teacher.model).shapes(classes) if run.teacher else {}
    with stream(run.seed, "method-init", run.method.name):
        method.attach(student, teacher)
    return method


def _check(losses: Mapping[str, Tensor]) -> None:
    """Raise `Diverged` if a loss, or the sum of all, is not finite."""
    culprits = [name for name, value in losses.items() if not torch.isfinite(value)]
    if culprits or not torch.isfinite(added(losses.values())):
        raise Diverged(f"loss is not finite: {', '.join(culprits) or 'the sum'}")


def _with_gradient(parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    return [parameter for parameter in parameters if parameter.grad is not None]


def _norm(parameters: Sequence[nn.Parameter]) -> Tensor:
    return nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])


def trainable(module: nn.Module) -> int:
    """How many parameters of a module are trained."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
