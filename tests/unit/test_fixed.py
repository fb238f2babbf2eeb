"""Fixed files: stored once by their content, and never taken for what another has put there."""

from pathlib import Path

import pytest

from catalog import storages
from catalog.db import Catalog
from catalog.errors import Conflict
from catalog.models import StorageKind, StorageRole
from flows.fixed import store_file


def test_other_bytes_at_its_place_are_not_taken_for_a_fixed_file(
    catalog: Catalog, tmp_path: Path
) -> None:
    with catalog.write() as session:
        root = tmp_path / "internal"
        storages.add(session, "internal", StorageKind.LOCAL, StorageRole.INTERNAL, str(root))
    table = tmp_path / "table"
    table.write_text("1 2 3")
    first = store_file(catalog, table)
    assert store_file(catalog, table) == first, "once"
    (place,) = root.rglob("table")
    place.unlink()
    place.write_text("3 2 1")
    with pytest.raises(Conflict, match="has other bytes under"):
        store_file(catalog, table)
    assert place.read_text() == "3 2 1"
