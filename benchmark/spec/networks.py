"""What is known of every network without building it: family, size, and the shape of each tap.

The facts are in `networks.json`, written by `kdseg analyze networks` from the built networks, and tested against them.
"""

from __future__ import annotations

from enum import StrEnum
from functools import cache

from benchmark.core.errors import unknown
from benchmark.core.paths import SPEC
from benchmark.core.schema import Frozen, parse, read_json

FACTS = SPEC / "networks.json"

TAPS = ("c1", "c2", "c3", "c4", "pre_classifier", "aux_logits", "logits")
"""Every tap: the backbone's four stages, the input of the classifier, the two outputs (at the head's resolution)."""


class Family(StrEnum):
    """The two kinds of architecture; a pair of both is heterogeneous."""

    CNN = "cnn"
    TRANSFORMER = "transformer"


class TapShape(Frozen):
    """Channels of a tap, and how many input pixels one of its cells spans per side."""

    channels: int
    stride: int


class Network(Frozen):
    """One network at `classes` and `size`: `parameters` and `gflops` of a forward pass are without its auxiliary head,
    which has `auxiliary_parameters`; `note` says what of it no source states, and why it is so.
    """

    name: str
    title: str
    family: Family
    parameters: int
    auxiliary_parameters: int = 0
    gflops: float
    classes: int
    size: tuple[int, int]
    taps: dict[str, TapShape]
    note: str = ""

    def shapes(self, classes: int) -> dict[str, TapShape]:
        """Its taps when it is built for `classes` classes."""
        outputs = {name: shape for name, shape in self.taps.items() if name.endswith("logits")}
        return self.taps | {name: TapShape(channels=classes, stride=shape.stride) for name, shape in outputs.items()}


class Pair(Frozen):
    """A student and the teacher it learns from."""

    student: Network
    teacher: Network

    @property
    def heterogeneous(self) -> bool:
        """Whether the two are of different families."""
        return self.student.family != self.teacher.family


class NetworkFacts(Frozen):
    """The content of `networks.json`."""

    networks: tuple[Network, ...]


@cache
def networks() -> dict[str, Network]:
    """All networks, by name."""
    facts = parse(NetworkFacts, read_json(FACTS), FACTS.name)
    return {network.name: network for network in facts.networks}


def network(name: str) -> Network:
    """The network called `name`.

    Raises:
        KdsegError: there is none (with near matches).
    """
    if name not in networks():
        raise unknown("model", name, networks())
    return networks()[name]


def flavoured(name: str, flavour: str) -> str:
    """The name of a network in a flavour: mmseg's is the bare name, another's is `name@flavour`."""
    return name if flavour == "mmseg" or "@" in name else f"{name}@{flavour}"
