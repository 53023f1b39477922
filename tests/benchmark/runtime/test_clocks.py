from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
import torch

from benchmark.runtime.clocks import SharedStopwatch, Spent, Stopwatch, Timing

CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that goes on where a test says so, in seconds (`now`)."""
    made = SimpleNamespace(now=100.0)
    monkeypatch.setattr(time, "perf_counter", lambda: made.now)
    return made


def test_a_stopwatch_takes_every_time(clock: SimpleNamespace) -> None:
    watch = Stopwatch(CPU)
    assert watch.lately() == watch.median() == 0
    for taken in (0.5, 0.25):
        with watch.running():
            clock.now += taken
    assert watch.seconds() == pytest.approx([0.5, 0.25])
    assert watch.lately() == watch.median() == pytest.approx(0.375)


def test_on_cuda_nothing_waits_for_the_device(monkeypatch) -> None:
    """What the device has not passed is not read: `elapsed_time` of such events would wait or raise."""
    passed = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            self.at = time.perf_counter()

        def query(self) -> bool:
            return self in passed

        def elapsed_time(self, end: Event) -> float:
            assert end in passed
            return 1000 * (end.at - self.at)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    watch = Stopwatch(torch.device("cuda"))
    for _ in range(2):
        with watch.running():
            pass
    assert watch.seconds() == []
    passed.append(watch._running[0][1].event)
    assert len(watch.seconds()) == 1
    passed.append(watch._running[0][1].event)
    assert len(watch.seconds()) == 2


def test_what_runs_share_is_divided_among_those_that_were_there(clock: SimpleNamespace) -> None:
    watch = SharedStopwatch(CPU)
    for runs, taken in ((["a", "b"], 0.5), (["a"], 0.25)):
        with watch.shared(runs):
            clock.now += taken
    both, alone = watch.seconds()
    assert (both, alone) == pytest.approx((0.5, 0.25))
    assert watch.parts("a") == pytest.approx((both / 2 + alone, both + alone))
    assert watch.parts("b") == pytest.approx((both / 2, both))
    assert watch.parts("c") == (0, 0)


def test_shares_add_up_to_the_wall_time_and_a_single_run_has_all_of_what_it_shared(
    clock: SimpleNamespace,
) -> None:
    timing, earlier = Timing(CPU), Spent(wall_s=10.0, share_s=5.0, single_s=7.0)
    with timing.teacher.shared(["a", "b"]), timing.data.running():
        clock.now += 0.25
    timing.data.sharers.append(["a", "b", "c"])
    clock.now += 1.0
    own = {"a": 0.5, "b": 0.1, "c": 0.0}
    spent = {run: timing.spent(run, own, Spent()) for run in own}
    assert sum(each.share_s for each in spent.values()) == pytest.approx(spent["c"].wall_s)
    assert spent["a"].single_s - spent["a"].share_s == pytest.approx(
        timing.teacher.seconds()[0] / 2 + timing.data.seconds()[0] * 2 / 3
    )
    again = timing.spent("a", own, earlier)
    assert again.wall_s == pytest.approx(10 + spent["a"].wall_s)
    assert again.share_s == pytest.approx(5 + spent["a"].share_s)
