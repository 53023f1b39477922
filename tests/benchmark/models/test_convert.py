"""Checkpoints of other codebases: here their networks give the outputs that were recorded there."""

from __future__ import annotations

import json
import math
import os
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmark.cli.__main__ import main
from benchmark.core.errors import KdsegError
from benchmark.models import checkpoints
from benchmark.models.build import build_network, forward_taps
from benchmark.models.convert import import_checkpoint
from benchmark.spec.networks import networks

FOLDER = Path(os.environ.get("KDSEG_GOLDEN_MODELS") or Path(__file__).parents[2] / "golden" / "models")
SMALL = "deeplabv3_r18@cirkd"


def uniform(key: str, shape: tuple[int, ...]) -> np.ndarray:
    random = np.random.Generator(np.random.Philox(seed=zlib.crc32(key.encode())))
    return random.random(math.prod(shape)).reshape(shape)


def unit(key: str, shape: tuple[int, ...]) -> np.ndarray:
    return (2 * uniform(key, shape) - 1) * math.sqrt(3.0)


def fill(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """The value of one tensor of a reference state dict, by the recipe the outputs were recorded with."""
    leaf = key.rpartition(".")[2]
    if leaf == "num_batches_tracked":
        return np.zeros(shape, dtype=np.int64)
    if leaf == "running_var":
        return 0.5 + uniform(key, shape)
    if leaf == "running_mean":
        return 0.1 * unit(key, shape)
    if len(shape) >= 2:
        return unit(key, shape) * math.sqrt(2.0 / math.prod(shape[1:]))
    if leaf == "weight":
        return (0.25 if key.endswith(".bn3.weight") else 1.0) * (1 + 0.1 * unit(key, shape))
    return 0.1 * unit(key, shape)


def reference(keys: Path) -> dict[str, Tensor]:
    """The reference's state dict, filled."""
    state = {}
    for key, shape in json.loads(keys.read_text())["state_dict"]:
        value = fill(key, tuple(shape))
        state[key] = torch.from_numpy(np.asarray(value)).to(torch.float32 if value.dtype.kind == "f" else torch.int64)
    return state


def our_name(stem: str) -> str:
    """`psp_resnet18`, `segformer_MiT_B0` or `deeplab_mobile` as a network of the flavour `cirkd`."""
    text = re.sub(r"_?(mobilenet_?v?2|mobilenet|mobile)(_(mobilenet_?v?2))?", "_mbv2", stem.lower())
    text = re.sub(r"resnet(\d+)", r"r\1", text)
    text = re.sub(r"mit_?b?(\d)$|(?<=segformer)_?b(\d)$", lambda m: f"_mit_b{m[1] or m[2]}", text).replace("__", "_")
    text = re.sub(r"^(psp|pspnet)_", "pspnet_", re.sub(r"^deeplab(v3)?_", "deeplabv3_", text))
    return f"{text}@cirkd"


CASES = sorted(FOLDER.glob("*__*x*.npz"))


def test_names_of_references() -> None:
    assert CASES, f"no model goldens in {FOLDER}"
    spelled = {
        "deeplabv3_resnet101": "deeplabv3_r101",
        "psp_resnet50": "pspnet_r50",
        "deeplabv3_mobilenetv2": "deeplabv3_mbv2",
        "deeplab_mobile": "deeplabv3_mbv2",
        "psp_mobile": "pspnet_mbv2",
        "deeplab_mobile_mobilenetv2": "deeplabv3_mbv2",
        "psp_mobilenet": "pspnet_mbv2",
        "segformer_MiT_B0": "segformer_mit_b0",
        "segformer_b4": "segformer_mit_b4",
        "segformer_mit_b1": "segformer_mit_b1",
    }
    for theirs, ours in spelled.items():
        assert our_name(theirs) == f"{ours}@cirkd" and our_name(theirs) in networks()


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_imported_network_gives_the_recorded_outputs(case: Path, tmp_path) -> None:
    stem = case.name.partition("__")[0]
    torch.save(reference(FOLDER / f"{stem}__keys.json"), tmp_path / "theirs.pth")
    state, meta = import_checkpoint(tmp_path / "theirs.pth", our_name(stem))
    with np.load(case, allow_pickle=False) as arrays:
        recorded = {key: arrays[key] for key in arrays.files if key != "meta"}
        about = json.loads(str(arrays["meta"]))
    network = build_network(our_name(stem), meta["classes"]).eval()
    network.load_state_dict(state)
    picture = torch.from_numpy(unit(about["input_key"], tuple(about["input_shape"])).astype(np.float32))
    with torch.no_grad():
        taps = forward_taps(network, picture)
        exact = forward_taps(network.double(), picture.double())
    taps["feat"], exact["feat"] = taps["pre_classifier"], exact["pre_classifier"]
    for name, facts in about["outputs"].items():
        value = taps[name]
        assert list(value.shape) == facts["shape"]
        stored = value[:, :: facts["channel_stride"]].numpy()
        np.testing.assert_allclose(stored, recorded[f"out.{name}"], rtol=0, atol=facts["tol_abs"], err_msg=name)
        sums = exact[name].sum(dim=(0, 2, 3)).numpy()
        limit = facts["tol_abs"] * value[0, 0].numel()
        np.testing.assert_allclose(sums, recorded[f"out.{name}_channel_sum"], rtol=0, atol=limit, err_msg=name)
        if f"out64.{name}" in recorded:
            ours = exact[name][:, :: facts.get("out64_channel_stride", 1)].numpy()
            np.testing.assert_allclose(ours, recorded[f"out64.{name}"], rtol=0, atol=1e-8, err_msg=f"{name}, float64")


PUBLISHED = {
    "deeplabv3_r101": 61.12,
    "deeplabv3_r50": 42.13,
    "deeplabv3_r18": 13.61,
    "deeplabv3_mbv2": 3.23,
    "pspnet_r101": 68.07,
    "pspnet_r50": 49.08,
    "pspnet_r18": 12.92,
    "pspnet_mbv2": 2.65,
    "segformer_mit_b0": 3.72,
    "segformer_mit_b1": 13.68,
    "segformer_mit_b2": 27.36,
    "segformer_mit_b4": 64.01,
}
"""Millions of parameters at 19 classes, auxiliary head included, counted in the CIRKD codebase."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_as_many_as_in_the_reference(name: str) -> None:
    with torch.device("meta") if "mit" not in name else torch.device("cpu"):
        from mmengine import ConfigDict
        from mmseg.registry import MODELS

        from benchmark.models.build import network_config

        built = MODELS.build(ConfigDict(network_config(f"{name}@cirkd", 19)))
    assert round(sum(p.numel() for p in built.parameters()) / 1e6, 2) == PUBLISHED[name]
    shown = networks()[f"{name}@cirkd"]
    assert round((shown.parameters + shown.auxiliary_parameters) / 1e6, 2) == PUBLISHED[name]


def nvlabs(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our SegFormer's state dict under the names of NVlabs' and CIRKD's code, written down independently."""
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        if parts := re.match(r"backbone\.layers\.(\d)\.0\.(projection|norm)\.(.*)", key):
            kind = {"projection": "proj", "norm": "norm"}[parts[2]]
            found[f"encoder.patch_embed{int(parts[1]) + 1}.{kind}.{parts[3]}"] = value
        elif parts := re.match(r"backbone\.layers\.(\d)\.2\.(.*)", key):
            found[f"encoder.norm{int(parts[1]) + 1}.{parts[2]}"] = value
        elif parts := re.match(r"backbone\.layers\.(\d)\.1\.(\d+)\.(.*)", key):
            start, rest = f"encoder.block{int(parts[1]) + 1}.{parts[2]}.", parts[3]
            if rest.startswith("attn.attn.in_proj_"):
                leaf, width = rest.rpartition("_")[2], len(value) // 3
                found[f"{start}attn.q.{leaf}"], found[f"{start}attn.kv.{leaf}"] = value[:width], value[width:]
                continue
            rest = rest.replace("attn.attn.out_proj", "attn.proj").replace("ffn.layers.1.", "mlp.dwconv.dwconv.")
            rest = rest.replace("ffn.layers.0.", "mlp.fc1.").replace("ffn.layers.4.", "mlp.fc2.")
            linear = re.search(r"fc[12]\.weight", rest)
            found[start + rest] = value[:, :, 0, 0] if linear else value
        elif parts := re.match(r"decode_head\.linears\.(\d)\.(.*)", key):
            found[f"head.linear_c{int(parts[1]) + 1}.proj.{parts[2]}"] = value
        else:
            key = key.replace("decode_head.fuse.", "head.linear_fuse.")
            found[key.replace("decode_head.conv_seg.", "head.linear_pred.")] = value
    return found


def test_segformer_under_its_authors_names_comes_back_bit_for_bit(tmp_path) -> None:
    network = build_network("segformer_mit_b0@cirkd", 5)
    theirs = nvlabs(network.state_dict())
    assert not any(key.startswith(("backbone.", "decode_head.")) for key in theirs)
    torch.save(theirs, tmp_path / "theirs.pth")
    state, meta = import_checkpoint(tmp_path / "theirs.pth", "segformer_mit_b0@cirkd")
    assert meta["classes"] == 5
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())


def test_layer_norms_have_the_eps_of_their_places() -> None:
    backbone = build_network("segformer_mit_b0@cirkd", 5).backbone
    embedding, blocks, last = backbone.layers[0]
    assert (embedding.norm.eps, blocks[0].attn.norm.eps) == (1e-5, 1e-5)
    assert (blocks[0].norm1.eps, blocks[0].norm2.eps, last.eps) == (1e-6, 1e-6, 1e-6)


def test_mobilenet_finds_its_place_by_order(tmp_path) -> None:
    network = build_network("deeplabv3_mbv2@cirkd", 5)
    theirs = {}
    for place, (key, value) in enumerate(network.state_dict().items()):
        backbone = key.startswith("backbone.")
        theirs[f"pretrained.net.features.{place}.{key.rpartition('.')[2]}" if backbone else key] = value
    torch.save(theirs, tmp_path / "theirs.pth")
    state, _ = import_checkpoint(tmp_path / "theirs.pth", "deeplabv3_mbv2@cirkd")
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    dilations = [
        [layer.conv.dilation[0] for layer in block.conv if layer.conv.groups > 1][0]
        for name in ("layer3", "layer4", "layer5", "layer6", "layer7")
        for block in getattr(network.backbone, name)
    ]
    assert dilations == [1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 4, 4, 4]


@pytest.mark.parametrize("kind", ["nvlabs", "torchvision"])
def test_backbones_alone_become_initial_weights(kind: str, tmp_path, capsys) -> None:
    name = "segformer_mit_b0" if kind == "nvlabs" else "deeplabv3_mbv2"
    network = build_network(f"{name}@cirkd", 5)
    own = network.backbone.state_dict()
    if kind == "nvlabs":
        theirs = {
            key.removeprefix("encoder."): v for key, v in nvlabs(network.state_dict()).items() if "head" not in key
        }
    else:
        theirs = {f"features.{place}": value for place, value in enumerate(own.values())}
    torch.save(theirs, tmp_path / "theirs.pth")
    command = ["import-checkpoint", str(tmp_path / "theirs.pth"), "--arch", name, "--flavour", "cirkd"]
    assert main([*command, "--out", str(tmp_path / "ours.pth")]) == 0
    assert "backbone" in capsys.readouterr().out
    other = build_network(f"{name}@cirkd", 7).backbone
    checkpoints.load_backbone(other, tmp_path / "ours.pth")
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in own.items())


def keys_file() -> Path:
    return Path(__file__).parents[2] / "golden" / "models" / "deeplabv3_resnet18__keys.json"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda state: state.pop("head.block.4.weight"), "1 missing"),
        (lambda state: state.update({"head.extra.weight": torch.zeros(1)}), "1 unexpected (first head.extra.weight)"),
        (lambda state: state.update({"pretrained.conv2.weight": torch.zeros(32, 32, 3, 3)}), "1 of another shape"),
    ],
)
def test_a_wrong_file_says_which_tensors_do_not_fit(damage, said: str, tmp_path) -> None:
    state = reference(keys_file())
    damage(state)
    torch.save(state, tmp_path / "theirs.pth")
    with pytest.raises(KdsegError, match=re.escape(said)) as error:
        import_checkpoint(tmp_path / "theirs.pth", SMALL)
    assert "\n" not in str(error.value)


def test_wrong_uses_are_one_clear_line(tmp_path, capsys) -> None:
    torch.save(reference(keys_file()), tmp_path / "theirs.pth")
    with pytest.raises(KdsegError, match="19 classes, not 21"):
        import_checkpoint(tmp_path / "theirs.pth", SMALL, classes=21)
    with pytest.raises(KdsegError, match="does not fit this network"):
        import_checkpoint(tmp_path / "theirs.pth", "deeplabv3_r18")  # mmseg's flavour
    torch.save({"nothing": 1}, tmp_path / "empty.pth")
    with pytest.raises(KdsegError, match="holds no tensors"):
        import_checkpoint(tmp_path / "empty.pth", SMALL)
    assert main(["import-checkpoint", str(tmp_path / "gone.pth"), "--arch", "deeplabv3_r18", "--out", "x"]) == 2
    assert "no such checkpoint" in capsys.readouterr().err


def test_an_imported_teacher_is_used_by_name(tmp_path, capsys) -> None:
    torch.save({"state_dict": {f"module.{k}": v for k, v in reference(keys_file()).items()}}, tmp_path / "theirs.pth")
    command = ["import-checkpoint", str(tmp_path / "theirs.pth"), "--arch", "deeplabv3_r18", "--flavour", "cirkd"]
    assert main([*command, "--out", str(tmp_path / "teacher.pth")]) == 0
    assert f"--teacher-model {SMALL}" in capsys.readouterr().out
    content = checkpoints.load(tmp_path / "teacher.pth")
    assert len(content["meta"]["source_sha256"]) == 64 and content["meta"]["classes"] == 19
    checkpoints.load_weights(build_network(SMALL, 19), tmp_path / "teacher.pth")
