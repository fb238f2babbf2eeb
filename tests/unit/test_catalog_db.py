"""Sessions of the catalog."""

import pytest

from catalog.db import Catalog


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
