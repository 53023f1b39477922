"""What every method must hold, whatever it computes: run over all files in `baselines/` and `methods/`."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from benchmark.core.errors import KdsegError
from benchmark.method import IGNORE, Method, Part
from benchmark.method.recipes import make_method, recipe, recipe_hyper, recipe_names
from benchmark.method.registry import method_class, method_files
from benchmark.spec.networks import TAPS, Family, Network, Pair, TapShape
from benchmark.training.cohort import Interrupted
from tests.numbers import note

CLASSES = 5
EVEN, ODD = (64, 96), (97, 81)


# Networks that are only shapes -------------------------------------------------------------------------------------


def network(name: str, family: Family, **taps: tuple[int, int]) -> Network:
    shapes = {tap: TapShape(channels=channels, stride=stride) for tap, (channels, stride) in taps.items()}
    facts = {"parameters": 1, "gflops": 1.0, "classes": CLASSES, "size": EVEN}
    return Network(name=name, title=name, family=family, taps=shapes, **facts)


CNN = network(
    "cnn",
    Family.CNN,
    c1=(16, 4),
    c2=(24, 8),
    c3=(32, 8),
    c4=(80, 8),
    pre_classifier=(16, 8),
    aux_logits=(CLASSES, 8),
    logits=(CLASSES, 8),
)
TRANSFORMER = network(
    "transformer",
    Family.TRANSFORMER,
    c1=(16, 4),
    c2=(32, 8),
    c3=(48, 16),
    c4=(64, 32),
    pre_classifier=(48, 4),
    logits=(CLASSES, 4),
)
PAIRS = {
    "transformer_to_cnn": Pair(student=CNN, teacher=TRANSFORMER),
    "cnn_to_transformer": Pair(student=TRANSFORMER, teacher=CNN),
    "same": Pair(student=CNN, teacher=CNN),
}


def draw(model: Network, tap: str, images: int, size: tuple[int, int], random: torch.Generator) -> Tensor:
    """A random tap for images of `size`: stride s leaves ceil(size / s) cells. As after ReLU, but for logits."""
    shape = model.taps[tap]
    grid = [math.ceil(pixels / shape.stride) for pixels in size]
    x = torch.randn(images, shape.channels, *grid, generator=random)
    return 3 * x if tap.endswith("logits") else x.relu()


@dataclass
class Batch:
    """What a method is given in one step; the student's taps are leaves, so that they collect a gradient."""

    student: dict[str, Tensor]
    teacher: dict[str, Tensor]
    target: Tensor


def labels(images: int, size: tuple[int, int], random: torch.Generator) -> Tensor:
    """Labels in blocks of 16 pixels, without the last class, with a region and a border to ignore."""
    h, w = size
    blocks = torch.randint(0, CLASSES - 1, (images, math.ceil(h / 16), math.ceil(w / 16)), generator=random)
    target = blocks.repeat_interleave(16, 1).repeat_interleave(16, 2)[:, :h, :w].clone()
    target[:, : h // 3, : w // 4] = IGNORE
    target[:, -3:] = IGNORE
    return target


def batch(
    method: Method,
    pair: Pair,
    seed: int = 0,
    images: int = 2,
    size: tuple[int, int] = EVEN,
    dtype: torch.dtype = torch.float32,
) -> Batch:
    random = torch.Generator().manual_seed(seed)
    student = {tap: draw(pair.student, tap, images, size, random) for tap in read(method, pair.student)}
    teacher = {tap: draw(pair.teacher, tap, images, size, random) for tap in read(method, pair.teacher)}
    return Batch(
        {tap: x.to(dtype).requires_grad_() for tap, x in student.items()},
        {tap: x.to(dtype) for tap, x in teacher.items()} if method.needs_teacher else {},
        labels(images, size, random),
    )


def read(method: Method, model: Network) -> list[str]:
    """The taps the method reads that the network has, in one order, so that a seed says what is in them."""
    return [tap for tap in TAPS if tap in method.taps and tap in model.taps]


# Methods -----------------------------------------------------------------------------------------------------------


def settings() -> Iterator[Any]:
    """Every method with its defaults and each of its variants, and every recipe with the numbers of each data set."""
    for name in method_files():
        yield pytest.param(name, {}, id=name)
        for variant, hyper in method_class(name).variants.items():
            yield pytest.param(name, dict(hyper), id=f"{name}: {variant}")
    for name in recipe_names():
        found: list[dict[str, Any]] = []
        for dataset in recipe(name)[1].sources:
            hyper = recipe_hyper(name, dataset)
            if hyper not in found:
                found.append(hyper)
                yield pytest.param(name, hyper, id=f"{name}: {dataset}")


each_method = pytest.mark.parametrize("name", list(method_files()))
each_setting = pytest.mark.parametrize(("name", "hyper"), list(settings()))
each_pair = pytest.mark.parametrize("pair", list(PAIRS))


def built(name: str, hyper: dict[str, Any], pair: Pair, prepare: bool = True) -> Method:
    """The method, ready for its first step on `pair`; skips the test if it says that it cannot run there."""
    torch.manual_seed(0)
    method = make_method(name, hyper)
    if reason := method.skip(pair):
        pytest.skip(reason)
    method.attach(pair.student.shapes(CLASSES), pair.teacher.shapes(CLASSES) if method.needs_teacher else {})
    if prepare and method.needs_teacher:
        stage = [batch(method, pair, seed=100 + i) for i in range(2)]
        method.prepare(nn.Identity(), [(given.teacher, given.target) for given in stage])
    return method


def losses(method: Method, given: Batch, step: int = 0) -> dict[str, Tensor]:
    """The terms of one step, checked for what always holds: finite float32 scalars, inputs left as they were."""
    tensors = [*given.student.values(), *given.teacher.values(), given.target]
    before = [x._version for x in tensors]
    torch.manual_seed(1000 + step)
    terms = method.terms(given.student, given.teacher, given.target, step)
    assert [x._version for x in tensors] == before, "a method must not write into its inputs"
    for term, value in terms.items():
        assert value.shape == () and value.dtype == torch.float32, f"{term}: {value.shape}, {value.dtype}"
        assert value.isfinite(), f"{term} is {value.item()}"
    assert bool(terms) == method.needs_teacher, "a method with a teacher has terms, one without has none"
    return terms


def backward(method: Method, given: Batch, step: int = 0) -> dict[str, Tensor]:
    """As `losses`, then one backward pass of their sum; all gradients that there are must be finite."""
    terms = losses(method, given, step)
    total = sum(terms.values())
    if isinstance(total, Tensor) and total.requires_grad:
        total.backward()
    named = [*given.student.items(), *method.named_parameters()]
    for name, x in named:
        assert x.grad is None or x.grad.isfinite().all(), f"the gradient of {name} is not finite"
        if x.grad is not None:
            note(f"gradient of {name}", x.grad)
    for name, value in terms.items():
        note(name, value)
    return terms


def gradients(given: Batch) -> list[Tensor]:
    """The gradients of the student's taps, zero for those that have none (as where a weight is 0)."""
    return [torch.zeros_like(x) if x.grad is None else x.grad for x in given.student.values()]


def optimizers(method: Method) -> list[torch.optim.Optimizer]:
    """One optimiser for every part with parameters: its own, or SGD in place of the student's."""

    def optimizer(part: Part) -> torch.optim.Optimizer:
        options = dict(part.optimizer or {"type": "SGD", "lr": 0.01})
        return getattr(torch.optim, options.pop("type"))(part.module.parameters(), **options)

    return [optimizer(part) for part in method.parts.values() if list(part.module.parameters())]


# The suite ---------------------------------------------------------------------------------------------------------


def test_every_file_of_the_two_packages_is_tested() -> None:
    assert {"student", "kd"} <= set(method_files())


@each_method
def test_class_says_what_it_is(name: str) -> None:
    kind = method_class(name)
    assert kind.title.strip() and kind.source.strip() and kind.version >= 1
    assert (kind.__doc__ or "").strip() and kind.__doc__ != Method.__doc__
    assert kind().name == name
    assert set(kind().taps) <= set(TAPS)


@each_method
def test_variants_are_valid_and_named_in_tables(name: str) -> None:
    kind = method_class(name)
    assert kind.variant({}) == kind.title
    for variant, hyper in kind.variants.items():
        assert kind.variant(hyper) == f"{kind.title}: {variant}"
        assert kind(**hyper).hyper() == {**kind.defaults(), **hyper}


@each_method
def test_wrong_hyper_parameters_are_refused_with_what_would_be_right(name: str) -> None:
    kind = method_class(name)
    assert kind(**kind.defaults()).hyper() == kind.defaults()
    for parameter in kind.defaults():
        with pytest.raises(KdsegError, match=rf"did you mean .*\b{parameter}\b"):
            kind(**{f"{parameter}_": 1})
        with pytest.raises(KdsegError, match=rf": {parameter}: .*got"):
            kind(**{parameter: {"neither": "number nor name"}})
    with pytest.raises(KdsegError, match="nonesuch"):
        kind(nonesuch=1)


@each_setting
def test_method_runs_on_some_heterogeneous_pair(name: str, hyper: dict[str, Any]) -> None:
    method = make_method(name, hyper)
    assert any(method.skip(pair) is None for pair in PAIRS.values() if pair.heterogeneous)


@each_setting
@each_pair
def test_gradient_reaches_the_student(name: str, hyper: dict[str, Any], pair: str) -> None:
    method = built(name, hyper, PAIRS[pair])
    given = batch(method, PAIRS[pair])
    for step in range(3):  # more than one: a random mask may hide the few cells there are
        backward(method, given, step)
    reached = [tap for tap, x in given.student.items() if x.grad is not None and x.grad.any()]
    assert bool(reached) == method.needs_teacher


@each_setting
@each_pair
@pytest.mark.parametrize("images", [1, 2])
def test_odd_sizes_and_any_batch_size_work(name: str, hyper: dict[str, Any], pair: str, images: int) -> None:
    method = built(name, hyper, PAIRS[pair])
    backward(method, batch(method, PAIRS[pair], images=images, size=ODD))


@each_setting
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_taps_give_finite_float32_losses(name: str, hyper: dict[str, Any], dtype: torch.dtype) -> None:
    pair = PAIRS["transformer_to_cnn"]
    method = built(name, hyper, pair)
    backward(method, batch(method, pair, dtype=dtype))


@each_setting
@pytest.mark.parametrize("scale", [0.0, 1e-7, 6e4])
def test_extreme_half_precision_values_stay_finite(name: str, hyper: dict[str, Any], scale: float) -> None:
    """Nothing, next to nothing, and the largest numbers that half precision holds, in both networks."""
    pair = PAIRS["transformer_to_cnn"]
    method = built(name, hyper, pair)
    given = batch(method, pair)
    for taps in (given.student, given.teacher):
        for tap, x in taps.items():
            taps[tap] = (x.detach().sign() * scale).half().float()  # as the harness hands them over
    for x in given.student.values():
        x.requires_grad_()
    backward(method, given)


@each_setting
def test_all_ignored_batch_is_finite_and_silences_what_reads_the_labels(name: str, hyper: dict[str, Any]) -> None:
    pair = PAIRS["transformer_to_cnn"]

    def value(relabel: Any) -> dict[str, Tensor]:
        method = built(name, hyper, pair)
        given = batch(method, pair)
        relabel(given.target)
        return backward(method, given)

    usual = value(lambda target: None)
    others = value(lambda target: target.copy_(labels(2, EVEN, torch.Generator().manual_seed(7)).flip(1, 2)))
    ignored = value(lambda target: target.fill_(IGNORE))
    for term in usual:
        if not torch.equal(usual[term], others[term]):
            assert ignored[term] == 0, f"{term} reads the labels, so it must be 0 where all are ignored"


@each_setting
def test_same_seed_gives_the_same_value(name: str, hyper: dict[str, Any]) -> None:
    pair = PAIRS["transformer_to_cnn"]
    results = []
    for _ in range(2):
        method = built(name, hyper, pair)
        given = batch(method, pair)
        terms = backward(method, given)
        results.append([*terms.values(), *gradients(given)])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@each_setting
def test_state_survives_saving_and_loading(name: str, hyper: dict[str, Any]) -> None:
    pair = PAIRS["transformer_to_cnn"]

    def advance(method: Method, steppers: list[torch.optim.Optimizer], step: int) -> list[Tensor]:
        given = batch(method, pair, seed=step)
        method.zero_grad()
        terms = backward(method, given, step)
        for stepper in steppers:
            stepper.step()
        return [*terms.values(), *gradients(given), *method.state_dict().values()]

    method = built(name, hyper, pair)
    steppers = optimizers(method)
    for step in range(2):
        advance(method, steppers, step)

    file = io.BytesIO()
    torch.save({"method": method.state_dict(), "optimizers": [stepper.state_dict() for stepper in steppers]}, file)
    file.seek(0)
    stored = torch.load(file, weights_only=True)

    resumed = built(name, hyper, pair, prepare=False)
    resumed.load_state_dict(stored["method"])
    resumed_steppers = optimizers(resumed)
    for stepper, state in zip(resumed_steppers, stored["optimizers"], strict=True):
        stepper.load_state_dict(state)

    expected, actual = advance(method, steppers, 2), advance(resumed, resumed_steppers, 2)
    assert len(expected) == len(actual) and all(torch.equal(a, b) for a, b in zip(expected, actual, strict=True))


@each_setting
def test_parts_are_the_only_place_for_trained_and_stored_tensors(name: str, hyper: dict[str, Any]) -> None:
    method = built(name, hyper, PAIRS["transformer_to_cnn"])
    stray = [key for key in method.state_dict() if key.partition(".")[0] not in method.parts]
    assert not stray, f"{stray} belong to no part: they would be neither trained nor counted"
    for part in method.parts.values():
        assert part.optimizer is None or hasattr(torch.optim, part.optimizer["type"])
        assert part.clip_norm is None or part.clip_norm > 0


BRIEF = {"maskd": {"stage1_iterations": 3}}
"""Settings that shorten what would take minutes here."""


def _fewer_images(taps: dict[str, Tensor]) -> None:
    taps.update({tap: x[:1] for tap, x in taps.items()})


def _fewer_channels(taps: dict[str, Tensor]) -> None:
    taps.update({tap: x[:, :-1] for tap, x in taps.items()})


@each_method
@pytest.mark.parametrize("who", ["student", "teacher"])
@pytest.mark.parametrize("spoil", [_fewer_images, _fewer_channels])
def test_wrong_shapes_are_named_and_never_broadcast(name: str, who: str, spoil: Callable[[dict], None]) -> None:
    pair = PAIRS["transformer_to_cnn"]
    method = built(name, BRIEF.get(name, {}), pair, prepare=False)
    given = batch(method, pair)
    taps = getattr(given, who)
    spoil(taps)
    if taps:
        with pytest.raises(KdsegError, match=rf"method {name}: {who}'s \w+ is \(.*\), not \(N, C, H, W\)"):
            method.terms(given.student, given.teacher, given.target, 0)
    given = batch(method, pair)
    with pytest.raises(KdsegError, match=f"method {name}: labels are .*, not"):
        method.terms(given.student, given.teacher, given.target[None], 0)


@each_method
def test_another_number_of_classes_than_the_teachers_is_refused(name: str) -> None:
    method = make_method(name, {})
    if method.needs_teacher:
        with pytest.raises(KdsegError, match=f"method {name}: the student tells 5 classes apart, the teacher 7"):
            method.attach(CNN.shapes(CLASSES), TRANSFORMER.shapes(7))


# Pairs of the papers -----------------------------------------------------------------------------------------------

WIDTHS = {
    "deeplabv3_mit_b4": (Family.TRANSFORMER, (64, 4), (128, 8), (320, 16), (512, 32), (256, 32)),
    "deeplabv3_mit_b0": (Family.TRANSFORMER, (32, 4), (64, 8), (160, 16), (256, 32), (128, 32)),
    "segformer_mit_b4": (Family.TRANSFORMER, (64, 4), (128, 8), (320, 16), (512, 32), (768, 4)),
    "segformer_mit_b0": (Family.TRANSFORMER, (32, 4), (64, 8), (160, 16), (256, 32), (256, 4)),
    "deeplabv3_r101": (Family.CNN, (256, 4), (512, 8), (1024, 8), (2048, 8), (256, 8)),
    "deeplabv3_r18": (Family.CNN, (64, 4), (128, 8), (256, 8), (512, 8), (128, 8)),
    "pspnet_r18": (Family.CNN, (64, 4), (128, 8), (256, 8), (512, 8), (128, 8)),
    "deeplabv3_mbv2": (Family.CNN, (24, 4), (32, 8), (96, 8), (320, 8), (128, 8)),
}
"""Channels and strides of c1 to c4 and of the classifier's input, in the CIRKD codebase's form."""

PAPER_PAIRS = (
    ("deeplabv3_mit_b4", "deeplabv3_mbv2"),
    ("deeplabv3_mit_b4", "deeplabv3_r18"),
    ("deeplabv3_mit_b4", "pspnet_r18"),
    ("deeplabv3_r101", "deeplabv3_mit_b0"),
    ("deeplabv3_r101", "segformer_mit_b0"),
    ("deeplabv3_r101", "deeplabv3_r18"),
    ("deeplabv3_r101", "deeplabv3_mbv2"),
    ("deeplabv3_r101", "pspnet_r18"),
    ("segformer_mit_b4", "segformer_mit_b0"),
)
"""Teacher and student."""


def of_the_papers(name: str) -> Network:
    family, *stages, last = WIDTHS[name]
    taps = dict(zip(("c1", "c2", "c3", "c4"), stages, strict=True)) | {"pre_classifier": last}
    if "_r1" in name:
        taps["aux_logits"] = (CLASSES, 8)
    return network(name, family, **taps, logits=(CLASSES, last[1]))


@pytest.mark.slow
@pytest.mark.parametrize("names", PAPER_PAIRS, ids="-".join)
@each_method
def test_every_pair_of_the_papers_works(name: str, names: tuple[str, str]) -> None:
    teacher, student = (of_the_papers(model) for model in names)
    pair = Pair(student=student, teacher=teacher)
    method = built(name, BRIEF.get(name, {}), pair)
    backward(method, batch(method, pair, images=1, size=(96, 128)))


# In the trainer ------------------------------------------------------------------------------------------------------


@each_method
@pytest.mark.slow
def test_neither_company_nor_a_stop_changes_a_run(world: Any, teacher: Any, name: str) -> None:
    hyper = BRIEF.get(name, {})
    run = world.run(name, teacher=teacher if method_class(name).needs_teacher else None, hyper=hyper)
    world.train([run], "a")

    others = [world.run("kd", teacher=teacher, hyper={"tau": 2.0}), world.run("student", seed=run.seed)]
    company = [run, *(other for other in others if other != run)]
    calls = iter(range(100))
    cut = hyper.get("stage1_iterations", 0) + 1
    with pytest.raises(Interrupted):
        world.train(company, "b", stop=lambda: next(calls) == cut)
    assert world.directory(run, "b").resume_files()
    world.train(company[::-1], "b")
    assert world.equal(run, "a", "b")


# Waiting for the device ----------------------------------------------------------------------------------------------

WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "equal"}
"""Operations whose result the host needs: on a GPU each waits until all that was asked for is done."""

WAITS_NEEDED = {"cirkd": 1}
"""How often a step must wait: which classes are in a batch decides which rows of CIRKD's queues are written."""


class _Operations(TorchDispatchMode):
    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        masks = name in ("index", "index_put", "index_put_") and any(
            isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        if name in WAITS or masks:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


class _Copies(TorchFunctionMode):
    """Reading a tensor in Python: on a CPU no operation shows it."""

    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.tolist, Tensor.cpu, Tensor.numpy):
            self.found.append(func.__name__)
        return func(*args, **(kwargs or {}))


@contextmanager
def waits() -> Iterator[list[str]]:
    """Collects what would make the host wait for a GPU."""
    found: list[str] = []
    with _Operations(found), _Copies(found):
        yield found


@each_setting
def test_a_step_does_not_wait_for_the_device(name: str, hyper: dict[str, Any]) -> None:
    pair = PAIRS["transformer_to_cnn"]
    method = built(name, hyper, pair)
    given = batch(method, pair)
    with waits() as found:
        terms = method.losses(given.student, given.teacher, given.target, 0)
        if terms:
            sum(terms.values()).backward()
    components = [part.partition(".")[0] for part in method.hyper()] if "@" in name else [name]
    assert len(found) <= sum(WAITS_NEEDED.get(part, 0) for part in set(components)), (
        f"{found}: these make the CPU wait for a GPU in every step (an `index` is one by a boolean mask): "
        "use torch.where, or benchmark.method.grids.labelled_mean"
    )


def test_waiting_is_noticed() -> None:
    def count(work: Callable[[Tensor], Any]) -> int:
        x = torch.arange(4.0)
        with waits() as found:
            work(x)
        return len(found)

    assert count(lambda x: x.sum().item()) and count(lambda x: x[x > 1]) and count(lambda x: x.unique())
    assert count(lambda x: bool(x.sum() > 1)) and count(lambda x: x.tolist()) and count(lambda x: x.cpu())
    assert not count(lambda x: torch.where(x > 1, x, 0).sum() + x[[1, 2]].sum())
