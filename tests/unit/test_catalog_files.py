"""Files: registering the same twice, finding, replicas and lineage."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlmodel import col

from catalog import events, files, lineage, storages
from catalog.bulk import COPY_ROWS
from catalog.db import Catalog
from catalog.errors import BadInput, BadName, Conflict, NotFound
from catalog.files import NewFileRow
from catalog.models import File, Replica
from catalog.refs import ReplicaRef
from catalog.stamps import Stamp
from catalog.states import ReplicaState
from catalog.storages import StorageInfo
from catalog.transitions import move

NewRows = Callable[..., list[NewFileRow]]


def counts(catalog: Catalog) -> tuple[int, int]:
    with catalog.read() as session:
        return tuple(  # type: ignore[return-value]
            session.execute(sa.select(sa.func.count()).select_from(model)).scalar_one()
            for model in (File, Replica)
        )


def test_registering_twice_gives_the_same_ids_and_rows(
    catalog: Catalog, storage: StorageInfo, new_rows: NewRows
) -> None:
    rows = new_rows("c", "a", "b")
    with catalog.write() as session:
        first = files.register(session, storage.id, rows)
    with catalog.write() as session:
        assert files.register(session, storage.id, [rows[1], rows[0]]) == [first[1], first[0]]
        assert files.register(session, storage.id, [rows[2], rows[2]]) == [first[2], first[2]]
        assert [files.by_ids(session, first)[i].name for i in first] == ["c", "a", "b"]
    assert counts(catalog) == (3, 3)


def test_thousands_of_files_are_registered_in_the_order_given(
    catalog: Catalog, storage: StorageInfo, new_rows: NewRows
) -> None:
    rows = new_rows(*(f"f{i * 7919 % 3000}" for i in range(3000)))
    with catalog.write() as session:
        ids = files.register(session, storage.id, rows)
        found = files.by_ids(session, ids)
    assert [found[i].name for i in ids] == [row.name for row in rows]


@pytest.mark.parametrize("change", [{"size_bytes": 7}, {"checksum": "adler32:00000001"}])
def test_other_bytes_under_a_known_name_are_refused(
    catalog: Catalog, storage: StorageInfo, new_rows: NewRows, change: dict[str, Any]
) -> None:
    (row,) = new_rows("a")
    with catalog.write() as session:
        files.register(session, storage.id, [row])
    with pytest.raises(Conflict, match="file raw:a is registered"), catalog.write() as session:
        files.register(session, storage.id, [*new_rows("b"), replace(row, **change)])
    with pytest.raises(Conflict, match="file raw:b is registered"), catalog.write() as session:
        files.register(session, storage.id, [*new_rows("b"), replace(row, name="b", **change)])
    assert counts(catalog) == (1, 1)


def test_a_path_holds_one_file_only(
    catalog: Catalog, storage: StorageInfo, new_rows: NewRows
) -> None:
    (row,) = new_rows("a")
    with catalog.write() as session:
        files.register(session, storage.id, [row])
    with pytest.raises(Conflict, match="path 'a' on storage 'raw'"), catalog.write() as session:
        files.register(session, storage.id, [replace(row, name="other")])
    assert counts(catalog) == (1, 1)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"name": "../a"}, BadName),
        ({"path": "/a"}, BadName),
        ({"scope": "a:b"}, BadName),
        ({"checksum": "12"}, BadInput),
        ({"size_bytes": -1}, BadInput),
    ],
)
def test_malformed_rows_are_refused(
    catalog: Catalog,
    storage: StorageInfo,
    new_rows: NewRows,
    change: dict[str, Any],
    error: type[Exception],
) -> None:
    (row,) = new_rows("a")
    with pytest.raises(error), catalog.write() as session:
        files.register(session, storage.id, [*new_rows("b"), replace(row, **change)])
    assert counts(catalog) == (0, 0)


def test_bare_checksums_are_stored_with_their_algorithm(
    catalog: Catalog, storage: StorageInfo
) -> None:
    row = NewFileRow("raw", "a", "a", 1, "D41D8CD98F00B204E9800998ECF8427E")
    with catalog.write() as session:
        (file_id,) = files.register(session, storage.id, [row])
        found = files.by_ids(session, [file_id])[file_id]
    assert found.checksum == "md5:d41d8cd98f00b204e9800998ecf8427e"


def test_find_takes_id_scoped_name_and_unique_name(
    catalog: Catalog, storage: StorageInfo, new_rows: NewRows
) -> None:
    rows = [*new_rows("a", "only/one"), replace(new_rows("a")[0], scope="other", path="o/a")]
    with catalog.write() as session:
        ids = files.register(session, storage.id, rows)
    with catalog.read() as session:
        assert files.find(session, str(ids[1])).name == "only/one"
        assert files.find(session, "only/one").id == ids[1]
        assert files.find(session, "other:a").id == ids[2]
        assert files.get(session, "raw", "a").id == ids[0]
        with pytest.raises(BadInput, match="such as other:a, raw:a"):
            files.find(session, "a")
        for text in ("nothing", "raw:nothing", "99999", "9" * 40, ""):
            with pytest.raises(NotFound):
                files.find(session, text)


def test_replicas_are_those_available(
    catalog: Catalog, storage: StorageInfo, new_rows: NewRows, tmp_path: Path
) -> None:
    rows = new_rows("a", "b")
    with catalog.write() as session:
        ids = files.register(session, storage.id, rows)
        second = storages.add(session, "copy", "local", "internal", str(tmp_path / "copy"))
        files.register(session, second.id, [replace(rows[0], path="x/a")])
        moved = files.mark_bad(session, ids, storage.id, "checksum differs")
        assert len(moved) == 2
        assert files.mark_bad(session, ids, storage.id) == []
    with catalog.read() as session:
        assert files.replicas(session, ids) == {
            ids[0]: (ReplicaRef(second.id, "x/a"),),
            ids[1]: (),
        }
        states = [(r.storage, r.state) for r in files.all_replicas(session, ids[0])]
        assert states == [("raw", ReplicaState.BAD), ("copy", ReplicaState.AVAILABLE)]
        (event,) = events.history(session, "replica", moved[0])
        assert (event.after, event.message) == ("BAD", "checksum differs")


def test_a_bad_replica_is_available_only_once_its_bytes_were_read(
    catalog: Catalog, storage: StorageInfo, new_rows: NewRows
) -> None:
    (row,) = new_rows("a")
    seen = replace(row, stamp=Stamp(row.size_bytes, 5))
    with catalog.write() as session:
        (file_id,) = files.register(session, storage.id, [seen])
        files.mark_bad(session, [file_id], storage.id)
    for told in (row, seen):
        with pytest.raises(Conflict, match="is BAD, so its bytes must be read"):
            register(catalog, storage, told)
    register(catalog, storage, replace(seen, read=True))
    assert available(catalog, storage) == [("a", 5)]


@pytest.mark.parametrize(
    ("before", "now", "read", "back"),
    [
        (5_000_001, 5_000_001, False, True),
        (5_000_000, 5_000_001, False, True),
        (5_000_001, 6_000_001, False, False),
        (None, 5_000_001, False, False),
        (5_000_001, None, False, False),
        (5_000_001, 6_000_001, True, True),
        (None, None, True, True),
    ],
)
def test_a_missing_replica_comes_back_with_its_stamp_or_by_a_read(
    catalog: Catalog,
    storage: StorageInfo,
    new_rows: NewRows,
    before: int | None,
    now: int | None,
    read: bool,
    back: bool,
) -> None:
    (row,) = new_rows("a")
    old = None if before is None else Stamp(row.size_bytes, before)
    new = None if now is None else Stamp(row.size_bytes, now)
    register(catalog, storage, replace(row, stamp=old))
    with catalog.write() as session:
        move(session, Replica, [1], ReplicaState.MISSING)
    if not back:
        with pytest.raises(Conflict, match="is MISSING, so its bytes must be read"):
            register(catalog, storage, replace(row, stamp=new, read=read))
        return
    register(catalog, storage, replace(row, stamp=new, read=read))
    assert available(catalog, storage) == [("a", now if read and now else before)]


def test_what_was_written_to_since_is_registered_again_only_once_it_was_read(
    catalog: Catalog, storage: StorageInfo, new_rows: NewRows
) -> None:
    """And then has its new stamp; one that nobody looked at keeps the one it had."""
    (row,) = new_rows("a")
    register(catalog, storage, replace(row, stamp=Stamp(row.size_bytes, 5_000_001)))
    later = replace(row, stamp=Stamp(row.size_bytes, 9_000_001))
    with pytest.raises(Conflict, match="was written to since it was registered"):
        register(catalog, storage, later)
    register(catalog, storage, row)
    assert available(catalog, storage) == [("a", 5_000_001)]
    register(catalog, storage, replace(later, read=True))
    assert available(catalog, storage) == [("a", 9_000_001)]


def test_many_files_have_their_stamps_and_one_of_another_size_has_none(
    catalog: Catalog, storage: StorageInfo, new_rows: NewRows
) -> None:
    """So many that they go by COPY on PostgreSQL; a date in 2300 is a number, too."""
    times = [10_413_792_000_000_001 + i for i in range(COPY_ROWS + 1)]
    rows = new_rows(*(f"{i:04}" for i in range(len(times))))
    stamped = [replace(r, stamp=Stamp(r.size_bytes, t)) for r, t in zip(rows, times, strict=True)]
    stamped[0] = replace(rows[0], stamp=Stamp(rows[0].size_bytes + 1, 5))
    register(catalog, storage, *stamped)
    assert available(catalog, storage) == [
        (f"{i:04}", time_us if i else None) for i, time_us in enumerate(times)
    ]


def register(catalog: Catalog, storage: StorageInfo, *rows: NewFileRow) -> None:
    with catalog.write() as session:
        files.register(session, storage.id, rows)


def available(catalog: Catalog, storage: StorageInfo) -> list[tuple[str, int | None]]:
    """Paths and stamps of the copies that may be used."""
    chosen = col(Replica.storage_id) == storage.id, col(Replica.state) == ReplicaState.AVAILABLE
    query = sa.select(col(Replica.path), col(Replica.mtime_us)).where(*chosen)
    with catalog.read() as session:
        return [tuple(row) for row in session.execute(query.order_by(col(Replica.path)))]


def test_the_path_of_a_replica_that_is_being_deleted_is_not_used_again(
    catalog: Catalog, storage: StorageInfo, new_rows: NewRows
) -> None:
    with catalog.write() as session:
        (file_id,) = files.register(session, storage.id, new_rows("a"))
        ids = [replica.id for replica in files.all_replicas(session, file_id)]
        move(session, Replica, ids, ReplicaState.DELETING)
    with (
        pytest.raises(Conflict, match="is being deleted; register it once"),
        catalog.write() as session,
    ):
        files.register(session, storage.id, new_rows("a"))


def test_lineage_leads_back_to_all_raw_files(catalog: Catalog, chain: Any) -> None:
    with catalog.read() as session:
        found = lineage.lineage(session, chain.merged)
    assert [(s.file.id, s.depth) for s in found.steps] == [
        (chain.merged, 0),
        (chain.decoded[0], 1),
        (chain.decoded[1], 1),
        (chain.raw[0], 2),
        (chain.raw[1], 2),
    ]
    top = found.steps[0]
    assert top.made_by is not None
    assert (top.made_by.stage, top.made_by.key, top.made_by.attempt) == ("merge", "g0", 1)
    assert (top.made_by.template, top.made_by.workflow_id) == ("md5", chain.workflow)
    assert top.inputs == chain.decoded
    assert [f.id for f in found.raw] == list(chain.raw)
    assert not found.truncated


def test_lineage_of_a_log_is_that_of_its_job(catalog: Catalog, chain: Any) -> None:
    with catalog.read() as session:
        found = lineage.lineage(session, chain.log)
    top = found.steps[0]
    assert top.file.id == chain.log
    assert top.made_by is not None
    assert (top.made_by.job_id, top.made_by.port) == (chain.merge_job, "log")
    assert [f.id for f in found.raw] == list(chain.raw)


def test_lineage_of_a_raw_file_is_itself(catalog: Catalog, chain: Any) -> None:
    with catalog.read() as session:
        (step,) = lineage.lineage(session, chain.raw[0]).steps
        with pytest.raises(NotFound):
            lineage.lineage(session, 99_999)
    assert (step.file.id, step.made_by, step.inputs) == (chain.raw[0], None, ())


def test_lineage_is_bounded_in_depth_and_size(catalog: Catalog, chain: Any) -> None:
    with catalog.read() as session:
        short = lineage.lineage(session, chain.merged, limit=2)
        shallow = lineage.lineage(session, chain.merged, max_depth=1)
    assert (len(short.steps), short.truncated) == (2, True)
    assert {step.depth for step in shallow.steps} == {0, 1}


def test_consumers_are_the_jobs_that_read_a_file(catalog: Catalog, chain: Any) -> None:
    with catalog.read() as session:
        (reader,) = lineage.consumers(session, chain.decoded[0])
        assert lineage.consumers(session, chain.merged) == []
    assert (reader.job_id, reader.stage, reader.port) == (chain.merge_job, "merge", "in")
