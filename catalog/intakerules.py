"""Rules of the intake: which files that arrive on a storage belong to which dataset."""

import re
import string
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog import storages
from catalog.bulk import insert_ignore
from catalog.clock import now
from catalog.errors import BadInput, BadName, Conflict, NotFound
from catalog.models import Dataset, IntakeRule, Storage
from catalog.names import check_name, check_path
from catalog.states import DatasetState
from catalog.transitions import record_change

_HINT = "`spdf intake list` shows what there is"


@dataclass(frozen=True)
class Rule:
    """A rule as its row stood, or as it is to be.

    `pattern` and `end_pattern` are regular expressions of whole paths on the storage; `dataset` is
    a name with their groups in braces. None of the three ends: its datasets are closed by others.
    """

    name: str
    storage: str
    pattern: str
    dataset: str
    prefix: str = ""
    end_pattern: str | None = None
    close_count: int | None = None
    quiet_s: float | None = None
    stable_s: float = 1.0
    lifetime_s: float | None = None
    active: bool = True
    id: int = 0
    storage_id: int = 0

    def dataset_of(self, path: str) -> str | None:
        """The dataset of a file; None where the rule isn't for it."""
        return self._named(self.pattern, path)

    def ended_by(self, path: str) -> str | None:
        """The dataset that a marker ends; None for what is no marker."""
        return None if self.end_pattern is None else self._named(self.end_pattern, path)

    def _named(self, pattern: str, path: str) -> str | None:
        found = re.fullmatch(pattern, path)
        if found is None:
            return None
        groups = {name: text or "" for name, text in found.groupdict().items()}
        return self.dataset.format_map(groups)


@dataclass(frozen=True)
class Filling:
    """An OPEN dataset that a rule fills. `filled_at` is None before its first file."""

    id: int
    name: str
    filled_at: datetime | None
    quiet_for_s: float


_COLUMNS: tuple[Any, ...] = (
    col(IntakeRule.name),
    col(Storage.name).label("storage"),
    col(IntakeRule.pattern),
    col(IntakeRule.dataset),
    col(IntakeRule.prefix),
    col(IntakeRule.end_pattern),
    col(IntakeRule.close_count),
    col(IntakeRule.quiet_s),
    col(IntakeRule.stable_s),
    col(IntakeRule.lifetime_s),
    col(IntakeRule.active),
    col(IntakeRule.id),
    col(IntakeRule.storage_id),
)


def check(rule: Rule) -> None:
    """Raise `BadInput` for a rule that can't be used."""
    check_name("intake rule", rule.name)
    if rule.prefix:
        check_path("prefix", rule.prefix.removesuffix("/"))
    groups = _groups("--pattern", rule.pattern)
    wanted = _fields(rule.dataset)
    _check_fields("--pattern", wanted, groups)
    if rule.end_pattern is not None:
        _check_fields("--end", wanted, _groups("--end", rule.end_pattern))
    sample = rule.dataset.format_map(dict.fromkeys(wanted, "x"))
    try:
        check_name("dataset", sample)
    except BadName as error:
        raise BadInput(
            f"--dataset {rule.dataset!r} makes names such as {sample!r}: {error}"
        ) from error


def _groups(option: str, pattern: str) -> frozenset[str]:
    try:
        return frozenset(re.compile(pattern).groupindex)
    except re.error as error:
        raise BadInput(
            f"{option} {pattern!r} is no regular expression ({error}); write one, such as "
            r"`(?P<run>run-\d+)/.*\.raw`."
        ) from error


def _fields(template: str) -> list[str]:
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise BadInput(f"--dataset {template!r}: {error}; write `run-{{run}}`.") from error
    found = []
    for _, name, spec, conversion in parts:
        if name is None:
            continue
        if not name.isidentifier() or spec or conversion:
            raise BadInput(
                f"--dataset {template!r}: {{{name}}} is no group's name; write `run-{{run}}`."
            )
        found.append(name)
    return found


def _check_fields(option: str, wanted: Sequence[str], groups: frozenset[str]) -> None:
    for name in wanted:
        if name not in groups:
            raise BadInput(
                f"--dataset names the group {name!r}, which {option} doesn't have; write "
                f"(?P<{name}>…) there."
            )


def add(session: Session, rule: Rule) -> Rule:
    """Add a rule; the same again changes nothing. Raises `BadInput`, `Conflict`, `NotFound`."""
    check(rule)
    storage = storages.by_name(session, rule.storage)
    row = {
        "name": rule.name,
        "storage_id": storage.id,
        "prefix": rule.prefix,
        "pattern": rule.pattern,
        "dataset": rule.dataset,
        "end_pattern": rule.end_pattern,
        "close_count": rule.close_count,
        "quiet_s": rule.quiet_s,
        "stable_s": rule.stable_s,
        "lifetime_s": rule.lifetime_s,
        "active": True,
    }
    new = insert_ignore(session, IntakeRule, [row])
    found = get(session, rule.name)
    if new:
        record_change(session, IntakeRule, found.id, "ADDED", f"{rule.pattern} → {rule.dataset}")
    elif {name: getattr(found, name) for name in row} != row:
        raise Conflict(
            f"intake rule {rule.name!r} exists already and says something else; remove it with "
            f"`spdf intake remove {rule.name}`, or choose another name."
        )
    return found


def remove(session: Session, name: str) -> Rule:
    """Stop a rule; its datasets stay as they are. One of its name may be added anew."""
    rule = get(session, name)
    # The row stays for the datasets that name it; its name is free again.
    session.execute(
        sa.update(IntakeRule)
        .where(col(IntakeRule.id) == rule.id)
        .values(active=False, name=f"{rule.name}#{rule.id}"),
        execution_options={"synchronize_session": False},
    )
    record_change(session, IntakeRule, rule.id, "REMOVED", rule.name)
    return rule


def get(session: Session, name: str) -> Rule:
    """The rule of that name; raises `NotFound`."""
    row = session.execute(_select().where(col(IntakeRule.name) == name)).one_or_none()
    if row is None:
        raise NotFound("intake rule", name, _HINT)
    return Rule(**row._mapping)


def active(session: Session) -> list[Rule]:
    """The rules that are followed, by name."""
    query = _select().where(col(IntakeRule.active)).order_by(col(IntakeRule.name))
    return [Rule(**row._mapping) for row in session.execute(query)]


def _select() -> sa.Select[Any]:
    return sa.select(*_COLUMNS).join(Storage, col(Storage.id) == col(IntakeRule.storage_id))


def filling(session: Session, rule_id: int) -> list[Filling]:
    """The OPEN datasets that a rule fills."""
    rows = session.execute(
        sa.select(col(Dataset.id), col(Dataset.name), col(Dataset.filled_at), now().label("now"))
        .where(col(Dataset.rule_id) == rule_id, col(Dataset.state) == DatasetState.OPEN)
        .order_by(col(Dataset.id))
    )
    return [
        Filling(
            row.id,
            row.name,
            row.filled_at,
            (row.now - row.filled_at).total_seconds() if row.filled_at else 0.0,
        )
        for row in rows
    ]
