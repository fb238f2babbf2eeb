"""A clock that nobody has looked at for long."""

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from catalog.clock import wall
from catalog.db import Catalog
from catalog.models import CatalogClock


@contextmanager
def clock_of_another_boot(catalog: Catalog) -> Iterator[None]:
    """As after a start two days after the last sample, until the intake is there."""
    two_days_ago = {"boot": "another", "wall_s": wall() - 2 * 86400.0}
    for values in (two_days_ago, {"boot": ""}):
        with catalog.write() as session:
            session.execute(sa.update(CatalogClock).values(**values))
        if values is two_days_ago:
            yield
