"""The part of train that hyper-parameters are chosen on."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.cli.__main__ import main
from benchmark.core.errors import KdsegError
from benchmark.core.paths import ROOT
from benchmark.data.holdout import FEW, GAP, SHARE, cut
from benchmark.spec import definitions
from benchmark.spec.tuning import trials, tuning
from tests.benchmark.builders import run, setting, source

CAMVID, CITYSCAPES = definitions.dataset("camvid"), definitions.dataset("cityscapes")


@st.composite
def blocks(draw, least, most):
    """Images of several blocks, in any order."""
    sizes = draw(st.lists(st.integers(8, 40), min_size=least, max_size=most))
    return draw(
        st.permutations([f"block{key:02d}_{index:04d}" for key, size in enumerate(sizes) for index in range(size)])
    )


def block(name):
    return name.partition("_")[0]


@given(blocks(FEW, 20))
@settings(max_examples=40)
def test_of_many_blocks_whole_ones_are_held_out(names):
    rest, held = cut(names, block)
    assert sorted(rest + held) == sorted(names), "disjoint, and nothing is lost"
    assert not {*map(block, rest)} & {*map(block, held)}
    assert 0 < len(held) <= SHARE * len(names)
    assert (rest, held) == ([n for n in names if n in set(rest)], [n for n in names if n in set(held)]), "in order"
    assert {*held} == {*cut(names[::-1], block)[1]}, "whatever the order"


@given(blocks(1, FEW - 1))
@settings(max_examples=40)
def test_of_few_blocks_the_end_of_each_is_held_out_behind_a_gap(names):
    rest, held = cut(names, block)
    assert not {*rest} & {*held}
    for key in {*map(block, names)}:
        stretch = sorted(name for name in names if block(name) == key)
        kept = len(stretch) - int(SHARE * len(stretch))
        assert [name for name in stretch if name in held] == stretch[kept:]
        assert [name for name in stretch if name in rest] == stretch[: max(0, kept - GAP)]


def test_camvid_loses_the_ends_of_its_drives_and_cityscapes_whole_cities():
    frames = [f"{drive}_{index:06d}" for drive in ("0001TP", "0006R0", "0016E5", "Seq05V") for index in range(90)]
    rest, held = cut(frames, CAMVID.block)
    assert len(held) == 4 * 13 and len(rest) == len(frames) - len(held) - 4 * GAP
    assert held[:13] == frames[77:90] and rest[71] == frames[71] and frames[72] not in rest
    cities = [f"city{key:c}_{index:06d}_000019" for key in range(97, 115) for index in range(20)]
    _, held = cut(cities, CITYSCAPES.block)
    assert len(held) % 20 == 0 and len({CITYSCAPES.block(name) for name in held}) == len(held) // 20 == 2


def test_too_few_images_are_one_line():
    with pytest.raises(KdsegError, match="train-holdout: 3 training images are too few to hold some of them out"):
        cut(["a", "b", "c"], str)


def test_trials_are_the_settings_of_each_method_whatever_the_seed():
    held, val = {"data.select_on": "train-holdout"}, {}
    runs = [
        run(setting("kd", tau=tau), seed, source(), overrides=overrides)
        for tau in (1.0, 2.0)
        for seed in (0, 1)
        for overrides in (held, val)
    ]
    runs += [run(setting("cwd", tau=4.0), 0, source(), overrides=held), run(setting("mgd"), 0, source())]
    runs += [run(overrides=held)]
    assert trials(runs) == {"cwd": 1, "kd": 2}, "the student alone has nothing to choose"
    assert [tuning(each) for each in runs[:2]] == [True, False]


@pytest.mark.parametrize(("methods", "fair"), [("[student, kd, cwd]", True), ("[{name: kd, tau: [1, 2]}, cwd]", False)])
def test_a_tuning_sweep_says_how_many_settings_each_method_gets(methods, fair, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("slurm.local.run_jobs", lambda *_: [])
    text = (ROOT / "slurm/sweeps/tiny.yaml").read_text()
    (tmp_path / "t.yaml").write_text(re.sub(r"methods: .*", f"methods: {methods}", text))
    arguments = ["sweep", str(tmp_path / "t.yaml"), "--work-dir", str(tmp_path), "--select-on", "train-holdout"]
    assert main(arguments) == 0
    said = capsys.readouterr()
    assert f"settings tried: cwd 1, kd {1 if fair else 2}\n" in said.out
    assert ("unequal numbers of trials" in said.err) is not fair
