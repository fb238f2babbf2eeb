"""Sessions: short transactions on SQLite or PostgreSQL, and nothing slow inside them."""

import fcntl
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.pool import ConnectionPoolEntry
from sqlmodel import Session

from catalog import cattime, clock
from catalog.cattime import Observer
from catalog.jsontext import dumps
from catalog.places import sqlite_path
from catalog.settings import get_settings
from catalog.turnstile import Turnstile

_PATIENCE = {
    "connect_timeout": "10",
    "tcp_user_timeout": "30000",
    "keepalives_idle": "15",
    "keepalives_interval": "5",
    "keepalives_count": "3",
}
"""Of libpq: a server that was cut off is an error within half a minute, not within a quarter of an
hour. The URL may say otherwise."""

_SERVER_PATIENCE = {
    "idle_in_transaction_session_timeout": "60s",
    "tcp_user_timeout": "30s",
    "tcp_keepalives_idle": "15",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}
"""Of the server: a client that was cut off in a transaction doesn't keep its rows locked.

A pooler takes no settings for the server; its own configuration says the same.
"""

_PLANNER = {"random_page_cost": "1.1"}
"""Of the server: pages of an index are about as near as those of a table, as they are on flash.

Else a table that has just grown, of which there are no statistics yet, is read and sorted anew for
each page of a listing. A pooler's own configuration says the same.
"""


class Catalog:
    """A connection to one catalog.

    On SQLite every write transaction first takes a file lock beside the database
    (`catalog.lock`): SQLite's own busy timeout starves some writers under load.

    Sessions go through the `pooler` (host:port) where one is named; `url` is the database's own.
    """

    def __init__(self, url: str, *, pool_size: int = 8, pooler: str = "") -> None:
        self.url = sa.make_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._observer = observer = Observer()
        if self.is_sqlite:
            self._lock_path: Path | None = _lock_path(self.url.database)
            self._reader = _sqlite_engine(self.url, "BEGIN", observer)
            self._writer = _sqlite_engine(self.url, "BEGIN IMMEDIATE", observer)
            self._glancer = _sqlite_engine(self.url, None, observer)
        else:
            self._lock_path = None
            self._reader = self._writer = _postgresql_engine(
                self.url, pooler, observer, pool_size=pool_size
            )
            self._glancer = self._reader.execution_options(isolation_level="AUTOCOMMIT")
        self._direct = self._writer
        if pooler and not self.is_sqlite:
            self._direct = _postgresql_engine(self.url, "", observer, poolclass=sa.NullPool)
        self._turnstile = Turnstile()
        self._writing: int | None = None

    @property
    def is_missing(self) -> bool:
        """Whether it is an SQLite whose file isn't there; to connect would make an empty one."""
        return self._lock_path is not None and not self.file.exists()

    @property
    def file(self) -> Path:
        """The file that an SQLite catalog is in."""
        return sqlite_path(str(self.url.database))

    @property
    def where(self) -> str:
        """Its URL for people: without a password, and with a file's path as it is."""
        if self.is_sqlite:
            return f"sqlite:///{self.file}"
        return self.url.render_as_string(hide_password=True)

    @property
    def engine(self) -> sa.Engine:
        """The engine that writes, past any pooler: for migrations."""
        return self._direct

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session that only reads."""
        with clock.apart(), Session(self._reader) as session:
            yield session

    def glance(self, statement: str) -> Sequence[Any]:
        """The one row that a statement gives, which only reads, without a transaction around it.

        For what is looked at several times a second: it costs a third of a session's. The text is
        what `prepared` makes of a statement, so values are as the driver gives them.
        """
        with clock.apart(), self._glancer.connect() as connection:
            if clock.has_now(statement):
                if self.is_sqlite:
                    cattime.begin_sqlite(self._observer, connection)
                statement = clock.with_now(statement)
            return tuple(connection.exec_driver_sql(statement).one())

    def prepared(self, statement: sa.Select[Any]) -> str:
        """The text of a statement with its values in it, for `glance`."""
        options = {"literal_binds": True}
        return str(statement.compile(self._glancer, compile_kwargs=options))

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction: committed at the end of the block, rolled back on an error."""
        with ExitStack() as stack:
            stack.enter_context(clock.apart())
            if self.is_sqlite:
                stack.enter_context(self.lock())
            session = stack.enter_context(Session(self._writer, expire_on_commit=False))
            with session.begin():
                yield session

    @contextmanager
    def lock(self) -> Iterator[None]:
        """SQLite's queue of writers, among the threads of this process and all processes."""
        if self._writing == threading.get_ident():
            raise RuntimeError("a transaction inside a transaction of the same thread")
        with self._turnstile:
            self._writing = threading.get_ident()
            try:
                with self._file_lock():
                    yield
            finally:
                self._writing = None

    @contextmanager
    def _file_lock(self) -> Iterator[None]:
        if self._lock_path is None:
            yield
            return
        descriptor = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Give back the connections."""
        self._reader.dispose()
        self._writer.dispose()
        self._glancer.dispose()


def _postgresql_engine(url: sa.URL, pooler: str, observer: Observer, **pool: Any) -> sa.Engine:
    """An engine that reaches the database of `url`, at the address of the `pooler` if there is one.

    A pooler lends a server's connection for a transaction. Statements prepared there would be
    another client's, so nothing is prepared.
    """
    arguments: dict[str, Any] = {**_PATIENCE, **url.query}
    if pooler:
        host, _, port = pooler.rpartition(":")
        url = url.difference_update_query(("host", "port")).set(host=host, port=int(port))
        arguments = {**_PATIENCE, **url.query, "prepare_threshold": None}
    else:
        ours = [f"-c {name}={value}" for name, value in (_SERVER_PATIENCE | _PLANNER).items()]
        arguments["options"] = " ".join([*ours, arguments.get("options", "")])
    engine = sa.create_engine(
        url.set(drivername="postgresql+psycopg"),
        connect_args=arguments,
        isolation_level="READ COMMITTED",
        json_serializer=dumps,
        **pool,
    )
    event.listen(engine, "checkout", partial(_greet, engine.dialect, observer))
    return engine


def _greet(
    dialect: Any, observer: Observer, driver: Any, record: ConnectionPoolEntry, _lent: Any
) -> None:
    """As a connection is lent: does it still answer, and what time is it? One statement for both.

    It is what SQLAlchemy's own ping before each use would cost.
    """
    try:
        cattime.begin_postgresql(observer, driver)
    except psycopg.Error as error:
        if not record.info.get(_GREETED) or not dialect.is_disconnect(error, driver, None):
            raise
        raise sa.exc.InvalidatePoolError from error
    record.info[_GREETED] = True


_GREETED = "greeted"
"""Of a connection that was lent before: where it is dead now, a new one may do."""


def _lock_path(database: str | None) -> Path | None:
    if not database or database == ":memory:":
        raise ValueError("the catalog needs a file: an in-memory SQLite can't be shared")
    path = sqlite_path(database)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name("catalog.lock")


def _sqlite_engine(url: sa.URL, begin: str | None, observer: Observer) -> sa.Engine:
    engine = sa.create_engine(url, connect_args={"timeout": 60}, json_serializer=dumps)

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in (
            "journal_mode = WAL",
            "synchronous = FULL",
            "foreign_keys = ON",
            "temp_store = MEMORY",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    if begin is not None:

        @event.listens_for(engine, "begin")
        def _begin(connection: sa.Connection) -> None:
            connection.exec_driver_sql(begin)
            cattime.begin_sqlite(observer, connection)

    return engine


@lru_cache(maxsize=4)
def _catalog(url: str, pooler: str) -> Catalog:
    settings = get_settings()
    size = settings.db_connections or settings.slots + 6
    return Catalog(url, pool_size=size, pooler=pooler)


def get_catalog() -> Catalog:
    """The catalog of the settings, one per process, URL and pooler."""
    settings = get_settings()
    return _catalog(settings.catalog_url, settings.db_pooler)
