"""From a sweep file to runs and jobs. Reads definitions and method files; trains nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from benchmark.core.errors import KdsegError, unknown
from benchmark.core.paths import SWEEPS
from benchmark.core.schema import Frozen, canonical, parse, read_yaml
from benchmark.core.weights import find_weights, register
from benchmark.method.recipes import make_method, method_setting, recipe_note
from benchmark.spec import definitions
from benchmark.spec.definitions import TrainingRecipe
from benchmark.spec.methods import STUDENT
from benchmark.spec.networks import Pair, network
from benchmark.spec.runs import (
    Execution,
    Job,
    Manifest,
    MethodSetting,
    Run,
    Skipped,
    TeacherSource,
    cohort_key,
    make_run,
    run_recipe,
)

FILTERS: dict[str, Callable[[Run], str]] = {
    "method": lambda run: run.method.name,
    "student": lambda run: run.model,
    "teacher": lambda run: run.teacher.model if run.teacher else "",
    "seed": lambda run: str(run.seed),
    "dataset": lambda run: run.dataset,
    "protocol": lambda run: run.protocol,
}
"""What `--only` can ask of a run."""


class SweepPair(Frozen):
    """A pair of a sweep; the teacher is trained by its own run unless `checkpoint` names its weights.

    `teacher_miou` is what was published of it, in percent; a run that finds another value warns
    (`benchmark.training.teacher_check`).
    """

    student: str
    teacher: str
    checkpoint: str | None = None
    teacher_miou: float | None = None


class SweepPart(Frozen):
    """More cells of a sweep: another product, with the sweep's own pairs, methods or seeds where it names none."""

    pairs: Annotated[tuple[SweepPair, ...], Field(min_length=1)] | None = None
    methods: Annotated[tuple[str | dict[str, Any], ...], Field(min_length=1)] | None = None
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] | None = None


class Exclusion(Frozen):
    """Cells that a sweep leaves out: those of which all that is named here holds; a list means any of its values."""

    method: str | tuple[str, ...] = ()
    student: str | tuple[str, ...] = ()
    teacher: str | tuple[str, ...] = ()
    seed: int | tuple[int, ...] = ()

    def fits(self, method: str, pair: SweepPair, seed: int) -> bool:
        """Whether a cell is left out."""
        values = {"method": method, "student": pair.student, "teacher": pair.teacher, "seed": seed}
        named = {key: value if isinstance(value, tuple) else (value,) for key, value in self if value != ()}
        return bool(named) and all(values[key] in allowed for key, allowed in named.items())


class Sweep(Frozen):
    """The content of a sweep file: the product of pairs, methods and seeds, and of each part of `include`.

    Attributes:
        include: further products; a cell that is in two is planned once.
        exclude: cells that are left out of all of them.
        methods: names, or `{name: ..., hyper-parameter: value}`, where a list of values is an axis of the grid.
        teacher_seed: the seed of the one teacher run that every seed of a pair learns from.
        weights: model -> file with its initial (ImageNet) backbone weights, below the weights folder.
        overrides: changes to the protocol's recipe, as `--cfg-options` takes them.
    """

    name: Annotated[str, Field(pattern=r"^\w[\w.-]*$")]
    dataset: str
    protocol: str
    pairs: Annotated[tuple[SweepPair, ...], Field(min_length=1)]
    methods: Annotated[tuple[str | dict[str, Any], ...], Field(min_length=1)]
    seeds: Annotated[tuple[int, ...], Field(min_length=1)]
    include: tuple[SweepPart, ...] = ()
    exclude: tuple[Exclusion, ...] = ()
    teacher_seed: int = 0
    precision: Literal["fp32", "amp"] = "fp32"
    weights: dict[str, str] = {}
    overrides: dict[str, Any] = {}


@dataclass(frozen=True)
class Plan:
    """A sweep's manifest, the paths of the weight files its runs name by sha256, and published mIoU of its teachers."""

    manifest: Manifest
    files: dict[str, str]
    teacher_miou: dict[str, float]

    def restricted(self, runs: Sequence[Run]) -> Plan:
        """The same plan with some of its runs."""
        return replace(self, manifest=self.manifest.model_copy(update={"runs": tuple(runs)}))


def load_sweep(path: Path) -> Sweep:
    """Read and check a sweep file; an unknown key is an error with near matches."""
    return parse(Sweep, read_yaml(path), path.name)


def sweep_file(name: str) -> Path:
    """The file of a sweep that is named by its path, or by its name in `slurm/sweeps/`.

    Raises:
        KdsegError: there is none of that name (with near matches).
    """
    if name.endswith((".yaml", ".yml")):
        return Path(name)
    shipped = {file.stem: file for file in SWEEPS.glob("*.yaml")}
    if name not in shipped:
        raise unknown("sweep", name, shipped)
    return shipped[name]


def plan_sweep(sweep: Sweep, weights_dir: Path | None = None, missing: list[str] | None = None) -> Plan:
    """All runs of a sweep: each pair's teacher, then each student once per method setting and seed.

    With a list `missing`, weight files that are not there are added to it instead of being an error: what a sweep
    costs can be known without them, though not the ids of its runs.

    Raises:
        KdsegError: an unknown or impossible name, key or value; a weight file that is not there.
    """
    files: dict[str, str] = {}
    weights = {model: _weights(files, file, weights_dir, missing) for model, file in sweep.weights.items()}
    runs = _Runs(sweep, weights)
    parts = [
        (part.pairs or sweep.pairs, part.methods or sweep.methods, part.seeds or sweep.seeds)
        for part in (SweepPart(), *sweep.include)
    ]
    teachers: dict[SweepPair, TeacherSource] = {}
    for entry in dict.fromkeys(entry for pairs, _, _ in parts for entry in pairs):
        if entry.checkpoint:
            source = _weights(files, entry.checkpoint, weights_dir, missing)
            teachers[entry] = TeacherSource(model=network(entry.teacher).name, kind="checkpoint", id=source)
        else:
            run = runs.add(entry.teacher, method_setting(STUDENT, {}), sweep.teacher_seed)
            teachers[entry] = TeacherSource(model=entry.teacher, kind="run", id=run.id)
    for pairs, methods, seeds in parts:
        for entry, setting in product(pairs, _settings(sweep, methods)):
            runs.add_cell(entry, teachers[entry], setting, seeds)
    for index in sorted(runs.unused_rules):
        rule = sweep.exclude[index].model_dump(exclude_defaults=True)
        raise KdsegError(f"sweep {sweep.name}: exclude: {rule} fits no cell; is a name in it misspelt?")
    manifest = Manifest(sweep=sweep.name, runs=tuple(runs.by_id.values()), skips=tuple(dict.fromkeys(runs.skips)))
    published = {source.id: pair.teacher_miou for pair, source in teachers.items() if pair.teacher_miou is not None}
    return Plan(manifest, files, published)


class _Runs:
    """The runs of a sweep while they are collected, with the cells that it leaves out.

    Attributes:
        unused_rules: places of the `exclude` rules that have fitted no cell yet.
    """

    def __init__(self, sweep: Sweep, weights: Mapping[str, str]) -> None:
        self.sweep, self.weights = sweep, weights
        self.dataset, self.protocol = definitions.dataset(sweep.dataset), definitions.protocol(sweep.protocol)
        self.by_id: dict[str, Run] = {}
        self.skips: list[Skipped] = []
        self.unused_rules = set(range(len(sweep.exclude)))
        self._first: dict[str, Run] = {}

    def add(self, model: str, method: MethodSetting, seed: int, teacher: TeacherSource | None = None) -> Run:
        """Add a run, unless it is there."""
        if model not in self._first:  # what a network's runs have in common is checked once, not ten thousand times
            self._first[model] = make_run(
                self.dataset,
                self.protocol,
                network(model),
                method,
                seed=seed,
                teacher=teacher,
                weights=self.weights.get(model),
                overrides=self.sweep.overrides,
                precision=self.sweep.precision,
            )
        run = self._first[model].model_copy(update={"method": method, "seed": seed, "teacher": teacher})
        return self.by_id.setdefault(run.id, run)

    def add_cell(self, entry: SweepPair, teacher: TeacherSource, setting: MethodSetting, seeds: Sequence[int]) -> None:
        """Add a method's runs on a pair, but for excluded seeds, or note why it cannot run there."""
        method = make_method(setting.name, setting.hyper)
        pair = Pair(student=network(entry.student), teacher=network(entry.teacher))
        setting = setting.model_copy(update={"note": recipe_note(setting.name, self.dataset.name, pair)})
        rules = {
            seed: [index for index, rule in enumerate(self.sweep.exclude) if rule.fits(setting.name, entry, seed)]
            for seed in seeds
        }
        self.unused_rules -= {index for places in rules.values() for index in places}
        reason = method.skip(pair)
        if reason:
            self._skip(entry, setting, reason)
            return
        for seed in seeds:
            if not rules[seed]:
                self.add(entry.student, setting, seed, teacher if method.needs_teacher else None)

    def _skip(self, entry: SweepPair, setting: MethodSetting, reason: str) -> None:
        self.skips.append(
            Skipped(
                dataset=self.dataset.name,
                protocol=self.protocol.name,
                student=entry.student,
                teacher=entry.teacher,
                method=setting.name,
                variant=setting.variant,
                reason=reason,
            )
        )


def _weights(files: dict[str, str], file: str, weights_dir: Path | None, missing: list[str] | None) -> str:
    """The sha256 of a weight file, noted in `files`; its name stands in where it may be `missing`."""
    try:
        return register(files, find_weights(file, weights_dir))
    except KdsegError:
        if missing is None:
            raise
        missing.append(file)
        return f"missing: {file}"


def cohorts(
    plan: Plan, work_dir: Path, data_root: Path | None, execution: Execution, size: int, off_protocol: bool = False
) -> list[Job]:
    """The jobs of a plan: cohorts of at most `size` runs, teachers' jobs first.

    Runs without a teacher join a cohort that has one where data recipe and seed agree: they cost it nothing.
    """
    runs = plan.manifest.runs
    teachers = {run.teacher.id for run in runs if run.teacher}
    recipes: dict[str, TrainingRecipe] = {}
    known: dict[tuple[str, ...], str] = {}

    def key(run: Run, with_teacher: bool = True) -> str:
        teacher = run.teacher.id if run.teacher and with_teacher else ""
        kind = "/".join((run.dataset, run.protocol, run.model, canonical(run.overrides)))
        same = (kind, run.precision, str(run.seed), teacher)
        if same not in known:
            recipes[kind] = recipes.get(kind) or run_recipe(run)
            known[same] = cohort_key(run, recipes[kind], with_teacher)
        return known[same]

    groups: dict[str, list[Run]] = {}
    for run in runs:
        if run.teacher:
            groups.setdefault(key(run), []).append(run)
    base = {key(group[0], with_teacher=False): home for home, group in groups.items()}
    first: list[list[Run]] = []
    for run in (run for run in runs if run.teacher is None):
        home = base.get(key(run))
        if run.id in teachers:
            first.append([run])
        elif home:
            groups[home].insert(0, run)
        else:
            groups.setdefault(key(run), []).append(run)
    parts = [group[i : i + size] for group in groups.values() for i in range(0, len(group), size)]
    return [
        Job(
            runs=tuple(part),
            work_dir=str(work_dir),
            data_root=str(data_root) if data_root else None,
            files=plan.files,
            execution=execution,
            off_protocol=off_protocol,
            teacher_miou=plan.teacher_miou,
        )
        for part in first + parts
    ]


def chosen(runs: Sequence[Run], only: str) -> set[str]:
    """The ids of the runs that a filter such as `method=cwd,method=kd,seed=0` names, and of their teachers.

    Keys are those of `FILTERS`; values of one key are alternatives, and all keys must hold.

    Raises:
        KdsegError: no key=value, an unknown key or value (with near matches), or nothing is left.
    """
    wanted: dict[str, set[str]] = {}
    for part in only.split(",") if only else ():
        key, equals, value = part.strip().partition("=")
        if not equals or not value:
            raise KdsegError(f"--only: {part!r} is not KEY=VALUE, such as method=cwd")
        if key not in FILTERS:
            raise unknown("key", key, FILTERS, "--only")
        values = {FILTERS[key](run) for run in runs} - {""}
        if value not in values:
            raise unknown(key, value, values, "--only")
        wanted.setdefault(key, set()).add(value)
    named = [run for run in runs if all(FILTERS[key](run) in values for key, values in wanted.items())]
    if not named:
        raise KdsegError(f"--only {only}: no run of this sweep is all of that; `kdseg plan` lists them")
    return {run.id for run in named} | {run.teacher.id for run in named if run.teacher}


def check_on_protocol(run: Run, allowed: bool) -> None:
    """Refuse an effective batch that is not the protocol's, unless the user says that this is meant."""
    meant = definitions.protocol(run.protocol).recipe(network(run.model).family, run.dataset).data.batch
    if run_recipe(run).data.batch != meant and not allowed:
        raise KdsegError(
            f"data.batch: protocol {run.protocol} has {meant}; another effective batch is another protocol (batch norm "
            "and noise change); pass --allow-off-protocol if you mean it: the records are then marked"
        )


def _settings(sweep: Sweep, methods: Sequence[str | dict[str, Any]]) -> list[MethodSetting]:
    settings: list[MethodSetting] = []
    for entry in methods:
        hyper = {} if isinstance(entry, str) else dict(entry)
        name = entry if isinstance(entry, str) else hyper.pop("name", None)
        if not isinstance(name, str):
            raise KdsegError(f"sweep {sweep.name}: methods: {entry} has no name; write `name: kd`")
        axes = {key: value if isinstance(value, list) else [value] for key, value in hyper.items()}
        empty = [key for key, values in axes.items() if not values]
        if empty:
            raise KdsegError(f"sweep {sweep.name}: methods: {name}: {empty[0]} has no values; leave it out or give one")
        for values in product(*axes.values()):
            setting = method_setting(name, dict(zip(axes, values, strict=True)), sweep.dataset)
            if setting not in settings:
                settings.append(setting)
    return settings
