"""Bulk statements: rows come out the same by whatever way they went in."""

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlmodel import col

from catalog import bulk, copying
from catalog.db import Catalog
from catalog.models import File, Job, Replica
from catalog.outage import is_away
from catalog.states import JobState, ReplicaState
from catalog.storages import StorageInfo
from tests.conftest import EVERY_WAY

pytestmark = EVERY_WAY

HARD = ["plain", "tab\tin it", "line\nin it", "back\\slash", "\\N", "\\.", "ümläut ☃", "'quoted\""]


@pytest.fixture(params=[1, 10**9], ids=["copy", "insert"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows go by COPY, where there is one; or by INSERT."""
    monkeypatch.setattr(bulk, "COPY_ROWS", request.param)


def files(names: list[str], size: int = 1) -> list[dict[str, Any]]:
    """Rows of files."""
    return [
        {"scope": "s", "name": name, "size_bytes": size, "checksum": "adler32:00000001"}
        for name in names
    ]


@pytest.mark.usefixtures("way")
def test_any_text_comes_back_and_defaults_are_filled_in(catalog: Catalog) -> None:
    with catalog.write() as session:
        new = bulk.insert_new(session, File, files(HARD), col(File.id), col(File.name))
        assert sorted(name for _, name in new) == sorted(HARD)
        found = session.execute(sa.select(col(File.id), col(File.name), col(File.created_at))).all()
    assert {(row.id, row.name) for row in found} == set(map(tuple, new))
    assert all(row.created_at is not None for row in found)


@pytest.mark.usefixtures("way")
def test_rows_that_clash_stay_as_they_are(catalog: Catalog) -> None:
    with catalog.write() as session:
        assert bulk.insert_ignore(session, File, files(["a", "b"], size=1)) == 2
        assert bulk.insert_ignore(session, File, files(["b", "c", "c"], size=2)) == 1
        sizes = sa.select(col(File.name), col(File.size_bytes))
        assert dict(map(tuple, session.execute(sizes))) == {"a": 1, "b": 1, "c": 2}


@pytest.mark.usefixtures("way")
def test_what_clashes_is_told_as_often_as_it_was_given_in_vain(catalog: Catalog) -> None:
    with catalog.write() as session:
        assert bulk.insert_rest(session, File, [], "name") == []
        assert bulk.insert_rest(session, File, files(HARD), "name") == []
        again = bulk.insert_rest(session, File, files([HARD[1], "x", "y", "x", HARD[2]]), "name")
        assert sorted(again) == sorted([HARD[1], HARD[2], "x"])
        found = session.scalars(sa.select(col(File.name)))
        assert sorted(found) == sorted([*HARD, "x", "y"])


@pytest.mark.usefixtures("way")
def test_ids_of_new_rows_are_told_by_their_key(catalog: Catalog) -> None:
    with catalog.write() as session:
        ids = bulk.insert_keyed(session, File, files(HARD), "scope", "name")
        assert sorted(ids) == sorted(("s", name) for name in HARD)
        more = bulk.insert_keyed(session, File, files([HARD[1], "x", "x"]), "scope", "name")
        assert list(more) == [("s", "x")]
        found = session.execute(sa.select(col(File.id), col(File.name), col(File.created_at))).all()
    assert {("s", row.name): row.id for row in found} == ids | more
    assert all(row.created_at is not None for row in found)


@pytest.mark.usefixtures("way")
def test_states_and_values_come_back(catalog: Catalog, chain: Any, storage: StorageInfo) -> None:
    values = [None, {}, {"n": 1, "text": "tab\t\\N", "list": [None, 1.5, {"x": True}]}]
    with catalog.write() as session:
        task = session.execute(sa.select(col(Job.task_id))).scalars().first()
        rows = [
            {"task_id": task, "key": f"k{n}", "ordinal": 100 + n, "state": state, "values": value}
            for n, (state, value) in enumerate(zip(JobState, values, strict=False))
        ]
        bulk.insert_ignore(session, Job, rows)
        found = session.execute(
            sa.select(col(Job.state), col(Job.values), col(Job.attempt), col(Job.passed))
            .where(col(Job.ordinal) >= 100)
            .order_by(col(Job.ordinal))
        ).all()
        (file_id,) = bulk.insert_new(session, File, files(["f"]), col(File.id))[0]
        bulk.insert_ignore(
            session,
            Replica,
            [{"file_id": file_id, "storage_id": storage.id, "path": "p", "state": "BAD"}],
        )
        state = session.execute(sa.select(col(Replica.state))).scalars().all()
    assert [tuple(row) for row in found] == [
        (state, value, 0, False) for state, value in zip(JobState, values, strict=False)
    ]
    assert ReplicaState.BAD in state


@pytest.mark.usefixtures("way")
def test_rows_that_no_table_takes_are_an_error_of_the_statement(catalog: Catalog) -> None:
    wrong = [{"file_id": 1, "storage_id": 1, "path": "p", "state": "AVAILABLE"}]
    with pytest.raises(IntegrityError), catalog.write() as session:
        bulk.insert_rest(session, Replica, wrong, "path")


def test_a_server_that_goes_away_under_a_copy_is_an_outage(catalog: Catalog) -> None:
    if catalog.is_sqlite:
        pytest.skip("SQLite has no server")

    def names(pid: int) -> Iterator[str]:
        for n in range(100_000):
            if n == 1000:
                with catalog.read() as other:
                    other.execute(sa.select(sa.func.pg_terminate_backend(pid)))
            yield f"name {n}"

    with pytest.raises(DBAPIError) as caught, catalog.write() as session:
        connection = session.connection()
        pid = session.scalars(sa.select(sa.func.pg_backend_pid())).one()
        table = sa.Table("names", sa.MetaData(), sa.Column("name", sa.Text), prefixes=["TEMPORARY"])
        table.create(connection)
        copying.send(connection, table, {"name": names(pid)})
    assert is_away(caught.value)


def test_many_rows_go_by_copy_on_postgresql_alone(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[int] = []
    copied = bulk.copied
    monkeypatch.setattr(
        bulk, "copied", lambda *given: (used.append(len(given[-1])), copied(*given))[1]
    )
    with catalog.write() as session:
        bulk.insert_ignore(session, File, files([f"a{n}" for n in range(bulk.COPY_ROWS - 1)]))
        bulk.insert_ignore(session, File, files([f"b{n}" for n in range(bulk.COPY_ROWS)]))
    assert used == ([] if catalog.is_sqlite else [bulk.COPY_ROWS])
