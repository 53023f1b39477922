"""Records as one tidy table, one row a run: what statistics, tables and figures are functions of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from benchmark.core.errors import KdsegError
from benchmark.core.schema import content_hash
from benchmark.records.record import Record, State
from benchmark.spec import definitions
from benchmark.spec.methods import STUDENT
from benchmark.spec.networks import network
from benchmark.spec.runs import Manifest, Run, Skipped
from benchmark.spec.tuning import tuning

if TYPE_CHECKING:
    import pandas as pd


MISSING, SKIPPED = "missing", "skipped"
"""The outcomes of rows that stand for a run without a record, and for a cell that no run can fill."""

INPUTS = (
    "id",
    "outcome",
    "reason",
    "dataset",
    "dataset_hash",
    "protocol",
    "protocol_hash",
    "model",
    "student",
    "student_family",
    "weights",
    "teacher_model",
    "teacher",
    "teacher_family",
    "teacher_kind",
    "teacher_id",
    "heterogeneous",
    "method",
    "method_version",
    "variant",
    "note",
    "hyper",
    "seed",
    "precision",
    "overrides",
    "off_protocol",
    "harness",
    "setting_key",
    "cell_key",
    "delta_key",
)
SCORES = ("miou_last", "miou_best", "best_iteration", "macc", "aacc", "iterations", "diverged_at", "curve", "iou")
COSTS = (
    "step_s",
    "teacher_s",
    "data_s",
    "iteration_s",
    "wall_s",
    "share_s",
    "single_s",
    "gpu_s",
    "memory_mb",
    "parameters",
    "extra_parameters",
    "cohort",
    "devices",
)
ORIGIN = ("commit", "dirty", "device", "processor", "started")
COLUMNS = (*INPUTS, *SCORES, *COSTS, *ORIGIN, "images", "teacher_miou", "teacher_published", "teacher_off")
_DELTA = ("method", "method_version", "outcome", "reason", "seed", "miou_last", "images", "delta_key")
"""What Δ is made from."""
_DTYPES = {
    "Int64": (
        "method_version",
        "seed",
        "harness",
        "best_iteration",
        "iterations",
        "diverged_at",
        "parameters",
        "extra_parameters",
        "cohort",
        "devices",
    ),
    "float64": (
        "miou_last",
        "miou_best",
        "macc",
        "aacc",
        "step_s",
        "teacher_s",
        "data_s",
        "iteration_s",
        "wall_s",
        "memory_mb",
        "share_s",
        "single_s",
        "gpu_s",
        "teacher_miou",
        "teacher_published",
    ),
    "boolean": ("heterogeneous", "dirty", "off_protocol", "teacher_off"),
}


def records_frame(records: Sequence[Record]) -> pd.DataFrame:
    """One row per finished run, in the order of run ids, with the columns `COLUMNS`.

    mIoU, mAcc and aAcc in percent (NaN for a diverged run, whose `reason` says so); `*_s` in seconds, `iteration_s`
    what one iteration costs as a single run; `memory_mb` in MB. `hyper`, `overrides` and `iou` (class -> percent, None
    for an empty union) hold dicts, `curve` the (iteration, mIoU) of every validation. `teacher_miou` is what the gate
    found of the teacher. `setting_key` is equal for all that is measured against the same student: `delta_key` without
    the seed.

    Raises:
        KdsegError: a run that is there twice, a model that is unknown, a finished run without a result.
    """
    seen: set[str] = set()
    for record in records:
        if record.id in seen:
            raise KdsegError(f"record {record.id}: is there twice; leave out one of the two copies")
        seen.add(record.id)
        if record.outcome is State.DONE and record.result is None:
            raise KdsegError(f"record {record.id}: says that it is done, but has no result")
    return _typed([_record_columns(record) for record in sorted(records, key=lambda record: record.id)])


def with_missing(
    frame: pd.DataFrame, manifests: Iterable[Manifest], reason: Callable[[str], str] | None = None
) -> pd.DataFrame:
    """`frame` with a row for every run of the sweeps that has no record, and for every cell they skip.

    Such a row has no scores, `outcome` is `missing` or `skipped`, and `reason` says why: what the argument of that name
    answers for the run's id ("not run" without it).
    """
    import pandas as pd

    known = set(frame["id"])
    rows: dict[str, dict[str, Any]] = {}
    for manifest in manifests:
        for run in manifest.runs:
            if run.id not in known:
                why = " ".join(reason(run.id).split()) if reason else ""
                rows[run.id] = run_columns(run) | {"id": run.id, "outcome": MISSING, "reason": why or "not run"}
        for skip in manifest.skips if manifest.runs else ():
            row = _skip_columns(skip, manifest)
            rows[row["id"]] = row
    return pd.concat([frame, _typed(list(rows.values()))], ignore_index=True) if rows else frame.copy()


def with_delta(frame: pd.DataFrame) -> pd.DataFrame:
    """`frame` with `delta`: mIoU (last) minus that of the `student` run with the same `delta_key`, in points.

    Where there is none it is NaN, and `delta_reason` says why. Should students of two versions answer, the newer does.
    """
    import pandas as pd

    rows = frame_rows(frame[list(_DELTA)])
    alone = students(rows)
    reasons = [_delta_reason(row, alone) for row in rows]
    deltas = [
        float("nan") if reason else row["miou_last"] - alone[row["delta_key"]]["miou_last"]
        for row, reason in zip(rows, reasons, strict=True)
    ]
    return frame.assign(
        delta=pd.Series(deltas, index=frame.index, dtype="float64"),
        delta_reason=pd.Series(reasons, index=frame.index, dtype=object),
    )


def frame_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a frame as dicts of plain values, faster than pandas' own `to_dict`."""
    import pandas as pd

    names = [str(name) for name in frame]
    columns = [[None if value is pd.NA else value for value in frame[name].tolist()] for name in names]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def students(rows: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The rows of the students alone by `delta_key`; of two versions, the newer."""
    own = [row for row in rows if row["method"] == STUDENT and row["outcome"] != SKIPPED]
    return {row["delta_key"]: row for row in sorted(own, key=lambda row: row["method_version"])}


def run_columns(run: Run) -> dict[str, Any]:
    """The columns that are known of a run before it has run (`INPUTS` but `id`, `outcome` and `reason`)."""
    student = network(run.model)
    teacher = network(run.teacher.model) if run.teacher else None
    keys = run.keys
    return {
        "dataset": run.dataset,
        "dataset_hash": run.dataset_hash,
        "protocol": run.protocol,
        "protocol_hash": run.protocol_hash,
        "model": run.model,
        "student": student.title,
        "student_family": str(student.family),
        "weights": run.weights,
        "teacher_model": run.teacher.model if run.teacher else None,
        "teacher": teacher.title if teacher else None,
        "teacher_family": str(teacher.family) if teacher else None,
        "teacher_kind": run.teacher.kind if run.teacher else None,
        "teacher_id": run.teacher.id if run.teacher else None,
        "heterogeneous": student.family != teacher.family if teacher else None,
        "method": run.method.name,
        "method_version": run.method.version,
        "variant": run.method.variant,
        "note": run.method.note or None,
        "hyper": dict(run.method.hyper),
        "seed": run.seed,
        "precision": run.precision,
        "overrides": dict(run.overrides),
        "off_protocol": "data.batch" in run.overrides,
        "harness": run.harness,
        "setting_key": keys.setting,
        "cell_key": keys.cell,
        "delta_key": keys.delta,
    }


def _record_columns(record: Record) -> dict[str, Any]:
    cost, origin, divergence = record.cost, record.provenance, record.divergence
    result = record.result if record.outcome is State.DONE else None
    columns = run_columns(record.inputs)
    columns |= {
        "id": record.id,
        "outcome": str(record.outcome),
        "reason": _divergence_text(record) if result is None else None,
        "iterations": record.iterations,
        "diverged_at": divergence.iteration if divergence else None,
        "iteration_s": cost.step_s + cost.teacher_s + cost.data_s,
        **{name: getattr(cost, name) for name in COSTS if name != "iteration_s"},
        **{name: getattr(origin, name) for name in ORIGIN},
        "off_protocol": columns["off_protocol"] or _other_counts(record),
        "teacher_miou": origin.teacher_check.miou if origin.teacher_check else None,
        "teacher_published": origin.teacher_check.published if origin.teacher_check else None,
        "teacher_off": origin.teacher_check.off if origin.teacher_check else None,
        "images": " ".join(f"{split}:{origin.list_hashes[split]}" for split in sorted(origin.list_hashes)),
    }
    if result is not None:
        columns |= {
            "miou_last": result.last.miou,
            "miou_best": result.best.miou,
            "best_iteration": result.best.iteration,
            "curve": result.curve,
            "iou": result.last.iou,
            "macc": result.last.macc,
            "aacc": result.last.aacc,
        }
    return columns


def _other_counts(record: Record) -> bool:
    """Whether it was trained or validated on another number of images than the data set officially has.

    Tuning runs split the training images themselves.
    """
    if tuning(record.inputs):
        return False
    splits = definitions.dataset(record.inputs.dataset).splits
    official: dict[str, int] = {name: split.count for name, split in splits.items()}
    return any(official[name] != count for name, count in record.provenance.images.items())


def _typed(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """A frame whose column types do not depend on what is in it; text and dict columns have None for nothing."""
    import pandas as pd

    # Column by column: a frame of objects keeps None and dicts as they are, where inference would not.
    columns = {name: pd.Series([row.get(name) for row in rows], dtype=object) for name in COLUMNS}
    return pd.DataFrame(columns).astype({name: dtype for dtype, names in _DTYPES.items() for name in names})


def _skip_columns(skip: Skipped, manifest: Manifest) -> dict[str, Any]:
    """A row for a skipped cell, in the setting of its student's runs in the same sweep."""
    own = [run for run in manifest.runs if run.model == skip.student]
    base = (own or list(manifest.runs))[0].model_copy(update={"model": skip.student, "teacher": None})
    sources = [run.teacher.id for run in own if run.teacher and run.teacher.model == skip.teacher]
    sources += [run.id for run in manifest.runs if run.model == skip.teacher and run.method.name == STUDENT]
    columns = run_columns(base)
    key = content_hash([columns["setting_key"], skip.model_dump()])
    return columns | {
        "id": f"skipped-{key}",
        "outcome": SKIPPED,
        "reason": f"skipped: {skip.reason}",
        "teacher_model": skip.teacher,
        "teacher": network(skip.teacher).title,
        "teacher_family": str(network(skip.teacher).family),
        "teacher_kind": "run" if sources else None,
        "teacher_id": sources[0] if sources else None,
        "heterogeneous": network(skip.student).family != network(skip.teacher).family,
        "method": skip.method,
        "method_version": None,
        "variant": skip.variant,
        "hyper": {},
        "seed": None,
        "cell_key": key,
        "delta_key": None,
    }


def _delta_reason(row: dict[str, Any], students: dict[str, dict[str, Any]]) -> str | None:
    student = students.get(row["delta_key"])
    if row["method"] == STUDENT:
        return "it is the student alone"
    if row["reason"]:
        return row["reason"]
    if student is None:
        return f"student alone, seed {row['seed']}: no record"
    if student["reason"]:
        return f"student alone, seed {row['seed']}: {student['reason']}"
    return None if row["images"] == student["images"] else f"student alone, seed {row['seed']}: other images"


def _divergence_text(record: Record) -> str:
    if record.divergence is None:
        return str(record.outcome)
    return f"diverged at iteration {record.divergence.iteration} ({record.divergence.reason})"
