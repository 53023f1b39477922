import io
import json
import tarfile
from pathlib import Path

import pytest

from benchmark.cli.__main__ import main
from benchmark.core.errors import KdsegError
from benchmark.records.archive import import_records
from benchmark.records.areas import write_areas
from benchmark.records.migrations import MIGRATIONS
from benchmark.records.record import SCHEMA, Record, read_record, records
from benchmark.records.run_directory import write_manifest
from benchmark.spec.runs import Manifest
from tests.benchmark.builders import pair_records, record, run, setting

AREAS = [[[1, 2, 2, 1]] * 4]


def written(work_dir: Path, made: list[Record]) -> list[Record]:
    """The records, each with areas of its own, in a work directory."""
    import numpy as np

    found = []
    for place, each in enumerate(made):
        folder = work_dir / "runs" / each.id
        folder.mkdir(parents=True)
        sha = write_areas(folder / "areas.npz", ["a"], np.full((1, 4, 3), place)) if each.result else None
        found.append(each.model_copy(update={"areas_sha256": sha}))
        (folder / "record.json").write_text(found[-1].model_dump_json())
        (folder / "student.pth").write_bytes(b"weights")
    return found


@pytest.fixture
def here(tmp_path):
    made = written(tmp_path / "here", pair_records((setting("kd"), (51.0, None, 53.0))))
    write_manifest(tmp_path / "here", Manifest(sweep="s", runs=tuple(each.inputs for each in made)))
    return tmp_path / "here"


def command(action: str, work_dir: Path, file: Path, *more: str) -> int:
    return main(["records", action, str(file), "--work-dir", str(work_dir), *more])


def test_records_arrive_whole_and_once(here, tmp_path, capsys) -> None:
    file, there = tmp_path / "r.tar.gz", tmp_path / "there"
    assert command("export", here, file) == 0
    assert command("import", there, file) == 0
    assert records(there) == records(here)
    assert (there / "sweeps" / "s.json").read_bytes() == (here / "sweeps" / "s.json").read_bytes()
    assert not list(there.glob("runs/*/student.pth")) and not list(there.glob(".import-*"))
    assert command("import", there, file) == 0
    assert "0 new records, 7 were there already" in capsys.readouterr().out
    again = tmp_path / "again.tar.gz"
    assert command("export", there, again) == 0
    assert again.read_bytes() == file.read_bytes()
    assert command("export", here, file, "--students") == command("import", tmp_path / "third", file) == 0
    assert len(list((tmp_path / "third").glob("runs/*/student.pth"))) == 7


def test_merging_keeps_what_is_here_and_names_what_differs(here, tmp_path, capsys) -> None:
    file, there = tmp_path / "r.tar.gz", tmp_path / "there"
    command("export", here, file)
    known = records(here)[0]
    written(there, [record(known.inputs, 12.0), record(run(setting("cwd")), 50.0)])
    assert command("import", there, file) == 1
    shown = capsys.readouterr()
    assert "6 new records" in shown.out
    assert f"left out: run {known.id}: is here with another outcome, which stays" in shown.err
    assert len(records(there)) == 8
    assert read_record(there / "runs" / known.id / "record.json").result.last.miou == 12.0


def test_an_unfinished_run_here_is_not_overwritten(here, tmp_path, capsys) -> None:
    file, there = tmp_path / "r.tar.gz", tmp_path / "there"
    command("export", here, file)
    folder = there / "runs" / records(here)[0].id
    folder.mkdir(parents=True)
    assert command("import", there, file) == 1
    assert "was started here and is not finished" in capsys.readouterr().err
    assert not list(folder.iterdir())


def test_damaged_records_are_not_exported_but_named(here, tmp_path, capsys) -> None:
    first, second = sorted((here / "runs").glob("*"))[:2]
    (first / "record.json").write_text((first / "record.json").read_text()[:100])
    (second / "record.json").write_text((second / "record.json").read_text().replace('"miou":5', '"miou":NaN,"x":5'))
    assert command("export", here, tmp_path / "r.tar.gz") == 1
    shown = capsys.readouterr()
    assert "5 records" in shown.out
    assert f"{first / 'record.json'}: not readable as JSON" in shown.err
    assert str(second / "record.json") in shown.err


def archive(file: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(file, "w:gz") as made:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            made.addfile(member, io.BytesIO(content))
    return file


@pytest.mark.parametrize("name", ["../evil", "runs/0123456789abcdef/evil.sh", "/runs/0123456789abcdef/record.json"])
def test_an_archive_with_anything_else_is_refused_as_a_whole(tmp_path, name) -> None:
    file = archive(tmp_path / "r.tar.gz", {name: b"{}"})
    with pytest.raises(KdsegError, match="no part of a record; nothing was imported"):
        import_records(file, lambda run_id: tmp_path / "there" / run_id, tmp_path / "sweeps")
    assert not (tmp_path / "there").exists()


def test_a_truncated_archive_changes_nothing(here, tmp_path) -> None:
    file = tmp_path / "r.tar.gz"
    command("export", here, file)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(KdsegError, match="cannot be read as a whole archive"):
        import_records(file, lambda run_id: tmp_path / "there" / run_id, tmp_path / "sweeps")
    assert not (tmp_path / "there").exists()


def of_schema(made: Record, version: int) -> bytes:
    data = made.model_dump(mode="json")
    if version == 1:
        del data["cost"]["devices"]
    return json.dumps(data | {"schema_version": version}).encode()


def test_the_previous_schema_is_migrated_and_a_later_one_refused(tmp_path, capsys) -> None:
    old, new = record(run(), None), record(run(seed=1), None)
    members = {
        f"runs/{old.id}/record.json": of_schema(old, 1),
        f"runs/{new.id}/record.json": of_schema(new, SCHEMA + 1),
    }
    file = archive(tmp_path / "r.tar.gz", members)
    assert command("import", tmp_path / "there", file) == 1
    assert f"has schema {SCHEMA + 1}, this version reads 1 to {SCHEMA}" in capsys.readouterr().err
    data = json.loads((tmp_path / "there" / "runs" / old.id / "record.json").read_text())
    assert (data["schema_version"], data["cost"]["devices"], data["id"]) == (SCHEMA, 1, old.id)
    assert records(tmp_path / "there") == [old]


def test_every_schema_has_a_way_to_the_present_one() -> None:
    assert list(MIGRATIONS) == list(range(1, SCHEMA))


def test_a_damaged_record_is_set_aside_for_the_archives(here, tmp_path, capsys) -> None:
    file, whole = tmp_path / "r.tar.gz", records(here)
    assert command("export", here, file) == 0
    folder = here / "runs" / whole[0].id
    (folder / "record.json").write_text("{")
    (here / "runs" / whole[1].id / "areas.npz").unlink()
    assert command("import", here, file) == 0
    assert "2 new records" in capsys.readouterr().out
    assert records(here) == whole and (folder / "record.json.damaged").exists() and (folder / "student.pth").exists()
