"""The command that trains a run again, as one would type it."""

from __future__ import annotations

import json
import shlex
from typing import Any

from benchmark.report.method_text import method_text
from benchmark.spec.runs import Run
from benchmark.spec.tuning import KEY, VALUE


def train_command(run: Run) -> str:
    """`kdseg train ...` for a run; what only the user knows (folders, weight files) is in capitals.

    Hyper-parameters at their defaults are left out, except those of recipes, whose defaults depend on the data set.
    """
    words = ["kdseg", "train", "--dataset", run.dataset, "--protocol", run.protocol, "--model", run.model]
    words += ["--method", run.method.name]
    text = method_text(run.method.name)
    defaults: dict[str, Any] = text.defaults if text else {}
    hyper = [f"{key}={_yaml(value)}" for key, value in run.method.hyper.items() if defaults.get(key) != value]
    words += ["--set", *hyper] if hyper else []
    if run.teacher:
        words += ["--teacher", run.teacher.id if run.teacher.kind == "run" else "CHECKPOINT"]
        words += [] if run.teacher.kind == "run" else ["--teacher-model", run.teacher.model]
    words += ["--weights", "WEIGHTS"] if run.weights else []
    overrides = {key: value for key, value in run.overrides.items() if (key, value) != (KEY, VALUE)}
    words += ["--cfg-options", *(f"{key}={_yaml(value)}" for key, value in overrides.items())] if overrides else []
    words += ["--select-on", VALUE] if overrides != run.overrides else []
    words += ["--amp"] if run.precision == "amp" else []
    return shlex.join([*words, "--seed", str(run.seed)])


def _yaml(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
