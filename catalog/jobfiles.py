"""Files of jobs: those that they are made from, that they read, and that they made."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog.bulk import chunks, table_of
from catalog.models import Companion, DatasetFile, File, JobInput, JobOutput, Replica
from catalog.refs import FileRef, ReplicaRef
from catalog.rowsets import among
from catalog.states import ReplicaState

_file, _replica, _companion = table_of(File), table_of(Replica), table_of(Companion)
_input, _output = table_of(JobInput), table_of(JobOutput)
_BESIDE = "/^"


@dataclass(frozen=True)
class SourceFile:
    """A file of an input dataset, at its place."""

    file_id: int
    name: str
    position: int


def source_files(session: Session, dataset_id: int, after: int, limit: int) -> list[SourceFile]:
    """Primary files of a dataset beyond a position, in its order, no position cut in two."""
    inside = sa.and_(col(DatasetFile.dataset_id) == dataset_id, col(DatasetFile.position) > after)
    page = (
        sa.select(col(DatasetFile.position))
        .where(inside)
        .order_by(col(DatasetFile.position))
        .limit(limit)
        .subquery()
    )
    last = sa.select(sa.func.max(page.c.position)).scalar_subquery()
    rows = session.execute(
        sa.select(col(DatasetFile.file_id), col(DatasetFile.name), col(DatasetFile.position))
        .join(File, col(File.id) == col(DatasetFile.file_id))
        .where(inside, col(DatasetFile.position) <= last, col(File.primary_id).is_(None))
        .order_by(col(DatasetFile.position), col(DatasetFile.name))
    )
    return [SourceFile(*row) for row in rows]


def outputs(
    session: Session, job_ids: Sequence[int], ports: Iterable[str]
) -> dict[tuple[int, str], list[int]]:
    """Primary output files by (job id, port), in order."""
    found: dict[tuple[int, str], list[int]] = {}
    rows = session.execute(
        sa.select(_output.c.job_id, _output.c.port, _output.c.file_id)
        .join(_file, _file.c.id == _output.c.file_id)
        .where(
            among(session, _output.c.job_id, job_ids),
            among(session, _output.c.port, list(ports)),
            _file.c.primary_id.is_(None),
        )
        .order_by(_output.c.job_id, _output.c.port, _output.c.position)
    )
    for job_id, port, file_id in rows:
        found.setdefault((job_id, port), []).append(file_id)
    return found


def files_by_name(
    session: Session, dataset_id: int, names: Sequence[str], *, primary: bool = False
) -> dict[str, int]:
    """Ids of a dataset's files by their names in it; `primary`: not of registered companions."""
    found: dict[str, int] = {}
    for batch in chunks(names):
        query = sa.select(col(DatasetFile.name), col(DatasetFile.file_id)).where(
            col(DatasetFile.dataset_id) == dataset_id, col(DatasetFile.name).in_(batch)
        )
        if primary:
            query = query.join(File, col(File.id) == col(DatasetFile.file_id)).where(
                col(File.primary_id).is_(None)
            )
        rows = session.execute(query)
        found.update({row.name: row.file_id for row in rows})
    return found


def file_refs(session: Session, file_ids: Sequence[int]) -> dict[int, FileRef]:
    """What a node needs to read these files, with their secondary files, by file id."""
    ids = list(dict.fromkeys(file_ids))
    # A look-up each: one with OR over the columns would read the whole table.
    mine = session.execute(_files().where(among(session, _file.c.id, ids))).all()
    beside = session.execute(_files().where(among(session, _file.c.primary_id, ids))).all()
    shared = session.execute(
        _files(_companion.c.primary_id)
        .join(_companion, _companion.c.file_id == _file.c.id)
        .where(among(session, _companion.c.primary_id, ids))
    ).all()
    rows = {row.id: row for row in (*mine, *beside, *shared)}
    places: dict[int, list[ReplicaRef]] = {}
    for file_id, storage_id, path, mtime_us in session.execute(
        sa.select(_replica.c.file_id, _replica.c.storage_id, _replica.c.path, _replica.c.mtime_us)
        .where(
            among(session, _replica.c.file_id, sorted(rows)),
            _replica.c.state == ReplicaState.AVAILABLE,
        )
        .order_by(_replica.c.id)
    ):
        places.setdefault(file_id, []).append(ReplicaRef(storage_id, path, mtime_us))
    plain = {
        i: FileRef(i, row.name, row.size_bytes, row.checksum, tuple(places.get(i, ())))
        for i, row in rows.items()
    }
    secondary: dict[int, list[FileRef]] = {}
    for row in sorted((*beside, *shared), key=lambda row: row.id):
        secondary.setdefault(row.primary_id, []).append(plain[row.id])
    return {i: replace(plain[i], secondary=tuple(secondary.get(i, ()))) for i in ids if i in plain}


def _files(primary: sa.Column[Any] = _file.c.primary_id) -> sa.Select[Any]:
    """What is asked of files: `primary` is the column that says what each accompanies."""
    return sa.select(
        _file.c.id, _file.c.name, _file.c.size_bytes, _file.c.checksum, primary.label("primary_id")
    )


def companion_port(port: str, file_id: int) -> str:
    """The port under which a job's inputs hold what accompanies a file of `port`."""
    return f"{port}{_BESIDE}{file_id}"


def inputs(session: Session, job_ids: Sequence[int]) -> dict[int, dict[str, tuple[FileRef, ...]]]:
    """Input files by job id and port, in order, with what accompanies them for this job."""
    rows = session.execute(
        sa.select(_input.c.job_id, _input.c.port, _input.c.file_id)
        .where(among(session, _input.c.job_id, job_ids))
        .order_by(_input.c.job_id, _input.c.port, _input.c.position)
    ).all()
    refs = file_refs(session, [row.file_id for row in rows])
    lists: dict[int, dict[str, list[FileRef]]] = {job_id: {} for job_id in job_ids}
    for job_id, port, file_id in rows:
        lists[job_id].setdefault(port, []).append(refs[file_id])
    return {job_id: _accompanied(ports) for job_id, ports in lists.items()}


def _accompanied(ports: Mapping[str, Sequence[FileRef]]) -> dict[str, tuple[FileRef, ...]]:
    """Files by port, those of companions' ports as secondary files of the ones they belong to."""
    return {
        port: tuple(
            replace(
                ref, secondary=(*ref.secondary, *ports.get(companion_port(port, ref.file_id), ()))
            )
            for ref in files
        )
        for port, files in ports.items()
        if _BESIDE not in port
    }
