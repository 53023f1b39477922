import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine import Config
from mmseg.apis import inference_model, init_model
from PIL import Image

from benchmark.cli.__main__ import main
from benchmark.core.errors import KdsegError
from benchmark.core.paths import ROOT
from benchmark.data.datasets import val_dataset
from benchmark.deploy.export import export_student
from benchmark.deploy.load import NetworkChoice, find_run, load_network
from benchmark.deploy.mmseg_config import config_text, of_config, of_model, read_as_data
from benchmark.deploy.predict import CITYSCAPES_IDS, to_label_ids
from benchmark.deploy.score import score_network
from benchmark.models import checkpoints
from benchmark.records.areas import read_areas
from benchmark.spec import definitions
from benchmark.spec.definitions import Dataset
from benchmark.training.evaluation import count_areas
from tests.benchmark.models.test_checkpoints import Evil
from tests.conftest import World, shrink

CPU = torch.device("cpu")
DEMO = definitions.protocol("demo")

# What a stranger runs: nothing of ours, in isolated mode (`-I`: neither the current folder nor PYTHONPATH).
STRANGER = """
import importlib.util, sys, numpy as np
from mmseg.apis import inference_model, init_model
config, checkpoint, images, out = sys.argv[1:5]
assert importlib.util.find_spec("benchmark") is None
model = init_model(config, checkpoint, device="cpu")
found = [inference_model(model, image).pred_sem_seg.data.squeeze(0).numpy() for image in images.split(",")]
assert not {"benchmark", "baselines", "methods"} & {name.partition(".")[0] for name in sys.modules}
np.savez(out, *found, classes=model.dataset_meta["classes"])
"""
# mmseg's own evaluation, from the exported config with nothing changed but the places.
TESTER = """
import sys
from mmengine import Config
from mmengine.runner import Runner
config = Config.fromfile(sys.argv[1])
config.load_from, config.test_dataloader.dataset.data_root, config.work_dir = sys.argv[2:5]
config.test_dataloader.num_workers = 0
print("RESULT", Runner.from_cfg(config).test()["mIoU"])
assert not any(name.partition(".")[0] == "benchmark" for name in sys.modules)
"""


def stranger(code: str, *arguments, cwd: Path) -> str:
    """What a fresh Python without this project prints."""
    isolated = f"import sys, torch; torch.set_num_threads(1); {PURGE}\n" + code
    done = subprocess.run(
        [sys.executable, "-I", "-c", isolated, *map(str, arguments)], cwd=cwd, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


# An editable install puts the project on the path of every Python, with a finder or a path entry: take both away.
CHECKOUT = str(ROOT)
PURGE = (
    f"sys.path[:] = [p for p in sys.path if p != {CHECKOUT!r}]; "
    "sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in str(f).lower()]"
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished student's run directory, to be copied."""
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        world = World(tmp_path_factory.mktemp("student"))
        run = world.run("student")
        world.train([run])
    return world.directory(run).path


@pytest.fixture
def finished(world, trained):
    """A finished student's run directory in place `a` of the world."""
    return Path(shutil.copytree(trained, world.folder / "a" / "runs" / trained.name))


@pytest.fixture
def pictures(tmp_path, world):
    """The validation scenes as files, one of them in a folder of its own; their labels beside them."""
    folder = tmp_path / "pictures"
    (folder / "images" / "deep").mkdir(parents=True)
    (folder / "labels" / "deep").mkdir(parents=True)
    data = val_dataset(definitions.dataset("drawn"), None)
    for index, name in enumerate(data.names()):
        sample = data[index]
        place = f"deep/{name}" if index == 5 else name
        cv2.imwrite(str(folder / "images" / f"{place}.png"), sample["inputs"].permute(1, 2, 0).numpy())
        labels = sample["data_samples"].gt_sem_seg.data.squeeze(0).numpy().astype(np.uint8)
        cv2.imwrite(str(folder / "labels" / f"{place}.png"), labels)
    return folder


def files_of(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.png"), key=lambda file: file.name)


def areas_of(predictions, labels) -> np.ndarray:
    found = [
        count_areas(torch.from_numpy(p).long(), torch.from_numpy(t).long(), 9)
        for p, t in zip(predictions, labels, strict=True)
    ]
    return np.stack([areas.numpy() for areas in found])


def as_files(dataset: Dataset) -> Dataset:
    """The drawn set as a data set with files, as `pictures` writes them."""
    split = dataset.splits["val"].model_copy(update={"images": "images", "labels": "labels"})
    return dataset.model_copy(update={"layout": "files", "splits": {"val": split, "train": split}})


def tiny_checkpoint(folder: Path, classes: int, name="net", **meta) -> Path:
    """A fresh network of ours with its config beside it, as others would write them."""
    network = of_model("deeplabv3_tiny", classes, DEMO.normalisation).network
    checkpoints.save(folder / f"{name}.pth", {"state_dict": network.state_dict(), "meta": meta})
    drawn = definitions.dataset("drawn")
    names = [f"class {index}" for index in range(classes)]
    dataset = drawn.model_copy(update={"classes": tuple(names), "palette": ((0, 0, 0),) * classes})
    (folder / f"{name}.py").write_text(config_text("deeplabv3_tiny", dataset, DEMO.normalisation, {}))
    return folder / f"{name}.pth"


# Export ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_mmseg_alone_loads_an_export_and_predicts_what_our_evaluation_did(finished, pictures, tmp_path):
    config, checkpoint = export_student(finished, tmp_path / "out")
    images = files_of(pictures / "images")
    stranger(STRANGER, config, checkpoint, ",".join(map(str, images)), tmp_path / "found.npz", cwd=tmp_path / "out")
    found = np.load(tmp_path / "found.npz")
    assert tuple(found["classes"]) == definitions.dataset("drawn").classes
    labels = [cv2.imread(str(file), cv2.IMREAD_UNCHANGED) for file in files_of(pictures / "labels")]
    recorded = read_areas(finished / "areas.npz")[1]
    assert np.array_equal(areas_of([found[f"arr_{i}"] for i in range(6)], labels), recorded)


@pytest.mark.slow
def test_mmsegs_own_test_loop_scores_an_exported_config_as_we_did(finished, pictures, tmp_path):
    record = json.loads((finished / "record.json").read_text())
    text = config_text("deeplabv3_tiny", as_files(definitions.dataset("drawn")), DEMO.normalisation, {})
    (tmp_path / "c.py").write_text(text.replace("img_suffix='.jpg'", "img_suffix='.png'"))
    said = stranger(TESTER, tmp_path / "c.py", finished / "student.pth", pictures, tmp_path / "w", cwd=tmp_path)
    assert float(said.split("RESULT")[1]) == pytest.approx(record["result"]["last"]["miou"], abs=0.006)


def test_an_export_holds_strictly_the_students_keys_and_says_where_it_is_from(finished, tmp_path):
    config, checkpoint = export_student(finished, tmp_path)
    content, own = checkpoints.load(checkpoint), checkpoints.load(finished / "student.pth")
    assert list(content["state_dict"]) == list(own["state_dict"])
    assert content["meta"]["kdseg"]["run"] == finished.name
    drawn = definitions.dataset("drawn")
    assert content["meta"]["dataset_meta"]["palette"] == [list(colour) for colour in drawn.palette]
    assert str(tmp_path) not in config.read_text()
    assert read_as_data(config) == Config.fromfile(config).to_dict()


def test_the_best_weights_can_be_exported_while_they_are_there(finished, tmp_path):
    _, checkpoint = export_student(finished, tmp_path, best=True)
    assert checkpoint.stem.endswith("_best")
    (finished / "best.pth").unlink()
    with pytest.raises(KdsegError, match=r"best\.pth: is gone \(`kdseg clean` removes it\); leave --best out"):
        export_student(finished, tmp_path, best=True)


def test_the_dataloader_of_an_exported_config_is_a_stock_one():
    camvid = definitions.dataset("camvid")
    config = Config.fromstring(config_text("deeplabv3_tiny", camvid, DEMO.normalisation, {}), ".py")
    data = config.val_dataloader.dataset
    assert (data.type, data.img_suffix, data.ann_file) == ("BaseSegDataset", ".jpg", "splits/val.txt")
    assert data.metainfo.classes == list(camvid.classes) and config.val_evaluator.type == "IoUMetric"
    ade = definitions.dataset("ade20k")
    assert "reduce_zero_label=True" in config_text("deeplabv3_tiny", ade, DEMO.normalisation, {})


def test_only_whole_runs_are_exported(finished, world, teacher, tmp_path):
    with pytest.raises(KdsegError, match="neither a run of .* nor a run directory"):
        find_run("nope", tmp_path)
    assert find_run(finished.name, world.folder / "a") == finished
    poison = world.run("poison", teacher=teacher)
    world.train([poison], "a")
    with pytest.raises(KdsegError, match=r"diverged at iteration \d; there is no student"):
        export_student(world.directory(poison, "a").path, tmp_path)
    content = checkpoints.load(finished / "student.pth")
    content["state_dict"]["decode_head.conv_seg.bias"] += 1
    checkpoints.save(finished / "student.pth", content)
    with pytest.raises(KdsegError, match=r"its weights are not those that record\.json names"):
        export_student(finished, tmp_path)
    (finished / "record.json").unlink()
    with pytest.raises(KdsegError, match="is not finished"):
        export_student(finished, tmp_path)


# Eval ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_eval_finds_the_areas_of_the_record_from_run_export_and_model_alike(finished, tmp_path, capsys):
    export_student(finished, tmp_path / "out")
    student = tmp_path / "bare" / "student.pth"
    student.parent.mkdir()
    student.write_bytes((finished / "student.pth").read_bytes())
    (config,) = (tmp_path / "out").glob("*.py")
    ways = [
        (finished, NetworkChoice()),
        (finished / "student.pth", NetworkChoice()),
        (tmp_path / "out", NetworkChoice()),
        (student, NetworkChoice(config=config)),
        (student, NetworkChoice(model="deeplabv3_tiny", protocol="demo")),
    ]
    drawn, recorded = definitions.dataset("drawn"), read_areas(finished / "areas.npz")
    for checkpoint, choice in ways:
        found = score_network(load_network(checkpoint, choice, drawn), drawn, "val", None, CPU)
        assert found.names == recorded[0] and np.array_equal(found.areas, recorded[1])
    record = json.loads((finished / "record.json").read_text())
    assert main(["eval", str(tmp_path / "out"), "--format", "json", "--device", "cpu"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["mIoU"] == record["result"]["last"]["miou"] and said["IoU"] == record["result"]["last"]["iou"]
    assert main(["eval", str(finished), "--dataset", "drawn", "--device", "cpu"]) == 0
    text = capsys.readouterr().out
    assert f"mIoU {said['mIoU']:.2f}  mAcc" in text and "building" in text


def test_a_config_that_resizes_test_pictures_is_followed_as_mmseg_does(finished, pictures, tmp_path):
    config = Config.fromstring(export_student(finished, tmp_path)[0].read_text(), ".py")
    config.test_pipeline.insert(1, {"type": "Resize", "scale": (150, 70), "keep_ratio": True})
    config.model.data_preprocessor.test_cfg = {"size_divisor": 32}
    config.dump(tmp_path / "resizing.py")
    choice = NetworkChoice(config=tmp_path / "resizing.py")
    loaded = load_network(finished / "student.pth", choice)
    assert loaded.deployed.normalisation is None
    theirs = init_model(str(tmp_path / "resizing.py"), str(finished / "student.pth"), device="cpu")
    predictions = []
    for file in files_of(pictures / "images"):
        expected = inference_model(theirs, str(file)).pred_sem_seg.data.squeeze(0)
        assert torch.equal(loaded.deployed.to(CPU).labels(cv2.imread(str(file))), expected)
        predictions.append(expected.numpy())
    found = score_network(loaded, definitions.dataset("drawn"), "val", None, CPU)
    labels = [cv2.imread(str(file), cv2.IMREAD_UNCHANGED) for file in files_of(pictures / "labels")]
    assert np.array_equal(found.areas, areas_of(predictions, labels))


def test_sliding_windows_and_bgr_pixels_are_what_the_config_says(tmp_path, world):
    checkpoint = tiny_checkpoint(tmp_path, 9)
    text = checkpoint.with_suffix(".py").read_text()
    text = text.replace(
        "test_cfg=dict(mode='whole')", "test_cfg=dict(mode='slide', crop_size=(48, 48), stride=(32, 32))"
    )
    checkpoint.with_suffix(".py").write_text(text.replace("bgr_to_rgb=True", "bgr_to_rgb=False"))
    loaded = load_network(checkpoint, NetworkChoice())
    assert loaded.deployed.normalisation.channels == "bgr" and loaded.deployed.network.test_cfg.mode == "slide"
    drawn = definitions.dataset("drawn")
    found = score_network(loaded, drawn, "val", None, CPU)
    data = val_dataset(drawn, None)
    labels = [data[i]["data_samples"].gt_sem_seg.data.squeeze(0).numpy() for i in range(6)]
    ours = [loaded.deployed.labels(data[i]["inputs"].permute(1, 2, 0).numpy()).numpy() for i in range(6)]
    assert np.array_equal(found.areas, areas_of(ours, labels))


# Predict ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["labels", "palette"])
def test_predict_keeps_names_and_folders_and_writes_what_the_network_says(finished, pictures, tmp_path, kind, capsys):
    out = tmp_path / "predicted"
    images = pictures / "images"
    arguments = ["predict", str(finished), "--images", str(images), "--out", str(out), "--format", kind]
    assert main([*arguments, "--device", "cpu"]) == 0
    assert "6 images predicted" in capsys.readouterr().out
    assert [f.relative_to(out) for f in files_of(out)] == [f.relative_to(images) for f in files_of(images)]
    assert [file for file in out.rglob("*") if file.is_file()] and not list(out.rglob(".*"))
    written = [Image.open(file) for file in files_of(out)]
    assert {picture.mode for picture in written} == {"P" if kind == "palette" else "L"}
    if kind == "palette":
        palette = definitions.dataset("drawn").palette
        assert written[0].getpalette()[:27] == [value for colour in palette for value in colour]
    labels = [cv2.imread(str(file), cv2.IMREAD_UNCHANGED) for file in files_of(pictures / "labels")]
    recorded = read_areas(finished / "areas.npz")[1]
    assert np.array_equal(areas_of([np.array(picture) for picture in written], labels), recorded)


def test_cityscapes_wants_label_ids(tmp_path, pictures, capsys):
    labels = np.arange(19, dtype=np.uint8).reshape(1, 19)
    assert tuple(to_label_ids(labels)[0]) == CITYSCAPES_IDS
    assert len(set(CITYSCAPES_IDS)) == 19
    checkpoint = tiny_checkpoint(tmp_path, 19)
    place = ["--images", str(pictures / "images"), "--out", str(tmp_path / "ids"), "--format", "cityscapes"]
    assert main(["predict", str(checkpoint), *place, "--device", "cpu"]) == 0
    assert set(np.unique(np.array(Image.open(files_of(tmp_path / "ids")[0])))) <= set(CITYSCAPES_IDS)


def test_an_unreadable_image_is_named_and_the_others_are_predicted(finished, pictures, tmp_path, capsys):
    first, second, *rest = files_of(pictures / "images")
    first.write_bytes(first.read_bytes()[:300])
    second.write_text("no picture")
    place = ["--images", str(pictures / "images"), "--out", str(tmp_path / "out")]
    assert main(["predict", str(finished), *place, "--device", "cpu"]) == 1
    said = capsys.readouterr()
    assert said.err.count("left out: image ") == 2 and str(first) in said.err and str(second) in said.err
    assert "4 images predicted, 2 left out" in said.out
    assert len(files_of(tmp_path / "out")) == len(rest)


# What goes wrong -------------------------------------------------------------------------------------------------


def evil(folder: Path) -> Path:
    torch.save({"state_dict": Evil(folder / "trace")}, folder / "evil.pth")
    return folder / "evil.pth"


def test_every_mistake_about_networks_is_one_clear_line(world, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    net = tiny_checkpoint(tmp_path, 9).name
    (tmp_path / "empty").mkdir()
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "a.pth").write_bytes((tmp_path / net).read_bytes())
    evil(tmp_path)
    (tmp_path / "one.py").write_text("a = 1\n")
    (tmp_path / "broken.py").write_text("a = = 1\n")
    drawn = ["--dataset", "drawn"]
    ours = ["--model", "deeplabv3_tiny", "--protocol", "demo"]
    lines = {
        ("none.pth", *drawn): "none.pth: no such checkpoint or folder",
        ("empty", *drawn): "empty: holds 0 .pth files, not one; name the checkpoint itself",
        ("evil.pth", *drawn, *ours): "evil.pth: refused, nothing was run: it holds more than weights",
        ("alone/a.pth", *drawn): "alone/a.pth: of which network? There is no a.py, config.py or run.json beside it; "
        "pass --config FILE (an mmseg config), or --model NAME with --protocol NAME",
        (net, "--dataset", "camvid"): f"{net}: tells 9 classes apart, dataset camvid has 11",
        (net, "--dataset", "camvid", *ours): f"{net}: tells 9 classes apart, dataset camvid has 11",
        (net, *ours): f"{net}: does not say what it was trained on; pass --dataset NAME",
        (net, *drawn, "--model", "segformer_tiny", "--protocol", "demo"): f"{net}: does not fit this network: ",
        (net, *drawn, *ours, "--config", "net.py"): "--config and --model: both name the network; leave one out",
        (net, *drawn, *ours[:2]): "--model deeplabv3_tiny: needs --protocol too, which says how its pixels",
        (net, *drawn, *ours[2:]): "--protocol: goes with --model only; leave it out or name the network",
        (net, *drawn, "--config", "no.py"): "--config no.py: no such file",
        (net, *drawn, "--config", "one.py"): "one.py: no network can be built from it: ",
        (net, *drawn, "--config", "broken.py"): "--config broken.py: cannot be read: ",
        (net, "--dataset", "drown"): "unknown dataset 'drown'; did you mean drawn?",
    }
    for arguments, line in lines.items():
        assert main(["eval", *arguments, "--device", "cpu"]) == 2, arguments
        assert capsys.readouterr().err.strip().splitlines()[-1].startswith("error: " + line), arguments
    assert not (tmp_path / "trace").exists()


def test_every_mistake_about_images_is_one_clear_line(world, tmp_path, pictures, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    net = tiny_checkpoint(tmp_path, 9).name
    (tmp_path / "empty").mkdir()
    (tmp_path / "same").mkdir()
    for suffix in ("png", "jpg"):
        cv2.imwrite(str(tmp_path / "same" / f"a.{suffix}"), np.zeros((8, 8, 3), np.uint8))
    images = str(pictures / "images")
    lines = {
        ("none", "out"): "--images none: no such folder",
        ("empty", "out"): "--images empty: holds no images (.png .jpg",
        ("same", "out"): "same/a.png: would be written as out/a.png, as same/a.jpg would; rename one",
        (images, f"{images}/out"): f"--out {images}/out: lies in the folder of the images; name another place",
        (images, "out", "--format", "cityscapes"): f"--format cityscapes: needs Cityscapes' 19 classes; {net} has 9",
        (images, "out", "--format", "palette"): f"--format palette: {net} names no colours for 9 classes; pass --data",
        (images, f"{net}/out"): f"{net}/out: cannot be written: ",
    }
    for (folder, out, *more), line in lines.items():
        assert main(["predict", net, "--images", folder, "--out", out, *more, "--device", "cpu"]) == 2, line
        assert capsys.readouterr().err.strip().splitlines()[-1].startswith("error: " + line), line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("import os\nos.mkdir('trace')\n", 1),
        ("a = 1\n\nb = open('trace', 'w')\n", 3),
        ("model = dict(type='os.mkdir', path='trace')\n", 1),
        ("_base_ = ['base.py']\n", 1),
    ],
)
def test_a_config_that_is_only_found_is_never_run(tmp_path, monkeypatch, text, line):
    monkeypatch.chdir(tmp_path)
    checkpoint = tiny_checkpoint(tmp_path, 9)
    checkpoint.with_suffix(".py").write_text(text)
    with pytest.raises(KdsegError, match=rf"is more than data \(line {line}\) and was not run; if you trust it, pass"):
        load_network(checkpoint, NetworkChoice())
    assert not (tmp_path / "trace").exists()


def test_a_network_of_other_classes_is_noted(world, tmp_path, capsys):
    checkpoint = tiny_checkpoint(
        tmp_path, 9, CLASSES=[f"class {i}" for i in range(9)], PALETTE=[[i] * 3 for i in range(9)]
    )
    assert main(["eval", str(checkpoint), "--dataset", "drawn", "--device", "cpu"]) == 0
    assert "note: net.pth was trained on other classes than those of drawn" in capsys.readouterr().err
    assert load_network(checkpoint, NetworkChoice()).palette[3] == (3, 3, 3)


def test_a_run_of_another_protocol_version_is_not_taken_for_this_one(finished):
    data = json.loads((finished / "run.json").read_text())
    (finished / "run.json").write_text(json.dumps(data | {"protocol_hash": "0" * 16}))
    with pytest.raises(KdsegError, match="its protocol changed since"):
        load_network(finished, NetworkChoice())


def test_a_config_without_preprocessor_is_refused(tmp_path):
    checkpoint = tiny_checkpoint(tmp_path, 9)
    config = Config.fromfile(checkpoint.with_suffix(".py"))
    del config.model["data_preprocessor"]
    config.dump(checkpoint.with_suffix(".py"))
    with pytest.raises(KdsegError, match=r"model\.data_preprocessor is missing"):
        of_config(checkpoint.with_suffix(".py"), trusted=False)
