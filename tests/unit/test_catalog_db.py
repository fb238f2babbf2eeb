"""Sessions of the catalog."""

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlmodel import col

from catalog import datasets
from catalog.db import Catalog
from catalog.models import Dataset
from catalog.outage import is_away


def test_a_transaction_inside_another_is_an_error_and_no_dead_lock(catalog: Catalog) -> None:
    if not catalog.is_sqlite:
        pytest.skip("writers of PostgreSQL need no queue")
    with (
        pytest.raises(RuntimeError, match="inside a transaction"),
        catalog.write(),
        catalog.write(),
    ):
        pass
    with catalog.write():
        """The error has left nothing locked."""


def test_a_client_cut_off_in_a_transaction_frees_its_rows(catalog: Catalog) -> None:
    if catalog.is_sqlite:
        pytest.skip("a process that ends frees its locks on a file")
    with catalog.write() as session:
        run = datasets.create(session, "run")
    hasty = "idle_in_transaction_session_timeout"
    with catalog.read() as session:
        assert session.execute(sa.text(f"SHOW {hasty}")).scalar_one() == "1min"
    url = catalog.url.update_query_dict({"options": f"-c {hasty}=200ms"})
    cut_off = Catalog(url.render_as_string(hide_password=False))
    locked = sa.select(Dataset.id).where(col(Dataset.id) == run).with_for_update()
    with pytest.raises(DBAPIError) as caught, cut_off.write() as silent:
        silent.execute(locked)
        with catalog.write() as session:
            session.execute(sa.text("SET LOCAL lock_timeout = '20s'"))
            assert session.execute(locked).scalar_one() == run
        silent.execute(locked)
    assert is_away(caught.value), "it tries again"
    cut_off.close()
