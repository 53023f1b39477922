from __future__ import annotations

import time

import pytest
import torch

from benchmark.runtime.clocks import SharedStopwatch, Spent, Stopwatch, Timing

CPU = torch.device("cpu")


def test_a_stopwatch_takes_every_time() -> None:
    watch = Stopwatch(CPU)
    assert watch.lately() == watch.median() == 0
    for pause in (0.01, 0.0):
        with watch.running():
            time.sleep(pause)
    first, second = watch.seconds()
    assert first >= 0.01 > second >= 0
    assert watch.median() == pytest.approx((first + second) / 2)


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
    passed.append(watch._running[0][1])
    assert len(watch.seconds()) == 1
    passed.append(watch._running[0][1])
    assert len(watch.seconds()) == 2


def test_what_runs_share_is_divided_among_those_that_were_there() -> None:
    watch = SharedStopwatch(CPU)
    for runs in (["a", "b"], ["a"]):
        with watch.shared(runs):
            time.sleep(0.002)
    both, alone = watch.seconds()
    assert watch.parts("a") == pytest.approx((both / 2 + alone, both + alone))
    assert watch.parts("b") == pytest.approx((both / 2, both))
    assert watch.parts("c") == (0, 0)


def test_shares_add_up_to_the_wall_time_and_a_single_run_has_all_of_what_it_shared() -> None:
    timing, earlier = Timing(CPU), Spent(wall_s=10.0, share_s=5.0, single_s=7.0)
    with timing.teacher.shared(["a", "b"]), timing.data.running():
        time.sleep(0.002)
    timing.data.sharers.append(["a", "b", "c"])
    timing.began -= 1.0
    own = {"a": 0.5, "b": 0.1, "c": 0.0}
    spent = {run: timing.spent(run, own, Spent()) for run in own}
    assert sum(each.share_s for each in spent.values()) == pytest.approx(spent["c"].wall_s, rel=1e-2)
    assert spent["a"].single_s - spent["a"].share_s == pytest.approx(
        timing.teacher.seconds()[0] / 2 + timing.data.seconds()[0] * 2 / 3, rel=1e-6
    )
    again = timing.spent("a", own, earlier)
    assert again.wall_s > 10 + spent["a"].wall_s and again.share_s > 5 + spent["a"].share_s
