"""The reproducibility card: what one needs to know to make these numbers again, filled from the records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmark.core.errors import KdsegError
from benchmark.records.record import Record
from benchmark.report.method_text import method_text
from benchmark.spec import definitions
from benchmark.spec.networks import network
from benchmark.spec.tuning import trials


@dataclass(frozen=True)
class Item:
    """A term and what is said of it; `text` may have several lines, `preformatted` ones keep theirs."""

    term: str
    text: str
    preformatted: bool = False


@dataclass(frozen=True)
class CardSection:
    """A question of a reproducibility checklist, and the answer."""

    title: str
    question: str
    items: tuple[Item, ...]


def reproducibility_card(records: Sequence[Record]) -> list[CardSection]:
    """All sections, for these records."""
    return [
        CardSection(
            "Methods",
            "Is every method described so that it can be implemented again, with its equations?",
            tuple(_methods(records)),
        ),
        CardSection(
            "Code",
            "Is the code available, in the version that made the numbers, with a licence?",
            tuple(_code(records)),
        ),
        CardSection(
            "Data sets", "Are all data sets named, cited and obtainable, with their splits?", tuple(_datasets(records))
        ),
        CardSection(
            "Experimental set-up",
            "Are all settings stated: optimiser, schedule, crops, augmentation, evaluation?",
            tuple(_protocols(records)),
        ),
        CardSection(
            "Hyper-parameters",
            "Are the final values given, how they were chosen, and how many were tried?",
            tuple(_hyper(records)),
        ),
        CardSection(
            "Seeds and selection",
            "How many trainings, with which seeds, and which weights are reported?",
            tuple(_seeds(records)),
        ),
        CardSection(
            "Networks and teachers",
            "Which networks, with which initial weights; which teachers?",
            tuple(_networks(records)),
        ),
        CardSection("Hardware and time", "On what machines, and how long?", tuple(_hardware(records))),
        CardSection("Software", "Which libraries, in which versions?", tuple(_software(records))),
        CardSection(
            "Statistics", "Are spread and significance reported, and is it said what they are of?", tuple(_STATISTICS)
        ),
    ]


_STATISTICS = (
    Item(
        "±",
        "sample standard deviation (ddof = 1) over the seeds; 95 % intervals: Student's t over seeds, or a bootstrap, "
        "as each table says",
    ),
    Item("Δ", "against the student alone with the same seed, data order and initial weights; paired"),
    Item("Test", "exact sign-flip over the paired differences; pooled over pairs, Holm over methods"),
    Item("mIoU", "of the last iteration; a class is left out of the mean only if its union over all images is empty"),
    Item("Limits", "one teacher per pair, so that nothing here speaks of the variance between teachers"),
)


def counted(values: Iterable[str], unit: str = "runs") -> str:
    """`a (3 runs), b (1 run)`, the most frequent first."""
    counts = Counter(values)
    order = sorted(counts, key=lambda value: (-counts[value], value))
    return ", ".join(f"{value} ({counts[value]} {unit if counts[value] != 1 else unit.rstrip('s')})" for value in order)


def _methods(records: Sequence[Record]) -> Iterable[Item]:
    for name in sorted({record.inputs.method.name.partition("@")[0] for record in records}):
        text = method_text(name)
        if text is None:
            yield Item(name, "its file is not in this checkout")
            continue
        formulas = [f"{function}: {docstring}" for function, docstring in text.formulas]
        parts = [f"{text.source}\n{text.file}", *text.about, *formulas]
        yield Item(text.title, "\n\n".join(part for part in parts if part.strip()), preformatted=True)


def _code(records: Sequence[Record]) -> Iterable[Item]:
    commits = [
        record.provenance.commit + (" with uncommitted changes" if record.provenance.dirty else "")
        for record in records
    ]
    yield Item("Commits", counted(commits))
    yield Item("Licence", "Apache-2.0; how to cite: CITATION.cff")
    yield Item("Version of the harness", counted(str(record.inputs.harness) for record in records))
    versions = {f"{r.inputs.method.name} {r.inputs.method.version}" for r in records}
    yield Item("Versions of the methods", ", ".join(sorted(versions)))


def _datasets(records: Sequence[Record]) -> Iterable[Item]:
    for name in sorted({record.inputs.dataset for record in records}):
        own = [record for record in records if record.inputs.dataset == name]
        try:
            dataset = definitions.dataset(name)
        except KdsegError as error:
            yield Item(name, str(error))
            continue
        lines = [dataset.source]
        if dataset.obtain:
            lines.append(f"How to get it: {dataset.obtain}")
        lines.append(f"{len(dataset.classes)} classes: {', '.join(dataset.classes)}")
        for split, facts in dataset.splits.items():
            hashes = counted(r.provenance.list_hashes[split] for r in own if split in r.provenance.list_hashes)
            counts = counted(f"{r.provenance.images[split]} images" for r in own if split in r.provenance.images)
            official = f", hash of the official names {facts.official}" if facts.official else ""
            lines.append(f"{split}: officially {facts.count} images{official}; used: {counts}; list hash: {hashes}")
        lines.append(f"Definition: {counted(r.inputs.dataset_hash for r in own)}")
        yield Item(dataset.title, "\n".join(lines))


def _protocols(records: Sequence[Record]) -> Iterable[Item]:
    for name, dataset in sorted({(record.inputs.protocol, record.inputs.dataset) for record in records}):
        own = [record for record in records if (record.inputs.protocol, record.inputs.dataset) == (name, dataset)]
        try:
            protocol = definitions.protocol(name)
        except KdsegError as error:
            yield Item(name, str(error))
            continue
        lines = [f"{protocol.title}. {protocol.source}", f"normalisation: {_flat(protocol.normalisation.model_dump())}"]
        strips = f" in {protocol.val_parts} strips" if protocol.val_parts > 1 else ""
        lines.append(f"validation every {protocol.val_interval} iterations, whole pictures{strips}")
        for family in sorted({network(record.inputs.model).family for record in own}):
            recipe = protocol.recipe(family, dataset)
            lines.append(f"{family} networks: {_flat(recipe.data.model_dump())}; {_flat(recipe.optim.model_dump())}")
            if recipe.inferred:
                lines.append(f"inferred: {recipe.inferred}")
        changes = [_flat(record.inputs.overrides) for record in own if record.inputs.overrides]
        lines.append(f"changed by hand: {counted(changes) if changes else 'nothing'}")
        lines.append(f"precision: {counted(record.inputs.precision for record in own)}")
        yield Item(f"{name} on {dataset}", "\n".join(lines))


def _hyper(records: Sequence[Record]) -> Iterable[Item]:
    settings = {record.inputs.method.variant: record.inputs.method for record in records}
    for variant in sorted(settings):
        note = f"\n{settings[variant].note}" if settings[variant].note else ""
        yield Item(variant, (_flat(settings[variant].hyper) or "has none") + note)
    tried = trials(record.inputs for record in records)
    yield Item(
        "How they were chosen",
        f"on a held-out part of train: settings tried per method: {_flat(tried)}"
        if tried
        else "no tuning run is among these records: values are the papers' or codebases', see each method's file",
    )


def _seeds(records: Sequence[Record]) -> Iterable[Item]:
    places = sorted({(record.inputs.dataset, record.inputs.protocol) for record in records})
    for dataset, protocol in places:
        own = [r for r in records if (r.inputs.dataset, r.inputs.protocol) == (dataset, protocol)]
        seeds = sorted({record.inputs.seed for record in own})
        outcomes = counted(str(record.outcome) for record in own)
        yield Item(f"{dataset}, {protocol}", f"seeds {', '.join(map(str, seeds))}; {outcomes}")
    yield Item("Reported weights", "those of the last iteration; no selection on validation images")
    resumed = sum(bool(record.provenance.resumed_at) for record in records)
    yield Item("Random numbers", "every stream is re-seeded from (seed, purpose, iteration); a resume changes nothing")
    yield Item("Resumed", f"{resumed} of {len(records)} runs")


def _networks(records: Sequence[Record]) -> Iterable[Item]:
    for name in sorted({record.inputs.model for record in records}):
        facts = network(name)
        weights = [record.inputs.weights for record in records if record.inputs.model == name]
        initial = counted(f"sha256 {sha[:16]}…" if sha else "random" for sha in weights)
        yield Item(
            facts.title,
            f"{name}: {facts.family}, {facts.parameters / 1e6:.2f} M parameters, {facts.gflops} GFLOPs at "
            f"{facts.size[0]}×{facts.size[1]}; initial weights: {initial}",
        )
    teachers: dict[tuple[str, str, str], Record] = {}
    for record in records:
        if record.inputs.teacher:
            source = record.inputs.teacher
            teachers.setdefault((source.model, source.kind, source.id), record)
    scores = {record.id: record.result.last.miou for record in records if record.result}
    for (model, kind, source_id), record in sorted(teachers.items()):
        check = record.provenance.teacher_check
        miou = scores.get(source_id, check.miou if check else None)
        text = f"{'run' if kind == 'run' else 'checkpoint, sha256'} {source_id}"
        yield Item(f"Teacher {network(model).title}", text + (f"; mIoU here {miou:.2f} %" if miou is not None else ""))


def _hardware(records: Sequence[Record]) -> Iterable[Item]:
    origins = [record.provenance for record in records]
    yield Item("Device", counted(o.processor if o.device == "cpu" else o.device for o in origins))
    yield Item("Operating system", counted(o.platform for o in origins))
    yield Item("Torch threads per process", counted(str(o.threads) for o in origins))
    loads = [o.load_average for o in origins if o.load_average is not None]
    if loads:
        yield Item("Load average when runs ended", f"{min(loads):.1f} to {max(loads):.1f} processes")
    yield Item("Devices at once", counted(str(record.cost.devices) for record in records))
    steps = sum(record.iterations * record.cost.iteration_s * record.cost.devices for record in records) / 3600
    shared = sum(record.cost.wall_s * record.cost.devices / record.cost.cohort for record in records) / 3600
    yield Item(
        "Device hours",
        f"{steps:.1f} as single runs (iterations × seconds); about {shared:.1f} as they were trained, "
        "in cohorts, with evaluation",
    )
    yield Item("Peak memory", f"{max(record.cost.memory_mb for record in records):,.0f} MB of a job")
    times = sorted(o.started for o in origins), sorted(o.finished for o in origins)
    yield Item("When", f"{times[0][0]} to {times[1][-1]}")
    yield Item(
        "Deterministic operations", counted("preferred" if o.deterministic else "not asked for" for o in origins)
    )


def _software(records: Sequence[Record]) -> Iterable[Item]:
    for package in dict.fromkeys(name for record in records for name in record.provenance.versions):
        yield Item(package, counted(record.provenance.versions.get(package, "not there") for record in records))


def _flat(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in values.items() if value is not None)
