"""The state of sweeps on a terminal: a line per method of each pair, and below it only what needs attention."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from benchmark.results.entries import variant_order
from benchmark.spec.networks import network
from slurm.states import At, Cause, RunState

GLYPHS = {
    At.DONE: ("●", "green"),
    At.RUNNING: ("◐", "cyan"),
    At.QUEUED: ("○", ""),
    At.WAITING: ("·", "dim"),
    At.STOPPED: ("◌", ""),
    At.STALE: ("?", "yellow"),
    At.DIVERGED: ("~", "red"),
    At.FAILED: ("✗", "bold red"),
}
SHOWN = 8
"""How many different problems are spelled out."""


def overview(title: str, states: Sequence[RunState], retry: str = "") -> RenderableType:
    """A block per pair with a glyph per run (seed), the legend, and what needs attention.

    Args:
        title: of the whole.
        states: of all runs.
        retry: the command that launches failed runs again, to which the causes are added; empty: there is none.
    """
    parts: list[RenderableType] = [Text(f"{title}: {_counts(states)}", "bold"), Text()]
    for name, group in _by_pair(states).items():
        parts += [_block(name, group), Text()]
    present = {state.at for state in states}
    parts.append(Text("  ").join(Text(f"{mark} {at}", style) for at, (mark, style) in GLYPHS.items() if at in present))
    problems = _problems(states)
    for index, (line, group) in enumerate(problems.items()):
        if index == SHOWN:
            parts.append(Text(f"\nand {len(problems) - SHOWN} other problems; --all shows every run", "red"))
            break
        parts += [Text(), _problem(line, group)]
    causes = sorted({str(s.cause or s.at) for s in states if s.at in (At.FAILED, At.DIVERGED)} - {Cause.CANCELLED})
    if retry and causes:
        parts += [Text(), Text(f"again: {retry} --failed {','.join(causes)}")]
    return Group(*parts)


def every_run(states: Iterable[RunState]) -> RenderableType:
    """A line per run: id, what it is, how far, and the message below where there is one."""
    lines: list[RenderableType] = []
    for state in states:
        mark, style = GLYPHS[state.at]
        run = state.run
        line = Text.assemble((f"{mark} ", style), state.id, "  ", (_progress(state), style), "  ")
        taught = f"{run.teacher.model} → " if run.teacher else ""
        line.append(f"{run.method.variant}, seed {run.seed}, {taught}{run.model}")
        line.no_wrap, line.overflow = True, "ellipsis"
        lines.append(line)
        if state.message:
            lines.append(Text(f"  {state.message}", "dim"))
    return Group(*lines)


def _block(name: str, group: Sequence[RunState]) -> RenderableType:
    """A pair's methods; one line if all its runs are at the same, and are many."""
    if len({state.at for state in group}) == 1 and len(group) > 3:
        mark, style = GLYPHS[group[0].at]
        return Text.assemble((name, "bold"), "\n", (f"  {mark} all {len(group)} {group[0].at}", style))
    cells: dict[str, list[RunState]] = {}
    for state in group:
        cells.setdefault(_label(state), []).append(state)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    for _ in range(3):
        table.add_column(overflow="ellipsis", no_wrap=True)
    for label, cell in cells.items():
        marks = Text().join(Text(*GLYPHS[state.at]) for state in cell)
        table.add_row(Text(f"  {label}"), marks, _cell(cell))
    return Group(Text(name, "bold"), table)


def _label(state: RunState) -> str:
    run = state.run
    return run.method.variant if run.teacher else network(run.model).title


def _cell(cell: Sequence[RunState]) -> Text:
    """The mean of what is done, or how far the last one is that runs, or why the first one waits."""
    mious = [state.miou for state in cell if state.miou is not None]
    parts = [f"mIoU {sum(mious) / len(mious):.2f}" if mious else ""]
    running = [state for state in cell if state.at is At.RUNNING]
    queued = [state for state in cell if state.at is At.QUEUED]
    if running:
        parts.append(_progress(min(running, key=lambda state: state.iteration)))
    elif queued:
        parts.append(queued[0].message.partition(":")[0])
    return Text(", ".join(part for part in parts if part), "dim")


def _progress(state: RunState) -> str:
    """How far a run is, in a few characters."""
    if state.miou is not None:
        return f"mIoU {state.miou:.2f}"
    if not state.iterations:
        return state.message if state.at is At.RUNNING else str(state.at)
    left = f", {duration(state.eta_s)} left" if state.eta_s is not None and state.at is At.RUNNING else ""
    beat = f", seen {duration(state.heartbeat_s)} ago" if state.heartbeat_s and state.heartbeat_s > 10 else ""
    return f"{state.iteration:,}/{state.iterations:,}{left}{beat}"


def _by_pair(states: Iterable[RunState]) -> dict[str, list[RunState]]:
    """Runs by the pair they belong to, in the order of tables; before them networks that learn alone."""
    pairs: dict[str, list[RunState]] = {}
    for state in sorted(states, key=_order):
        run = state.run
        pair = f"{network(run.teacher.model).title} → {network(run.model).title}" if run.teacher else "no teacher"
        pairs.setdefault(f"{run.dataset}, {run.protocol}: {pair}", []).append(state)
    return pairs


def _order(state: RunState) -> tuple[Any, ...]:
    run = state.run
    taught = run.teacher.model if run.teacher else ""
    return (run.dataset, run.protocol, taught, run.model, variant_order(run.method.name, run.method.variant), run.seed)


def _problems(states: Iterable[RunState]) -> dict[str, list[RunState]]:
    """Runs that need somebody, by what is wrong with them."""
    problems: dict[str, list[RunState]] = {}
    for state in states:
        if state.attention:
            kind = f"{state.at} ({state.cause})" if state.cause else str(state.at)
            problems.setdefault(f"{kind}: {state.message}", []).append(state)
    return problems


def _problem(line: str, group: Sequence[RunState]) -> RenderableType:
    first = group[0]
    which = f"{first.run.method.variant}, seed {first.run.seed}, run {first.id}"
    more = f" and {len(group) - 1} more" if len(group) > 1 else ""
    text = Text.assemble((line, GLYPHS[first.at][1]), f"\n  {which}{more}")
    return Group(text, Text(f"  log {first.log}", overflow="fold")) if first.log else text


def _counts(states: Iterable[RunState]) -> str:
    counts = Counter(state.at for state in states)
    total = sum(counts.values())
    return f"{total} runs: " + ", ".join(f"{counts[at]} {at}" for at in At if counts[at]) if total else "no runs"


def duration(seconds: float) -> str:
    """Seconds as `40 s`, `12 min`, `3.5 h` or `2.1 d`."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.{0 if unit == 'min' else 1}f} {unit}"
    return f"{seconds:.0f} s"
