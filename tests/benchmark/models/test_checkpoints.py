import os
import pickle

import pytest
import torch
from mmengine.logging import HistoryBuffer
from torch import nn

from benchmark.core.errors import KdsegError
from benchmark.models import checkpoints


class Evil:
    """Would leave a file behind if it were ever unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("legacy", [True, False])
def test_a_checkpoint_that_would_run_code_is_refused_and_nothing_runs(tmp_path, legacy):
    file, trace = tmp_path / "evil.pth", tmp_path / "trace"
    torch.save({"state_dict": Evil(trace)}, file, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(KdsegError, match=r"evil\.pth: refused, nothing was run: .*mkdir"):
        checkpoints.load(file)
    assert not trace.exists()


def test_a_bare_pickle_is_refused_too(tmp_path):
    file, trace = tmp_path / "evil.pkl", tmp_path / "trace"
    file.write_bytes(pickle.dumps(Evil(trace)))
    with pytest.raises(KdsegError):
        checkpoints.load(file)
    assert not trace.exists()


def test_what_openmmlab_checkpoints_hold_is_read(tmp_path):
    import numpy as np

    content = {"state_dict": {"a": torch.ones(2)}, "history": HistoryBuffer([1.0], [1]), "score": np.float32(1.5)}
    checkpoints.save(tmp_path / "mm.pth", content)
    assert checkpoints.load(tmp_path / "mm.pth")["score"] == np.float32(1.5)


class Reach:
    """Would fetch an attribute that is not a statistic of HistoryBuffer."""

    def __reduce__(self):
        return getattr, (HistoryBuffer, "__init__")


def test_attributes_are_not_a_way_around(tmp_path):
    torch.save({"a": Reach()}, tmp_path / "reach.pth")
    with pytest.raises(KdsegError, match="refused, nothing was run"):
        checkpoints.load(tmp_path / "reach.pth")


@pytest.mark.parametrize("cut", [0, 10, 400])
def test_a_truncated_checkpoint_is_named(tmp_path, cut):
    file = tmp_path / "cut.pth"
    torch.save({"a": torch.ones(100)}, file)
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(KdsegError, match=r"cut\.pth: not a readable checkpoint"):
        checkpoints.load(file)


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(KdsegError, match="no such checkpoint"):
        checkpoints.load(tmp_path / "none.pth")


def test_weights_of_another_network_say_what_differs(tmp_path):
    checkpoints.save(tmp_path / "w.pth", {"state_dict": {"weight": torch.ones(2, 3), "extra": torch.ones(1)}})
    with pytest.raises(KdsegError) as error:
        checkpoints.load_weights(nn.Linear(4, 2), tmp_path / "w.pth")
    said = "1 missing (first bias); 1 unexpected (first extra); 1 of another shape (first weight)"
    assert str(error.value).endswith(f"does not fit this network: {said}")


def test_a_backbone_takes_half_precision_weights_in_order_and_leaves_the_rest(tmp_path):
    source = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    state = {f"features.{i}": value.half() for i, value in enumerate(source.state_dict().values())}
    torch.save(state | {"classifier": torch.ones(7)}, tmp_path / "w.pth")
    backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    checkpoints.load_backbone(backbone, tmp_path / "w.pth")
    assert torch.equal(backbone[0].weight, source[0].weight.half().float())
    assert backbone[1].num_batches_tracked.dtype == torch.int64
    with pytest.raises(KdsegError, match=r"features\.0 has shape \(4, 3, 1, 1\), but weight of this backbone needs"):
        checkpoints.load_backbone(nn.Linear(2, 2), tmp_path / "w.pth")
    with pytest.raises(KdsegError, match="has 8 tensors, this backbone needs 14"):
        checkpoints.load_backbone(nn.Sequential(source, source, nn.Sequential()), tmp_path / "w.pth")


def test_the_weights_hash_sees_every_bit():
    layer = nn.BatchNorm2d(3)
    before = checkpoints.weights_hash(layer)
    layer.running_mean[1] += 1e-7
    assert checkpoints.weights_hash(layer) != before
