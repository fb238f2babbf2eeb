"""Backups of a catalog on PostgreSQL: by `pg_dump` and `pg_restore`."""

import os
import re
import shutil
import subprocess
import tempfile
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import sqlalchemy as sa
from psycopg import sql
from psycopg.conninfo import make_conninfo

from catalog import restores, schema
from catalog.db import Catalog
from catalog.errors import BadInput, Conflict, Unavailable
from catalog.pgprograms import major_version, program
from catalog.schema import SchemaState

MAGIC = b"PGDMP"
_PACKAGE = "postgresql-client"
_ASIDE = "spdf_before_"
"""Schemas that hold what was there before a restore; no part of any backup."""
_LOCK_WAIT = "10s"


def dump(catalog: Catalog, part: Path) -> None:
    """Write the database as it stands at one moment to `part`; raises `Unavailable`."""
    tool = program("pg_dump", _PACKAGE)
    _refuse_older(catalog, tool)
    line = [
        str(tool), "--format=custom", "--no-owner", "--no-privileges", "--no-password",
        f"--exclude-schema={_ASIDE}*", f"--file={part}", f"--dbname={_address(catalog)}",
    ]  # fmt: skip
    done = subprocess.run(
        line, env=_environment(catalog), capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise Unavailable(f"pg_dump could not back up the catalog: {_reason(done.stderr)}.")


def state_of(path: Path) -> SchemaState:
    """The schema of a backup; raises `BadInput` for one that can't be read."""
    return schema.state_of(_only(path, "alembic_version"), _only(path, "schema_info"))


def restore(catalog: Catalog, path: Path) -> str | None:
    """Make the tables from the backup, in one transaction; gives the schema with the old ones.

    Raises `Conflict` where the old ones are in use, `BadInput` for a damaged backup,
    `Unavailable` where PostgreSQL or its programs fail; nothing has changed then.
    """
    tools = program("pg_restore", _PACKAGE), program("psql", _PACKAGE)
    with catalog.read() as session:
        connection = session.connection()
        inspector = sa.inspect(connection)
        tables, place = inspector.get_table_names(), inspector.default_schema_name or "public"
        before = restores.generation(session) if "restore" in tables else 0
    catalog.close()
    aside = f"{_ASIDE}{datetime.now(UTC):%Y%m%dt%H%M%S%fz}" if tables else None
    first = ["BEGIN;", f"SET LOCAL lock_timeout = '{_LOCK_WAIT}';"]
    if aside is not None:
        first += [f"CREATE SCHEMA {_quoted(aside)};"]
        first += [
            f"ALTER TABLE {_quoted(place, table)} SET SCHEMA {_quoted(aside)};" for table in tables
        ]
    claims = _only(path, "catalog_info") is not None
    last = [f"SET LOCAL search_path = {_quoted(place)};"]
    last += restores.statements("postgresql", after=before, aside=aside, claims=claims)
    _replay(catalog, path, tools, "\n".join(first), "\n".join(last))
    return aside


def _replay(catalog: Catalog, path: Path, tools: tuple[Path, Path], first: str, last: str) -> None:
    """Feed a transaction to psql: `first`, what the backup holds, `last`, and only then COMMIT.

    Whatever ends too early ends the stream without a COMMIT, and so changes nothing.
    """
    reading, writing = tools
    with (
        tempfile.TemporaryFile("w+") as fault_of_reader,
        tempfile.TemporaryFile("w+") as fault_of_writer,
        subprocess.Popen(
            [reading, "--no-owner", "--no-privileges", "--file=-", path],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=fault_of_reader,
        ) as reader,
        subprocess.Popen(
            [writing, "--no-psqlrc", "--quiet", "--no-password", "--set=ON_ERROR_STOP=1",
             f"--dbname={_address(catalog)}"],
            env=_environment(catalog), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
            stderr=fault_of_writer,
        ) as writer,
    ):  # fmt: skip
        assert reader.stdout is not None and writer.stdin is not None
        try:
            writer.stdin.write(f"{first}\n".encode())
            shutil.copyfileobj(reader.stdout, writer.stdin)
            readable = reader.wait() == 0
            if readable:
                writer.stdin.write(f"{last}\nCOMMIT;\nANALYZE;\n".encode())
            writer.stdin.close()
        except BrokenPipeError:
            reader.kill()
            readable = True
            with suppress(BrokenPipeError):  # what is still held for it goes nowhere
                writer.stdin.close()
        code = writer.wait()
        if not readable:
            raise _damaged(path, _text(fault_of_reader))
        if code != 0:
            raise _refusal(_text(fault_of_writer))


def _refusal(fault: str) -> Conflict | Unavailable:
    if "lock timeout" in fault:
        return Conflict(
            "other processes have the catalog's tables in use; end them, then restore again."
        )
    return Unavailable(f"psql could not restore, and changed nothing: {_reason(fault)}.")


def _only(path: Path, table: str) -> str | None:
    """The last value of the only row of a table in a backup; None where it has no such table."""
    tool = program("pg_restore", _PACKAGE)
    done = subprocess.run(
        [tool, "--data-only", f"--table={table}", "--file=-", path],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise _damaged(path, done.stderr)
    found = re.search(r"^COPY [^\n]* FROM stdin;\n([^\n]+)\n\\\.$", done.stdout, re.MULTILINE)
    return found[1].split("\t")[-1] if found else None


def _refuse_older(catalog: Catalog, tool: Path) -> None:
    """Raise `Unavailable` for a program that doesn't know the server's version."""
    with catalog.read() as session:
        server = int(session.execute(sa.text("SHOW server_version_num")).scalar_one()) // 10000
    ours = major_version(tool)
    if ours < server:
        raise Unavailable(
            f"{tool} is of PostgreSQL {ours}, older than the server's {server}; "
            f"install Debian's package `{_PACKAGE}-{server}`."
        )


def _words(catalog: Catalog) -> dict[str, str]:
    """The URL in libpq's words."""
    words = catalog.url.translate_connect_args(username="user", database="dbname")
    words.update(
        (name, value if isinstance(value, str) else ",".join(value))
        for name, value in catalog.url.query.items()
    )
    return {name: str(word) for name, word in words.items()}


def _address(catalog: Catalog) -> str:
    """The database for libpq, without the password: every user of the machine sees it."""
    return make_conninfo(
        "", **{name: word for name, word in _words(catalog).items() if name != "password"}
    )


def _environment(catalog: Catalog) -> dict[str, str]:
    words = _words(catalog)
    password = {"PGPASSWORD": words["password"]} if "password" in words else {}
    return {**os.environ, **password}


def _quoted(*names: str) -> str:
    return sql.Identifier(*names).as_string(None)


def _text(stream: IO[str]) -> str:
    stream.seek(0)
    return stream.read()


def _reason(fault: str) -> str:
    lines = [line.strip() for line in fault.splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else "it did not say why"


def _damaged(path: Path, fault: str) -> BadInput:
    return BadInput(f"the backup {path} can't be read ({_reason(fault)}); take another one.")
