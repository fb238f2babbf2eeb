"""Numbers in JSON columns come back with their value and their type."""

import json
from typing import Any

import sqlalchemy as sa
from sqlmodel import col

from catalog import bulk
from catalog.db import Catalog
from catalog.jsontext import dumps
from catalog.models import Job
from catalog.states import JobState
from tests.conftest import EVERY_WAY

NUMBERS = [0.1, 1000.0, 1e15, 1e16, 1e23, -1.7976931348623157e308, 5e-324, 10**17, 2**63 - 1, 7]


@EVERY_WAY
def test_numbers_come_back_from_every_database(catalog: Catalog, chain: Any) -> None:
    value = {"numbers": NUMBERS, "1e+20": '1e+20 and \\" 1e+21'}
    with catalog.write() as session:
        task = session.execute(sa.select(col(Job.task_id))).scalars().first()
        row = {"task_id": task, "key": "k", "ordinal": 100, "state": JobState.READY}
        bulk.insert_ignore(session, Job, [{**row, "values": value}])
        session.add(Job(**{**row, "key": "l", "ordinal": 101}, values=value))
        session.flush()
        kept = sa.select(col(Job.values)).where(col(Job.ordinal) >= 100)
        found = session.execute(kept).scalars().all()
    # Not compared as text: jsonb has an order of keys of its own.
    assert found == [value, value]
    assert all(list(map(type, one["numbers"])) == list(map(type, NUMBERS)) for one in found)


def test_texts_that_look_like_numbers_stay_as_they_are() -> None:
    value = {"a": 'say "1e+16"', "1e+16": ["\\", "1e+16", 1e16]}
    assert json.loads(dumps(value)) == value
    assert dumps(1e16) == "10000000000000000.0"
