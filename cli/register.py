"""`spdf register`: requests from a file or a pipe."""

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from catalog.counts import count_of
from catalog.errors import BadInput, Conflict, SpdfError, Unavailable
from cli.home import open_catalog
from cli.output import Json, note, print_json, say

if TYPE_CHECKING:
    from catalog.db import Catalog
    from catalog.requests import RequestDocument

BATCH = 500
_POLL_S = 0.2
_ALONE_S = 20.0
"""How long an intake that is restarted is waited for."""
_SHOWN = 20


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command("register")(send)


def send(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="Requests, a JSON document a line; `-` reads standard input."
        ),
    ],
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for the answers; exit code 4 where one is ERROR.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Send requests: files and datasets to be registered, closed, uploaded, deleted.

    A file is accepted whole or not at all, standard input in steps as its lines come. What is
    accepted is durable, and done by `spdf up`'s intake; the same request again changes nothing.
    """
    source = Path(file)
    if file != "-" and not source.is_file():
        raise BadInput(f"{file} is no file; give one with a JSON document a line, or - for a pipe.")
    catalog = open_catalog()
    ids: list[int] = []
    if file == "-":
        _send_stream(catalog, sys.stdin.buffer, ids)
    else:
        _send_file(catalog, source, ids)
    failed = _answers(catalog, ids) if wait else []
    if as_json:
        print_json({"requests": len(ids), "ids": ids, "failed": failed if wait else None})
    else:
        _tell(len(ids), failed, wait)
    if failed:
        raise typer.Exit(Conflict.exit_code)


def _tell(count: int, failed: Sequence[dict[str, Any]], wait: bool) -> None:
    if not wait:
        say(f"{count_of(count, 'request')} accepted; `spdf request list` shows their answers")
        return
    say(f"{count_of(count, 'request')} answered, {len(failed)} of them with ERROR")
    for answer in failed[:_SHOWN]:
        note(f"request {answer['key']}: {answer['reply']['error']}")
    if len(failed) > _SHOWN:
        note(f"and {len(failed) - _SHOWN} more: `spdf request list --state ERROR`")


def _documents(stream: Iterable[bytes], name: str) -> "Iterator[RequestDocument]":
    from catalog.requests import parse
    from flows.intake.spool import read_json

    for number, line in enumerate(stream, 1):
        if line.strip():
            where = f"{name}, line {number}"
            yield parse(read_json(line, where), where)


def _send_file(catalog: "Catalog", source: Path, ids: list[int]) -> None:
    """Send a file, read once to check all of it and once more to send it: it may be long."""
    from catalog.requests import submit

    with source.open("rb") as stream:
        for _ in _documents(stream, str(source)):
            pass
    with source.open("rb") as stream, catalog.write() as session:
        documents = _documents(stream, str(source))
        while batch := list(islice(documents, BATCH)):
            ids += submit(session, batch)


def _send_stream(catalog: "Catalog", stream: Iterable[bytes], ids: list[int]) -> None:
    """Send lines as they come; a bad one ends it, and the error tells what was accepted before."""
    documents = _documents(stream, "standard input")
    while True:
        batch: list[RequestDocument] = []
        fault: SpdfError | None = None
        try:
            for document in islice(documents, BATCH):
                batch.append(document)
        except SpdfError as error:
            fault = error
        _send(catalog, batch, ids)
        if fault is not None:
            note(f"accepted before that line: {count_of(len(ids), 'request')}")
            raise fault
        if not batch:
            return


def _send(catalog: "Catalog", documents: "Sequence[RequestDocument]", ids: list[int]) -> None:
    from catalog.requests import submit

    with catalog.write() as session:
        ids += submit(session, documents)


def _answers(catalog: "Catalog", ids: Sequence[int]) -> list[dict[str, Any]]:
    """Wait until all are answered; gives those whose answer is ERROR.

    Raises `Unavailable` where nobody is there to answer them.
    """
    from catalog import singletons
    from catalog.requests import queue
    from flows.intake import INTAKE

    left, seen = sorted(ids), time.monotonic()
    while left:
        with catalog.read() as session:
            left = queue.waiting(session, left)
            at_work = singletons.is_held(session, INTAKE)
        seen = time.monotonic() if at_work else seen
        if left and time.monotonic() - seen > _ALONE_S:
            raise Unavailable(
                f"{len(left)} of {count_of(len(ids), 'request')} left to do, for no intake is at "
                "work; they are accepted, and done once `spdf up` runs."
            )
        time.sleep(_POLL_S if left else 0.0)
    with catalog.read() as session:
        return [
            {"id": info.id, "key": info.key, "reply": info.reply}
            for info in queue.refused(session, ids)
        ]
