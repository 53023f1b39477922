import json

from benchmark.bench import main


def test_bench_measures_and_writes_ratios(tmp_path, capsys):
    """That it works, at a size that says nothing about speed."""
    assert main(["--rounds", "1", "--size", "64", "--batch", "2", "--out", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "step.json").read_text())
    assert report["step_over_floor"] > 0
    assert 0 <= report["loop_outside_networks_share"] < 1
    assert "heteroakd step s" in capsys.readouterr().out
