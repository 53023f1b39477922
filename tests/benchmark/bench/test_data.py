import json

import pytest

from benchmark.bench.data import NEEDED, main


def test_bench_measures_every_step_of_both_protocols(tmp_path, capsys):
    """That it works, at a size that says nothing about speed."""
    assert main(["--rounds", "1", "--pictures", "2", "--size", "64", "128", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "data.json").read_text())["protocols"]
    assert set(found) == {"cirkd", "mmseg"}
    for protocol, scale in (("cirkd", "ScaleNative"), ("mmseg", "RandomResize")):
        steps = found[protocol]["steps_ms"]
        assert {"decode image", "decode label", scale, "RandomCrop", "RandomFlip"} <= set(steps)
        assert found[protocol]["bottleneck"] in steps
        assert found[protocol]["pictures_per_second"] == pytest.approx(1000 / sum(steps.values()))
        assert found[protocol]["workers_needed"] == pytest.approx(NEEDED / found[protocol]["pictures_per_second"])
    assert "decode image" in capsys.readouterr().out
