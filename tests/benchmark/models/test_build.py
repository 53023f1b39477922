"""Networks: `networks.json` says what is built, and one forward pass gives every tap."""

from __future__ import annotations

import copy

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from benchmark.core.errors import KdsegError
from benchmark.method import IGNORE
from benchmark.models.build import build_network, facts, forward_taps, network_config
from benchmark.spec.networks import Family, networks

LARGE = ("deeplabv3_r101", "segformer_mit_b4", "deeplabv3_mit_b4")
ALL = [pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name for name in networks()]
SMALL = ("resnet_tiny", "deeplabv3_tiny", "segformer_tiny", "deeplabv3_mbv2", "pspnet_r18", "deeplabv3_mit_b0")
ODD = (65, 97)


def picture(n: int = 2, size: tuple[int, int] = ODD) -> torch.Tensor:
    return torch.randn(n, 3, *size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ALL)
def test_facts_are_those_of_the_built_network(name):
    assert facts(name) == networks()[name]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("classes", [3, 9])
def test_taps_have_the_stated_shape_at_an_odd_size(name, classes):
    network = build_network(name, classes).eval()
    with torch.no_grad():
        taps = forward_taps(network, picture())
    shapes = networks()[name].shapes(classes)
    assert taps.keys() == shapes.keys()
    for tap, tensor in taps.items():
        expected = tuple(-(-side // shapes[tap].stride) for side in ODD)
        assert tensor.shape == (2, shapes[tap].channels, *expected), tap


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("train", [True, False])
def test_one_forward_pass_of_every_part(name, train):
    network = build_network(name, 4).train(train)
    calls = []
    heads = [network.decode_head] + ([network.auxiliary_head] if network.with_auxiliary_head else [])
    for module in (network.backbone, *(head.conv_seg for head in heads)):
        module.register_forward_hook(lambda module, *_: calls.append(module))
    forward_taps(network, picture())
    assert len(calls) == len(set(map(id, calls))) == 1 + len(heads)


@pytest.mark.parametrize("name", SMALL)
def test_the_classifier_maps_its_tap_to_the_logits(name):
    network = build_network(name, 4).train()
    taps = forward_taps(network, picture())
    torch.testing.assert_close(network.decode_head.conv_seg(taps["pre_classifier"]), taps["logits"])
    assert not network.decode_head.conv_seg._forward_pre_hooks


@pytest.mark.parametrize("name", SMALL)
def test_the_task_loss_of_mmseg_follows_from_the_taps(name):
    network = build_network(name, 4).train()
    labels = torch.randint(0, 4, (2, 1, *ODD))
    labels[:, :, :9] = IGNORE
    samples = [SegDataSample(gt_sem_seg=PixelData(data=label), metainfo={"img_shape": ODD}) for label in labels]
    twin = copy.deepcopy(network)

    torch.manual_seed(0)
    expected = twin.loss(picture(), samples)
    torch.manual_seed(0)
    taps = forward_taps(network, picture(), ("logits", "aux_logits"))
    ours = network.decode_head.loss_by_feat(taps["logits"], samples)
    assert torch.equal(ours["loss_ce"], expected["decode.loss_ce"])
    if network.with_auxiliary_head:
        auxiliary = network.auxiliary_head.loss_by_feat(taps["aux_logits"], samples)
        assert torch.equal(auxiliary["loss_ce"], expected["aux.loss_ce"])


def test_only_the_named_taps_come_back():
    network = build_network("resnet_tiny", 4).eval()
    assert list(forward_taps(network, picture(), ("logits", "c4"))) == ["c4", "logits"]


def test_weights_are_those_of_the_seed():
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(build_network("segformer_tiny", 4).state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_building_is_silent(capfd):
    build_network("resnet_tiny", 4)
    assert capfd.readouterr() == ("", "")


def test_auxiliary_heads_are_for_resnets_and_swin_and_not_counted():
    network = build_network("deeplabv3_tiny", 19)
    without = sum(p.numel() for key, p in network.named_parameters() if not key.startswith("auxiliary_head"))
    assert networks()["deeplabv3_tiny"].parameters == without < sum(p.numel() for p in network.parameters())
    with_one = {name for name, entry in networks().items() if "aux_logits" in entry.taps}
    transformers = {name for name in with_one if networks()[name].family is Family.TRANSFORMER}
    assert transformers == {"upernet_swin_t"}
    assert "deeplabv3_mbv2" not in with_one and {"pspnet_r18", "pspnet_r18@cirkd", "deeplabv3_tiny"} <= with_one


def test_an_unknown_name_gets_a_hint():
    with pytest.raises(KdsegError, match=r"unknown model 'deeplabv3_r19'; did you mean .*deeplabv3_r18"):
        network_config("deeplabv3_r19", 19)


def test_config_is_plain_data():
    def plain(value) -> bool:
        if isinstance(value, dict):
            return type(value) is dict and all(map(plain, value.values()))
        return all(map(plain, value)) if type(value) in (list, tuple) else isinstance(value, str | int | float | None)

    assert all(plain(network_config(name, 19)) for name in networks())
