"""Numbers that papers published, read from `results/published/`: the code itself holds none."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

from benchmark.errors import unknown
from benchmark.frozen import Frozen, parse, read_yaml

FOLDER = Path(__file__).parent.parent / "results" / "published"


class Claim(Frozen):
    """One published number.

    Attributes:
        where: its place in the paper.
        established: by the paper's own words, or by sources that quote it.
        unknown: what it would take to compare with it and is not known to us.
    """

    name: str
    where: str
    quantity: str
    value: float
    unit: Literal["points", "percent"]
    established: Literal["paper", "secondary"]
    unknown: str | None = None


class Publication(Frozen):
    """What one paper published; `datasets` are those it reports on."""

    paper: str
    citation: str
    arxiv: str
    datasets: tuple[str, ...]
    claims: tuple[Claim, ...]

    def claim(self, name: str) -> Claim:
        """The claim called `name`; an unknown one is an error with near matches."""
        found = {claim.name: claim for claim in self.claims}
        if name not in found:
            raise unknown("claim", name, found, self.paper)
        return found[name]


@cache
def publication(paper: str) -> Publication:
    """What is known to be published in `paper`.

    Raises:
        KdsegError: its file is missing or wrong.
    """
    path = FOLDER / f"{paper}.yaml"
    return parse(Publication, read_yaml(path), path.name)
