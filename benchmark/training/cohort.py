"""Runs that are at the same iteration and go on together; one student's activations at a time."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmark.core.errors import KdsegError, one_line
from benchmark.data.datasets import train_batches, train_dataset, val_dataset
from benchmark.data.staging import stage
from benchmark.method import Taps
from benchmark.method.grids import sharing
from benchmark.models import checkpoints
from benchmark.models.segmentation import Batch, Preprocessor
from benchmark.records.areas import write_areas
from benchmark.records.lease import LeaseLost
from benchmark.records.record import Record, State, TeacherCheck
from benchmark.records.run_directory import RunDirectory
from benchmark.runtime import distributed
from benchmark.runtime.clocks import Spent, Timing
from benchmark.runtime.device import out_of_memory
from benchmark.runtime.randomness import begin, stream
from benchmark.spec import definitions
from benchmark.spec.definitions import Normalisation
from benchmark.spec.runs import Job, Run
from benchmark.training.evaluation import Evaluated, evaluate
from benchmark.training.finish import cost, provenance
from benchmark.training.member import Member
from benchmark.training.preflight import check_agreement, check_counts, check_current
from benchmark.training.teacher import Teacher, load_teacher
from benchmark.training.teacher_check import check_teacher
from benchmark.training.tracking import tracker

_log = logging.getLogger(__name__)

HEARTBEAT_S = 2.0
CONSOLE_S = 15.0
LOG_INTERVAL = 10
"""Iterations between two lines of `scalars.jsonl`."""


class Interrupted(Exception):
    """The job was asked to stop; its runs can be resumed."""


class Cohort:
    """Runs that are at the same iteration and go on together."""

    def __init__(
        self,
        job: Job,
        runs: Sequence[Run],
        iteration: int,
        device: torch.device,
        stop: Callable[[], bool],
        directories: Mapping[str, RunDirectory],
    ) -> None:
        self.job, self.device, self.stop = job, device, stop
        self.started, self.timing = datetime.now(UTC).isoformat(timespec="seconds"), Timing(device)
        self.iteration = iteration
        check_agreement(runs)
        for run in runs:
            check_current(run)
        definition = definitions.dataset(runs[0].dataset)
        root = Path(job.data_root) if job.data_root else None
        if job.execution.stage and definition.layout == "files":
            root = stage(definition, root, Path(job.execution.stage))
        self.classes = len(definition.classes)
        self.teacher = load_teacher(job, runs, device)
        self.members = [Member(run, directories[run.id], device, job.files) for run in runs]
        for member in self.members:
            member.start(iteration)
        recipe = self.members[0].recipe.data
        distributed.share(recipe.batch)
        self.recipe, self.seed = recipe, runs[0].seed
        self.train_set = train_dataset(definition, recipe, root, self.seed)
        self.val_set = val_dataset(definition, root, recipe=recipe)
        if not job.off_protocol:
            check_counts(definition, self.train_set, self.val_set)
        for member in self.members:
            member.check_images(self.train_set.list_hash())
        self.normalisations = {member.protocol.normalisation for member in self.members}
        if self.teacher:
            self.normalisations.add(self.teacher.normalisation)
        self.taps = {name for member in self.members for name in member.method.taps}
        self.failures: list[str] = []
        self.teacher_check: TeacherCheck | None = None
        self.beaten, self.said = 0.0, time.perf_counter()

    @property
    def alive(self) -> list[Member]:
        """The members that still train."""
        return [member for member in self.members if member.alive]

    def train(self) -> list[str]:
        """Train to the end, evaluate, and write each run's record; returns a line per failed run."""
        for member in self.alive:
            folder, mode = member.directory.path, self.job.execution.wandb
            member.tracker = tracker(member.run, folder, mode, member.directory.writes)
        try:
            self._check_teacher()
            for member in self.alive:
                self._prepare(member)
                member.share()
            self._loop()
            for member in self.alive:
                self._finish(member)
        except (Interrupted, KeyboardInterrupt):
            self._leave(State.INTERRUPTED, "stopped; the same command resumes it")
            raise
        except Exception as error:
            smaller = len(self.members) > 1 and out_of_memory(error)
            message = distributed.lost(error) or one_line(error)
            self._leave(State.FAILED, f"{message}; a smaller --cohort goes on from here" if smaller else message)
            raise
        return self.failures

    def _check_teacher(self) -> None:
        if self.teacher:
            self._heartbeat(force=True)
            pupil = next(member for member in self.members if member.run.teacher)
            self.teacher_check = check_teacher(
                self.job, pupil.run, pupil.protocol, self.teacher, self.val_set, self.device, self._heartbeat
            )

    def _loop(self) -> None:
        self._heartbeat(force=True)
        for batches in self.batches():
            self.advance(batches)
            if self.iteration >= self.recipe.iterations or not self.alive:
                break

    def advance(self, batches: dict[Normalisation, Batch]) -> None:
        """One iteration of every run that is alive."""
        self._step_all(batches, self.teach(batches))
        self.iteration += 1
        self._after_iteration()

    def batches(self) -> Iterator[dict[Normalisation, Batch]]:
        """Endless training batches from the current iteration on, once per normalisation that is asked for."""
        preprocessors = {norm: Preprocessor(norm, self.recipe.crop, self.device) for norm in self.normalisations}
        raw = train_batches(
            self.train_set,
            self.recipe.batch,
            self.iteration,
            self.job.execution.workers,
            distributed.rank(),
            distributed.world(),
        )
        while True:
            with self.timing.data.shared([member.run.id for member in self.alive]):
                loaded = next(raw)
                batches = {norm: preprocessor.train(loaded) for norm, preprocessor in preprocessors.items()}
            yield batches

    def teach(self, batches: dict[Normalisation, Batch]) -> dict[str, Tensor]:
        """The teacher's taps for a batch: all that any member asks for."""
        pupils = [member.run.id for member in self.alive if member.run.teacher]
        if self.teacher is None or not pupils:
            return {}
        with self.timing.teacher.shared(pupils), stream(self.seed, "teacher", self.iteration):
            return self.teacher.taps(batches[self.teacher.normalisation].inputs, self.taps)

    def _step_all(self, batches: dict[Normalisation, Batch], teacher: Taps) -> None:
        with sharing([*teacher.values(), *(tensor for batch in batches.values() for tensor in batch)]) as forms:
            for member in self.alive:
                try:
                    member.step(batches[member.protocol.normalisation], teacher)
                except Exception as error:
                    if out_of_memory(error) or not distributed.in_all(error):
                        raise
                    self._fail(member, error)
                if forms.damaged():
                    raise KdsegError(
                        f"method {member.method.name}: changed a tensor in place that runs share; it must work on a "
                        "copy"
                    )
                if member.divergence:
                    self._finish(member)

    def _after_iteration(self) -> None:
        last = self.iteration >= self.recipe.iterations
        if self.iteration % LOG_INTERVAL == 0 or last:
            for member in self.alive:
                member.log_losses()
        due = [m for m in self.alive if last or self.iteration % m.protocol.val_interval == 0]
        if due:
            self._evaluate(due)
        stopping = distributed.any_rank(self.stop()) and not last
        if stopping or (not last and self.iteration % self.job.execution.checkpoint_interval == 0):
            self._save()
        if stopping:
            raise Interrupted
        self._heartbeat()
        self._say()

    def _prepare(self, member: Member) -> None:
        """The method's own first stage, on the frozen teacher, from where it was; a run that raises leaves."""
        if self.iteration or member.ready or self.teacher is None or not member.run.teacher:
            return
        try:
            with stream(self.seed, "prepare", member.method.name):
                member.method.prepare(self.teacher.network, self._stage(member, self.teacher))
        except (Interrupted, KdsegError):  # of the data, for instance
            raise
        except Exception as error:
            if out_of_memory(error) or distributed.world() > 1:
                raise
            self._fail(member, error)
        else:
            member.ready = True
            if member.prepared:
                member.save_resume(self._spent(member))

    def _stage(self, member: Member, teacher: Teacher) -> Iterator[tuple[Taps, Tensor]]:
        """The batches of a first stage; before the next one is given, what the last ones taught can be saved."""
        preprocessor = Preprocessor(teacher.normalisation, self.recipe.crop, self.device)
        for raw in train_batches(self.train_set, self.recipe.batch, member.prepared, 0):
            stopping = distributed.any_rank(self.stop())
            if stopping or (member.prepared and member.prepared % self.job.execution.checkpoint_interval == 0):
                member.save_resume(self._spent(member))
            if stopping:
                raise Interrupted
            self._heartbeat()
            begin(self.seed, "prepare", member.method.name, member.prepared)
            member.prepared += 1
            with member.alone.running():
                batch = preprocessor.train(raw)
                yield teacher.taps(batch.inputs, member.method.taps), batch.target

    def _evaluate(self, members: Sequence[Member]) -> None:
        if not members:
            return
        for size in sorted({member.protocol.val_batch for member in members}):
            some = [member for member in members if member.protocol.val_batch == size]
            ids = [member.run.id for member in some]
            areas = evaluate(
                {m.run.id: Evaluated(m.student, m.protocol.normalisation, m.protocol.val_parts, m.alone) for m in some},
                self.val_set,
                self.classes,
                size,
                self.job.execution.workers,
                self.device,
                self._heartbeat,
                partial(self.timing.validation.shared, ids),
            )
            for member in some:
                member.validated(areas[member.run.id])

    # What is written -------------------------------------------------------------------------------------------

    def _save(self) -> None:
        for member in self.alive:
            member.save_resume(self._spent(member))

    def _spent(self, member: Member) -> Spent:
        own = {each.run.id: each.own_seconds() for each in self.members}
        return self.timing.spent(member.run.id, own, member.earlier)

    def _heartbeat(self, force: bool = False) -> None:
        if not force and time.perf_counter() - self.beaten < HEARTBEAT_S:
            return
        self.beaten = time.perf_counter()
        seconds = self._seconds_per_iteration()
        for member in self.alive:
            member.directory.write_status(
                State.RUNNING, self.iteration, self.recipe.iterations, seconds_per_iteration=seconds or None
            )

    def _say(self) -> None:
        """Now and then a line with one short field per run."""
        if time.perf_counter() - self.said < CONSOLE_S or distributed.rank() > 0:
            return
        seconds = self._seconds_per_iteration()
        self.said = time.perf_counter()
        losses = "  ".join(f"{m.run.method.name} {float(sum(m.losses.values())):.3f}" for m in self.alive)
        eta = seconds * (self.recipe.iterations - self.iteration)
        done = f"iteration {self.iteration}/{self.recipe.iterations}"
        _log.info("%s  %.2f s/it  ETA %.0f s  loss: %s", done, seconds, eta, losses)

    def _seconds_per_iteration(self) -> float:
        """Of the whole cohort, lately (0 before the first)."""
        return self.timing.data.lately() + self.timing.teacher.lately() + sum(m.steps.lately() for m in self.alive)

    def _leave(self, state: State, message: str) -> None:
        for member in self.alive:
            with suppress(LeaseLost):
                member.directory.write_status(state, member.iteration, self.recipe.iterations, message=message)
            member.tracker.finish(state)

    def _fail(self, member: Member, error: Exception) -> None:
        """A member that raises leaves; the others go on unchanged."""
        member.alive = False
        message = one_line(error)
        self.failures.append(f"{member.run.method.variant} seed {member.run.seed} ({member.run.id}): {message}")
        member.directory.write_status(State.FAILED, member.iteration, self.recipe.iterations, message=message)
        member.tracker.finish(State.FAILED)

    def _finish(self, member: Member) -> None:
        """Areas and weights first, the record last: its presence is what "finished" means."""
        if member.directory.writable():
            self._write(member)
        result = member.result()
        scores = {"mIoU last": result.last.miou, "mIoU best": result.best.miou} if result else {}
        member.tracker.finish(State.DIVERGED if member.divergence else State.DONE, scores)
        member.alive = False

    def _write(self, member: Member) -> None:
        directory, result = member.directory, member.result()
        areas_sha256 = None
        if result is not None and member.areas is not None:
            member.save_student("student.pth")
            areas_sha256 = write_areas(directory.path / "areas.npz", self.val_set.names(), member.areas)
        directory.finish(
            Record(
                id=member.run.id,
                outcome=State.DIVERGED if member.divergence else State.DONE,
                inputs=member.run,
                iterations=member.divergence.iteration if member.divergence else self.iteration,
                result=result,
                divergence=member.divergence,
                cost=cost(member, self.timing, self._spent(member), self.device, len(self.members)),
                provenance=provenance(
                    self.job.execution,
                    self.device,
                    {"train": self.train_set, "val": self.val_set},
                    self.teacher.sha256 if self.teacher and member.run.teacher else None,
                    self.started,
                    tuple(member.resumed_at),
                    member.code,
                    self.teacher_check if member.run.teacher else None,
                    directory.lease.attempt if directory.lease else None,
                ),
                areas_sha256=areas_sha256,
                student_sha256=checkpoints.weights_hash(member.student) if result else None,
            ),
            self.recipe.iterations,
        )
