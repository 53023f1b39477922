"""Records from one machine to another: one archive, checked before anything of it counts, merged without duplicates."""

from __future__ import annotations

import gzip
import re
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmark.core.errors import KdsegError
from benchmark.core.files import file_sha256, make_folder, replacing, write_json
from benchmark.core.schema import parse, read_json
from benchmark.records.record import SCHEMA, Record, read_record
from benchmark.records.run_directory import set_aside
from benchmark.spec.runs import Manifest

FILES = ("run.json", "areas.npz", "record.json")
"""What travels of a run."""
STUDENTS = ("student.pth", "best.pth")
"""What travels with it if asked for."""
MEMBER = re.compile(rf"runs/[0-9a-f]{{16}}/({'|'.join(map(re.escape, (*FILES, *STUDENTS)))})|sweeps/\w[\w.-]*\.json")


@dataclass(frozen=True)
class Imported:
    """What became of the runs of an archive: ids that are new, ids that were there already, and what was refused."""

    new: tuple[str, ...]
    known: tuple[str, ...]
    refused: tuple[str, ...]


def export_records(folders: Iterable[Path], sweeps: Iterable[Path], file: Path, students: bool = False) -> list[str]:
    """Write the records in run directories, and sweeps' manifests, into a `.tar.gz`; equal content makes equal bytes.

    Returns:
        What was left out because it is damaged, one line each.

    Raises:
        KdsegError: there is no whole record, or the file cannot be written.
    """
    faults, members = [], {}
    for folder in sorted(folders):
        try:
            _checked(folder)
        except KdsegError as error:
            faults.append(str(error))
            continue
        for name in (*FILES, *(STUDENTS if students else ())):
            if (folder / name).is_file():
                members[f"runs/{folder.name}/{name}"] = folder / name
    if not members:
        raise KdsegError(f"{file}: no records to write ({'; '.join(faults) or 'none found'})")
    members |= {f"sweeps/{path.name}": path for path in sorted(sweeps)}
    make_folder(file.parent)
    with (
        replacing(file) as stream,
        gzip.GzipFile("", "wb", compresslevel=1, fileobj=stream, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        for name, path in members.items():
            archive.add(path, name, filter=_anonymous)
    return faults


def import_records(file: Path, folder_of: Callable[[str], Path], sweeps: Path) -> Imported:
    """Add the records of an archive to run directories (`folder_of` an id) and its manifests to `sweeps`.

    Every record is checked, and migrated if it is of an earlier schema, before it is put in place as a whole. A run
    that is there with an equal outcome stays as it is; a damaged record is set aside for the archive's; a run with
    another outcome, or unfinished, is refused.

    Raises:
        KdsegError: the file is no such archive, holds something else, or cannot be written; nothing was changed.
    """
    make_folder(sweeps.parent)
    with tempfile.TemporaryDirectory(prefix=".import-", dir=sweeps.parent) as temporary:
        unpacked = Path(temporary)
        _unpack(file, unpacked)
        new, known, refused = [], [], []
        for folder in sorted((unpacked / "runs").glob("*")):
            target = folder_of(folder.name)
            try:
                record = _checked(folder)
                if _is_known(record, target):
                    known.append(record.id)
                    continue
            except KdsegError as error:
                refused.append(str(error).replace(f"{unpacked}/", f"{file}: "))
                continue
            if read_json(folder / "record.json")["schema_version"] != SCHEMA:
                write_json(folder / "record.json", record.model_dump(mode="json"))
            make_folder(target.parent)
            _place(folder, target)
            new.append(record.id)
        for manifest in sorted((unpacked / "sweeps").glob("*.json")):
            refused += _add_manifest(manifest, sweeps / manifest.name, f"{file}: sweeps/{manifest.name}")
    return Imported(tuple(new), tuple(known), tuple(refused))


def _unpack(file: Path, folder: Path) -> None:
    try:
        with tarfile.open(file, "r:gz") as archive:
            for member in archive:
                if not (member.isreg() and MEMBER.fullmatch(member.name)):
                    raise KdsegError(
                        f"{file}: holds {member.name!r}, which is no part of a record; nothing was imported"
                    )
                archive.extract(member, folder, filter="data")
    except FileNotFoundError:
        raise KdsegError(f"{file}: no such file") from None
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise KdsegError(f"{file}: cannot be read as a whole archive of records: {error}") from None


def _checked(folder: Path) -> Record:
    """The record in a run directory, with the areas that it names.

    Raises:
        KdsegError: one is missing or damaged, or the folder is named after another run.
    """
    record = read_record(folder / "record.json")
    if record.id != folder.name:
        raise KdsegError(f"{folder}: holds the record of run {record.id}")
    areas = folder / "areas.npz"
    if record.areas_sha256 and not (areas.is_file() and file_sha256(areas) == record.areas_sha256):
        raise KdsegError(f"{areas}: is missing or not what the record says")
    return record


def _is_known(record: Record, target: Path) -> bool:
    """Whether the same outcome is at the target already.

    Raises:
        KdsegError: something else is there.
    """
    if not target.exists():
        return False
    if not (target / "record.json").exists():
        raise KdsegError(f"run {record.id}: was started here and is not finished; move {target} away to import it")
    try:
        existing = _checked(target)
    except KdsegError as error:
        set_aside(target / "record.json", str(error))
        return False
    same = ("outcome", "result", "divergence", "areas_sha256", "student_sha256")
    if any(getattr(existing, name) != getattr(record, name) for name in same):
        raise KdsegError(f"run {record.id}: is here with another outcome, which stays; {target / 'record.json'}")
    return True


def _place(folder: Path, target: Path) -> None:
    """Put a run directory in place, or its files into one whose record was damaged: the record last."""
    if not target.exists():
        folder.replace(target)
        return
    for file in sorted(folder.iterdir(), key=lambda file: file.name == "record.json"):
        file.replace(target / file.name)


def _add_manifest(source: Path, target: Path, where: str) -> list[str]:
    """Put a sweep's manifest in place; what was refused, and why."""
    try:
        manifest = parse(Manifest, read_json(source), where)
        if target.exists():
            existing = parse(Manifest, read_json(target), str(target))
            return [] if existing == manifest else [f"{where}: the sweep is here with other runs, which stay"]
    except KdsegError as error:
        return [str(error)]
    make_folder(target.parent)
    write_json(target, manifest.model_dump(mode="json"))
    return []


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Nobody's file of no time: an archive tells nothing about the machine."""
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    member.mode = 0o644
    return member
