import random

import numpy as np
import torch

from benchmark.runtime.randomness import derive_seed, stream


def draw():
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_a_stream_gives_the_same_numbers_wherever_it_is_opened():
    with stream(0, "student", "net", 7):
        first = draw()
    draw()
    with stream(1, "other"), stream(0, "student", "net", 7):
        assert draw() == first


def test_a_stream_leaves_the_outer_generators_where_they_were():
    torch.manual_seed(3), np.random.seed(3), random.seed(3)
    expected = draw(), draw()
    torch.manual_seed(3), np.random.seed(3), random.seed(3)
    first = draw()
    with stream(0, "inner"):
        draw()
    assert (first, draw()) == expected


def test_the_generators_are_restored_after_an_error():
    torch.manual_seed(3)
    expected = torch.rand(())
    torch.manual_seed(3)
    try:
        with stream(0, "inner"):
            raise RuntimeError
    except RuntimeError:
        pass
    assert torch.rand(()) == expected


def test_seeds_are_pinned_and_tell_keys_apart():
    assert derive_seed(0, "order", 1) == 1332101017241992705
    keys = [(0, "a", 1), (0, "a", 2), (1, "a", 1), (0, "b", 1), (0, "a", "1")]
    assert len({derive_seed(*key) for key in keys}) == len(keys)
