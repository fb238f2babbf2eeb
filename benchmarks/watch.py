"""Looks into a PostgreSQL once a second: connections, and transactions that wait for a lock."""

import threading
from typing import Any

import psycopg

PERIOD_S = 1.0

_QUERY = """
SELECT count(*) FILTER (WHERE backend_type = 'client backend'),
       count(*) FILTER (WHERE wait_event_type = 'Lock'),
       (SELECT sum(deadlocks)::bigint FROM pg_stat_database)
FROM pg_stat_activity WHERE pid <> pg_backend_pid()
"""


class Watch:
    """Looks until it is left. Use as a context manager."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._seen: list[tuple[int, int, int]] = []

    def __enter__(self) -> "Watch":
        """Begin to look."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self._end.set()
        self._thread.join()

    def _look(self) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            while True:
                row = connection.execute(_QUERY).fetchone()
                assert row is not None
                self._seen.append((row[0], row[1], row[2]))
                if self._end.wait(PERIOD_S):
                    return

    def figures(self) -> dict[str, Any]:
        """The most connections, the waits for locks that were seen, and deadlocks."""
        return {
            "connections": max(row[0] for row in self._seen),
            "waited_for_locks": sum(row[1] for row in self._seen),
            "looks": len(self._seen),
            "deadlocks": self._seen[-1][2] - self._seen[0][2],
        }
