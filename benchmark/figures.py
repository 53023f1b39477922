"""Figure 6: mIoU against HeteroAKD's two loss weights, from records. Data and caption lie beside each figure."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.errors import KdsegError
from benchmark.files import make_folder, write_bytes
from benchmark.frame import STUDENT, with_delta
from benchmark.frozen import content_hash
from benchmark.plots import Curves, Panel, draw
from benchmark.published import publication
from benchmark.store import State

if TYPE_CHECKING:
    import pandas as pd

    Rows = list[dict[str, Any]]

METHOD = "heteroakd"
AXES = ("lambda1", "lambda2")
CLAIM = "figure6_minimum_gain"
ENOUGH = 3


def figure6(frame: pd.DataFrame, folder: Path) -> list[Path]:
    """mIoU against λ1 and λ2: per pair a figure (PDF, PNG), its data (CSV) and its caption (text).

    The weight that is held fixed takes the value most runs have. λ = 0 is left out: without a term of the method
    it is a control, a row of the table, and a logarithmic axis has no place for it.

    Returns:
        The files written.

    Raises:
        KdsegError: no pair has results at two values of a weight.
    """
    found = _all_curves(frame)
    if not found:
        have = sorted({row["variant"] for row in frame.to_dict("records") if row["method"] == METHOD})
        raise KdsegError(
            f"figure 6: needs finished runs of {METHOD} on one pair with two or more values of lambda1 or lambda2 "
            f"(above 0, all else equal), for example `{{name: {METHOD}, lambda2: [1.0, 10.0]}}` in a sweep's methods; "
            f"there are: {', '.join(have) or 'none'}"
        )
    make_folder(folder)
    gain = publication(METHOD).claim(CLAIM).value
    files: dict[Path, bytes] = {}
    for curves in found:
        for suffix, content in draw(curves, gain).items():
            files[folder / f"{curves.name}.{suffix}"] = content
        files[folder / f"{curves.name}.csv"] = _data(curves).encode()
        files[folder / f"{curves.name}.txt"] = (caption(curves) + "\n").encode()
    for file, content in files.items():
        write_bytes(file, content)
    return list(files)


def caption(curves: Curves) -> str:
    """What a reader must know of the figure, in one paragraph."""
    published, row = publication(METHOD), curves.rows[0]
    claim, seeds = published.claim(CLAIM), ", ".join(map(str, curves.seeds)) or "none"
    fixed = " and ".join(f"against {panel.axis} at {panel.other} = {panel.fixed:g}" for panel in curves.panels)
    parts = [
        f"HeteroAKD, mIoU {fixed}: our reconstruction of the paper's {claim.where}, whose axes are not known to us. "
        f"{row['teacher']} → {row['student']}, {row['dataset']}, protocol {row['protocol']}, "
        f"{max(row['iterations'] for row in curves.rows)} iterations.",
        "mIoU of the last iteration in percent, by mmseg's convention. Each circle is one training; the line is the "
        f"mean over the seeds that all settings have (n = {len(curves.seeds)}: {seeds}), the band their range from "
        "lowest to highest. One teacher, so no band holds any variance between teachers.",
    ]
    if curves.students:
        parts.append(
            f"Dashed: the student alone, mean and range of the same seeds. Dotted: that mean + {claim.value:g}, the "
            f"paper's {claim.quantity}."
        )
    else:
        parts.append("The student alone has not finished with all of these seeds: it has no line.")
    parts.append(f"Settings: {'; '.join(dict.fromkeys(row['variant'] for row in curves.rows))}.")
    if row["overrides"]:
        parts.append(
            "Recipe with " + ", ".join(f"{key}={value}" for key, value in sorted(row["overrides"].items())) + "."
        )
    diverged = [f"{row['variant']}, seed {row['seed']}" for row in curves.rows if row["reason"]]
    if diverged:
        parts.append(f"Diverged (crosses; the line breaks there): {'; '.join(diverged)}.")
    if row["dataset"] not in published.datasets:
        parts.append("This is none of the paper's datasets: the figure says nothing about the paper's claim.")
    if len(curves.seeds) < ENOUGH:
        parts.append(f"No conclusion can be drawn from fewer than {ENOUGH} seeds.")
    return " ".join([*parts, "A weight of 0 is a control, not a setting of the method: it is in the table, not here."])


def _all_curves(frame: pd.DataFrame) -> list[Curves]:
    rows = [row for row in with_delta(frame).to_dict("records") if row["outcome"] in (State.DONE, State.DIVERGED)]
    groups: dict[str, Rows] = {}
    for row in rows:
        if row["method"] == METHOD and all(row["hyper"].get(axis, 0) > 0 for axis in AXES):
            rest = {key: value for key, value in row["hyper"].items() if key not in AXES}
            same = ("setting_key", "teacher_model", "teacher_id", "method_version")
            groups.setdefault(content_hash([*(row[name] for name in same), rest]), []).append(row)
    panels = {key: found for key, group in groups.items() if (found := _panels(group))}
    stems = {key: _stem(groups[key][0]) for key in panels}
    names = {key: stem + (f"_{key[:6]}" if list(stems.values()).count(stem) > 1 else "") for key, stem in stems.items()}
    return [_curves(names[key], panels[key], rows) for key in sorted(panels, key=names.__getitem__)]


def _curves(name: str, panels: tuple[Panel, ...], rows: Rows) -> Curves:
    attempted = [set(runs) for panel in panels for runs in panel.runs.values()]
    seeds = tuple(sorted(set.intersection(*attempted)))
    first = next(iter(panels[0].runs.values()))
    setting = next(iter(first.values()))["setting_key"]
    alone = {
        row["seed"]: row["miou_last"]
        for row in sorted(rows, key=lambda row: row["method_version"])
        if row["method"] == STUDENT and row["setting_key"] == setting and not row["reason"]
    }
    students = {seed: alone[seed] for seed in seeds} if set(seeds) <= set(alone) else {}
    return Curves(name, panels, seeds, students)


def _panels(group: Rows) -> tuple[Panel, ...]:
    """A panel for each weight that has results at two values or more, the other one held where most of them are."""
    panels = []
    for axis, other in (AXES, AXES[::-1]):
        lines: dict[float, dict[float, dict[int, dict[str, Any]]]] = {}
        for row in sorted(group, key=lambda row: row["hyper"][axis]):
            line = lines.setdefault(row["hyper"][other], {})
            line.setdefault(row["hyper"][axis], {})[row["seed"]] = row
        defaults = {row["hyper"][other] for row in group if not set("(:") & set(row["variant"])}
        # In a full grid all lines are as long: then the one through the method's default setting.
        fixed = max(sorted(lines), key=lambda value: (len(lines[value]), value in defaults))
        finished = [runs for runs in lines[fixed].values() if not all(row["reason"] for row in runs.values())]
        if len(finished) > 1:
            panels.append(Panel(axis, other, fixed, lines[fixed]))
    return tuple(panels)


def _stem(row: dict[str, Any]) -> str:
    return f"figure6_{row['dataset']}_{row['protocol']}_{row['teacher_model']}_{row['model']}"


def _data(curves: Curves) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["panel", "value", "fixed", "fixed_value", "seed", "in_mean", "miou", "delta", "outcome", "run"])
    for panel in curves.panels:
        for value, runs in panel.runs.items():
            averaged = bool(curves.mious(runs))
            for seed, row in sorted(runs.items()):
                numbers = ["" if row[name] != row[name] else repr(row[name]) for name in ("miou_last", "delta")]
                counts = averaged and seed in curves.seeds
                line = [panel.axis, f"{value:g}", panel.other, f"{panel.fixed:g}", seed, counts]
                writer.writerow([*line, *numbers, row["outcome"], row["id"]])
    for seed, miou in curves.students.items():
        writer.writerow([STUDENT, "", "", "", seed, True, repr(miou), "", State.DONE, ""])
    return stream.getvalue()
