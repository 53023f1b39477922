from __future__ import annotations

import torch
import torch.nn.functional as F

from benchmark.method.grids import coarser, labels_on, pooled, resize, sharing


def test_resize_leaves_a_map_on_the_right_grid_alone() -> None:
    x = torch.randn(1, 3, 4, 6)
    assert resize(x, (4, 6)) is x


def test_labels_on_a_coarser_grid_are_those_of_legacy_nearest() -> None:
    target = torch.randint(0, 19, (2, 97, 81))
    expected = torch.nn.functional.interpolate(target[:, None].float(), size=(13, 11), mode="nearest")
    assert torch.equal(labels_on(target, (13, 11)), expected[:, 0].long())


def test_finer_features_are_averaged_over_the_cells_of_the_coarser() -> None:
    x = torch.randn(1, 3, 4, 6)
    assert pooled(x, (4, 6)) is x
    torch.testing.assert_close(pooled(x, (2, 3)), F.avg_pool2d(x, 2))
    assert coarser(x, torch.empty(1, 1, 2, 9)) == (2, 6)


def test_shared_tensors_are_brought_onto_a_grid_once_and_damage_is_noticed() -> None:
    x, other = torch.randn(2, 1, 3, 8, 8)
    with sharing([x]) as forms:
        resized, averaged = resize(x, (4, 4)), pooled(x, (4, 4))
        assert resize(x, torch.Size((4, 4))) is resized and pooled(x, (4, 4)) is averaged
        assert resized is not averaged and resize(x, (2, 2)) is not resized
        assert resize(other, (4, 4)) is not resize(other, (4, 4))
        assert torch.equal(resize(other, (4, 4)), F.interpolate(other, size=(4, 4), mode="bilinear"))
        assert not forms.damaged()
        averaged.add_(1)
        assert forms.damaged()
    assert resize(x, (4, 4)) is not resized and torch.equal(resize(x, (4, 4)), resized)
