"""Asking for files that arrived: the requests of a rule, and their keys."""

import hashlib
import json
from collections.abc import Collection, Sequence
from typing import Any

from sqlmodel import Session

from catalog import arrivals, datasets, sources
from catalog.refs import RequestKind, StorageInfo
from catalog.requests import parse, queue, submit
from catalog.requests.work import CONFLICT
from catalog.rule import Rule
from flows.intake.rounds import Arrival


def key_of(*asked: str | int) -> str:
    """The key of a request of the intake: a digest of what is asked for."""
    return f"intake:{hashlib.sha256(json.dumps(asked).encode()).hexdigest()}"


def ask(
    session: Session, rule: Rule, storage: StorageInfo, page: Sequence[Arrival]
) -> list[tuple[int, int]]:
    """Ask for files, and have their datasets; gives of each the dataset's id and the request's."""
    ids = make(session, rule, {arrival.dataset for arrival in page})
    documents = [parse(_document(rule, storage, ids[a.dataset], a)) for a in page]
    asked = submit(session, documents)
    _retry(session, [i for a, i in zip(page, asked, strict=True) if a.is_open])
    return [(ids[a.dataset], request_id) for a, request_id in zip(page, asked, strict=True)]


def _retry(session: Session, request_ids: Collection[int]) -> None:
    """Have those done that were refused for their datasets' state, which take files now."""
    for info in queue.refused(session, list(request_ids)):
        if (info.reply or {}).get("code") == CONFLICT:
            queue.retry(session, info.id)


def make(session: Session, rule: Rule, names: Collection[str]) -> dict[str, int]:
    """Have datasets, of which the rule is a source from then on. Gives their ids by name."""
    there = arrivals.places(session, names)
    ids = {
        name: there[name].id
        if name in there
        else datasets.create(session, name, lifetime_s=rule.lifetime_s, rule_id=rule.id)
        for name in sorted(names)
    }
    sources.join(session, rule, list(ids.values()))
    return ids


def _document(
    rule: Rule, storage: StorageInfo, dataset_id: int, arrival: Arrival
) -> dict[str, Any]:
    sighting = arrival.sighting
    asked: list[str | int] = [
        "file",
        rule.id,
        storage.id,
        dataset_id,
        sighting.path,
        *sighting.state,
    ]
    file: dict[str, Any] = {
        "storageId": storage.name,
        "path": sighting.path,
        "size": sighting.size_bytes,
    }
    if rule.with_storage:
        file["name"] = name = rule.name_of(sighting.path)
        asked.append(name)
    return {
        "kind": RequestKind.FILE_INPUT,
        "key": key_of(*asked),
        # By its id: of its name there may be another one by the time that this is done.
        "datasetId": dataset_id,
        "files": [file],
    }
