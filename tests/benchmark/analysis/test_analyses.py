"""Analyses on real networks: what they choose, what they write, and the figures that follow."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmark.analysis import cka, panels
from benchmark.analysis.sources import Workplace, choose, known_files
from benchmark.core.errors import KdsegError
from benchmark.records.analyses import Panels, Similarities, read_all
from benchmark.records.areas import read_areas, scores
from benchmark.records.record import records
from benchmark.report.figures import KINDS, Sources
from benchmark.results.results import Results
from benchmark.spec.job_file import write_job
from tests.benchmark.builders import pair_records, record, run, setting


def test_images_are_those_at_the_quantiles_and_unlabelled_ones_have_no_place():
    mious = [50.0, 10.0, float("nan"), 30.0, 40.0, 20.0]
    assert panels.quantile_images(mious, (0.0, 0.5, 1.0)) == [1, 3, 0]
    assert panels.quantile_images([5.0, 5.0, 5.0], (0.0, 1.0)) == [0, 2]
    with pytest.raises(ValueError, match="1 images cannot fill 3 rows"):
        panels.quantile_images([1.0, float("nan")])


@pytest.mark.parametrize(("count", "sizes"), [(80, [16] * 5), (5, [5]), (33, [17, 16]), (2000, [16] * 16)])
def test_mini_batches_spread_neighbours_and_hold_every_chosen_image_once(count, sizes):
    batches = cka.mini_batches(count)
    flat = sorted(index for batch in batches for index in batch)
    assert [len(batch) for batch in batches] == sizes
    assert len(set(flat)) == len(flat) and max(flat) == count - 1
    assert all(b - a >= len(batches) for batch in batches for a, b in zip(batch, batch[1:], strict=False))


def test_choosing_names_what_is_wrong():
    made = pair_records((setting("kd"), [51.0]), student=(50.0,))
    assert [len(pupils.records) for group in choose(made, None, []) for pupils in group] == [2]
    for arguments, message in [
        ((made, "voc", []), "unknown dataset 'voc'"),
        ((made, None, ["kdd"]), "unknown method 'kdd'; did you mean kd"),
        ((made[:1], None, []), "no finished run with a teacher"),
        (([], None, []), "no finished run with a teacher"),
        (([*made, record(run(dataset="voc"))], None, []), "records of drawn, voc; name one with --dataset"),
    ]:
        with pytest.raises(KdsegError, match=message):
            choose(*arguments)
    with pytest.raises(KdsegError, match="--teacher .*gone.pth: no such file"):
        known_files(Path("nowhere"), [Path("gone.pth")])


@pytest.fixture
def trained(world, teacher):
    """A student alone and one with KD, trained beside their teacher."""
    world.train([world.run("student"), world.run("kd", teacher=teacher)], "a")
    place = Workplace(world.folder / "a", {}, None, torch.device("cpu"))
    return place, choose(records(place.work_dir), None, [])


@pytest.mark.slow
def test_cka_is_of_the_networks_that_the_records_name(trained, teacher):
    place, groups = trained
    (file,) = cka.analyze(groups, place, lambda line: None)
    ((_, content),) = read_all(Similarities, place.work_dir)
    assert (content.images, len(content.rows)) == (6, 2)
    pupils = groups[0][0]
    images = place.images(pupils.run)
    grams = cka.network_grams(place.load(teacher, pupils.run), images, cka.mini_batches(6), place)
    assert cka.cka(grams["c4"], grams["c4"]) == pytest.approx(1.0)
    for row in content.rows:
        assert all(value is None or -1 <= value <= 1.0001 for taps in row.values.values() for value in taps.values())
    first = file.read_bytes()
    cka.analyze(groups, place, lambda line: None)
    assert file.read_bytes() == first

    (figure,) = KINDS["cka"](Sources(Results.of(records(place.work_dir)), place.work_dir))
    assert {row["method"] for row in figure.data} == {"Student alone", "KD"}
    assert "All pairs here are heterogeneous" in figure.caption and "6 validation images" in figure.caption
    file.write_text(json.dumps({"origin": {"schema_version": 7}}))
    with pytest.raises(KdsegError, match="has schema 7, this version reads 1"):
        list(read_all(Similarities, place.work_dir))


@pytest.mark.slow
def test_panels_show_what_was_validated(trained):
    place, groups = trained
    (file,) = panels.analyze(groups, place, lambda line: None)
    ((_, content),) = read_all(Panels, place.work_dir)
    assert [row.quantile for row in content.rows] == [0.1, 0.5, 0.9]
    student = next(r for r in groups[0][0].records if r.inputs.method.name == "student")
    names, areas = read_areas(place.work_dir / "runs" / student.id / "areas.npz")
    for row in content.rows:
        cell = next(cell for cell in row.cells if cell.run == student.id)
        assert cell.miou == pytest.approx(scores(areas[names.index(row.name)]).miou), "as it was validated"
        truth, labels = (np.asarray(Image.open(file.parent / name)) for name in (row.truth, cell.file))
        counted = truth != 255
        assert cell.errors == pytest.approx(100 * np.mean(labels[counted] != truth[counted]))

    found = Results.of(records(place.work_dir))
    (figure,) = KINDS["panels"](Sources(found, place.work_dir))
    assert {row["column"] for row in figure.data} == {"Teacher", "Student alone", "KD"}
    (file.parent / content.rows[0].truth).unlink()
    with pytest.raises(KdsegError, match=r"truth_0.png is gone; run kdseg analyze panels again"):
        KINDS["panels"](Sources(found, place.work_dir))


def test_checkpoints_of_local_and_of_slurm_jobs_are_known(world, tmp_path):
    job = world.job([world.run()])
    for name, digest in {"jobs/a.json": "1" * 64, "slurm/sweep.1/job_0.json": "2" * 64}.items():
        (tmp_path / name).parent.mkdir(parents=True)
        write_job(tmp_path / name, job.model_copy(update={"files": {digest: name}}))
    (tmp_path / "jobs" / "b.json").write_text(job.model_dump_json())  # as jobs were before they had a version
    assert known_files(tmp_path, []) == {"1" * 64: "jobs/a.json", "2" * 64: "slurm/sweep.1/job_0.json"}
