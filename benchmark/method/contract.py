"""The contract of a distillation method: one file in `baselines/` or `methods/` is one method.

A method is a `torch.nn.Module` whose annotated class attributes are its hyper-parameters:

    class CWD(Method):
        title = "CWD"
        source = "Shu et al., ICCV 2021, arXiv 2011.13256, eq. 4"
        version = 1
        taps = ("logits",)

        tau: PositiveFloat = 4.0
        weight: NonNegativeFloat = 3.0

        def losses(self, student, teacher, target, step):
            return {"cwd": self.weight * channel_kl(student["logits"], teacher["logits"], self.tau)}
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, get_origin

from pydantic import create_model
from torch import Tensor, nn

from benchmark.core.errors import KdsegError
from benchmark.core.schema import Frozen, parse
from benchmark.spec.networks import Pair, TapShape

Taps = Mapping[str, Tensor]
"""Named tensors of one network for one batch; which names there are is said in `benchmark.spec.networks.TAPS`."""

Shapes = Mapping[str, TapShape]
"""Tap -> `TapShape(channels=..., stride=...)` of one network (`logits` has as many channels as there are classes)."""


@dataclass(frozen=True)
class Part:
    """A module that a method adds: trained, counted, checkpointed, and left out of the exported student.

    Attributes:
        module: its parameters and buffers (a memory bank is a buffer).
        optimizer: an optimiser of its own, e.g. `{"type": "Adam", "lr": 4e-4}`, at a constant learning rate and
            without weight decay unless it says so; None: it shares the student's optimiser and schedule.
        clip_norm: clip the gradient norm of this part alone.
    """

    module: nn.Module
    optimizer: Mapping[str, Any] | None = None
    clip_norm: float | None = None


class Method(nn.Module, ABC):
    """What a student is taught with. Subclasses set the class variables and `losses`; the rest has defaults."""

    title: ClassVar[str]
    """Its name in tables."""
    source: ClassVar[str]
    """Paper, venue, equation; or repository and commit."""
    version: int
    """Raised by hand whenever its numbers change: old records then no longer answer for it."""
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Settings with a table name of their own, e.g. a control: name -> the hyper-parameters that differ."""
    needs_teacher: ClassVar[bool] = True
    """False: it has no teacher, and is handed empty shapes and taps for one."""

    def __init__(self, **hyper: Any) -> None:
        super().__init__()
        for name, value in self.validate(hyper).items():
            setattr(self, name, value)
        self.parts: dict[str, Part] = {}

    # What a method may define ----------------------------------------------------------------------------------

    @property
    def taps(self) -> tuple[str, ...]:
        """The taps it reads from both networks: a plain `taps = ("logits",)`, or a property of the hyper-parameters.

        `losses` is handed those that a network has: `aux_logits` only of one with an auxiliary head.
        """
        return ()

    def skip(self, pair: Pair) -> str | None:
        """Why this method cannot run on `pair`, for a person to read; None if it can."""
        return None

    def build(self, student: Shapes, teacher: Shapes) -> dict[str, Part]:
        """The parts it adds, by name; each becomes an attribute of that name. Called once, before training.

        A class says the type of such an attribute as `align: nn.Module`; that is no hyper-parameter.
        """
        return {}

    def prepare(self, teacher: nn.Module, batches: Iterable[tuple[Taps, Tensor]]) -> None:
        """Optional first stage on the frozen teacher; what it learns belongs in parameters or buffers of parts.

        The job may be stopped whenever the stage asks for a batch. It then goes on, in a new process, with the next
        one: how far it is belongs in a buffer too. Each batch begins a random stream of its own.

        Args:
            teacher: the network.
            batches: endless: the teacher's taps and the labels (N, H, W). Take as many as the stage needs.
        """

    @abstractmethod
    def losses(self, student: Taps, teacher: Taps, target: Tensor, step: int) -> dict[str, Tensor]:
        """The weighted loss terms of one step, by name; the harness adds their sum to the task loss.

        Args:
            student: its taps, float32, with gradient. (The conformance suite also hands over half precision: call
                `.float()` on what goes through a module.)
            teacher: its taps, float32, detached.
            target: labels (N, H, W), int64, `IGNORE` where they do not count.
            step: the iteration, from 0.
        """

    # What the harness calls ------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The name of the file that defines it."""
        return type(self).__module__.rpartition(".")[2]

    def attach(self, student: Shapes, teacher: Shapes) -> None:
        """Build the parts and register their modules.

        Raises:
            KdsegError: the networks tell different numbers of classes apart, or a part has a name that is taken.
        """
        classes = [shapes["logits"].channels for shapes in (student, teacher) if "logits" in shapes]
        if len(set(classes)) > 1:
            raise KdsegError(
                f"method {self.name}: the student tells {classes[0]} classes apart, the teacher {classes[1]}; "
                "a pair must be of one dataset"
            )
        self.channels = {
            who: {tap: shape.channels for tap, shape in shapes.items()}
            for who, shapes in (("student", student), ("teacher", teacher))
        }
        self.parts = self.build(student, teacher)
        for name, part in self.parts.items():
            if hasattr(self, name):
                raise KdsegError(f"method {self.name}: its part {name!r} needs another name, that one is taken")
            self.add_module(name, part.module)

    def terms(self, student: Taps, teacher: Taps, target: Tensor, step: int) -> dict[str, Tensor]:
        """What `losses` answers, once the shapes are what `attach` was told: torch would broadcast many that are not.

        Raises:
            KdsegError: a tap with other channels or another number of images than the labels, or labels that are no
                (N, H, W).
        """
        if target.dim() != 3:
            raise KdsegError(f"method {self.name}: labels are {tuple(target.shape)}, not (N, H, W)")
        for who, taps in (("student", student), ("teacher", teacher)):
            for tap, x in taps.items():
                expected = (len(target), self.channels[who].get(tap))
                if x.dim() != 4 or x.shape[:2] != expected:
                    raise KdsegError(
                        f"method {self.name}: {who}'s {tap} is {tuple(x.shape)}, not (N, C, H, W) with N = "
                        f"{expected[0]} as the labels and C = {expected[1]} as in benchmark/spec/networks.json"
                    )
        return self.losses(student, teacher, target, step)

    def hyper(self) -> dict[str, Any]:
        """All hyper-parameters with their values."""
        return {name: getattr(self, name) for name in self.defaults()}

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """All hyper-parameters with their default values."""
        return {name: getattr(cls, name) for name in cls.hyper_types()}

    @classmethod
    def validate(cls, hyper: Mapping[str, Any]) -> dict[str, Any]:
        """All hyper-parameters, defaults filled in.

        Raises:
            KdsegError: a name it does not have (with near matches), or a value of the wrong type or range.
        """
        fields = {name: (kind, getattr(cls, name)) for name, kind in cls.hyper_types().items()}
        # mypy takes the fields for create_model's own keywords as well, but those all begin with "__".
        model: type[Frozen] = create_model(cls.__name__, __base__=Frozen, **fields)  # type: ignore[call-overload]
        return parse(model, dict(hyper), f"method {cls.__module__.rpartition('.')[2]}").model_dump()

    @classmethod
    def variant(cls, hyper: Mapping[str, Any]) -> str:
        """The name of this setting in tables: the title, with what differs from the defaults."""
        changed = {name: value for name, value in cls.validate(hyper).items() if value != cls.defaults()[name]}
        for name, setting in cls.variants.items():
            if changed == dict(setting):
                return f"{cls.title}: {name}"
        if not changed:
            return cls.title
        return f"{cls.title} ({', '.join(f'{name}={value}' for name, value in changed.items())})"

    @classmethod
    def hyper_types(cls) -> dict[str, Any]:
        """The types of all hyper-parameters: the annotated attributes of its own classes but class variables, parts."""
        types: dict[str, Any] = {}
        for klass in reversed(cls.__mro__[: cls.__mro__.index(Method)]):
            for name, kind in inspect.get_annotations(klass, eval_str=True).items():
                part = isinstance(kind, type) and issubclass(kind, nn.Module)
                if get_origin(kind) is not ClassVar and kind is not ClassVar and not part:
                    types[name] = kind
        return types
