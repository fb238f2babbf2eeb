"""Rules of the intake: which files that arrive on a storage belong to which dataset."""

from dataclasses import replace
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog import refusals, storages
from catalog.bulk import insert_ignore
from catalog.errors import BadInput, Conflict, NotFound
from catalog.models import IntakeRule, Storage, Template
from catalog.refs import Untaken
from catalog.rule import Rule as Rule
from catalog.rule import check, check_decided
from catalog.transitions import record_change

_HINT = "`spdf intake list` shows what there is"


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
    sa.and_(
        col(IntakeRule.end_pattern).is_not(None),
        col(IntakeRule.close_count).is_not(None),
        # Rules of before closed by whichever came first.
        sa.func.coalesce(col(IntakeRule.either), sa.true()),
    ).label("either"),
    col(IntakeRule.close_empty),
    col(IntakeRule.end_for_all),
    col(IntakeRule.refused_after_s),
    col(IntakeRule.with_storage),
    col(IntakeRule.unmatched),
    col(IntakeRule.until),
    col(IntakeRule.shed_percent),
    col(IntakeRule.version),
    col(IntakeRule.id),
    col(IntakeRule.storage_id),
)


def add(session: Session, rule: Rule) -> Rule:
    """Add a rule; the same again changes nothing. Raises `BadInput`, `Conflict`, `NotFound`."""
    check(rule)
    check_decided(rule)
    check_templates(session, rule)
    row = _row(session, rule)
    new = insert_ignore(session, IntakeRule, [row])
    found = get(session, rule.name)
    if new:
        record_change(session, IntakeRule, found.id, "ADDED", f"{rule.pattern} → {rule.dataset}")
        return found
    differs = [name for name in row if getattr(found, name) != row[name]]
    if differs == ["either"] and found.either:
        raise Conflict(
            f"intake rule {rule.name!r} exists already, and closes by its marker or its count, "
            "whichever comes first; say --either for that, or `spdf intake update "
            f"{rule.name} --both`."
        )
    if differs:
        raise Conflict(
            f"intake rule {rule.name!r} exists already and says something else; `spdf intake "
            f"update {rule.name}` changes it, or choose another name."
        )
    return found


def _row(session: Session, rule: Rule) -> dict[str, Any]:
    return {
        "name": rule.name,
        "storage_id": storages.by_name(session, rule.storage).id,
        "prefix": rule.prefix,
        "pattern": rule.pattern,
        "dataset": rule.dataset,
        "end_pattern": rule.end_pattern,
        "close_count": rule.close_count,
        "quiet_s": rule.quiet_s,
        "stable_s": rule.stable_s,
        "lifetime_s": rule.lifetime_s,
        "active": True,
        "either": rule.either,
        "close_empty": rule.close_empty,
        "end_for_all": rule.end_for_all,
        "refused_after_s": rule.refused_after_s,
        "with_storage": rule.with_storage,
        "unmatched": rule.unmatched,
        "until": rule.until,
        "shed_percent": rule.shed_percent,
    }


def check_templates(session: Session, rule: Rule) -> None:
    """Raise `NotFound` where its datasets would wait for a template that isn't there."""
    for name in rule.until:
        query = sa.select(col(Template.id)).where(col(Template.name) == name).limit(1)
        if session.execute(query).first() is None:
            raise NotFound("template", name, "--until names one that `spdf template list` shows")


def update(session: Session, rule: Rule) -> Rule:
    """Change a rule that is followed; what it made, and what it waits for, stays.

    Its storage and its datasets' names stay: another one of these is another rule. Raises
    `BadInput`, `NotFound`.
    """
    check(rule)
    before = get(session, rule.name)
    rule = decided(rule, before)
    check_templates(session, rule)
    row = _row(session, rule)
    changed = {name: value for name, value in row.items() if getattr(before, name) != value}
    for name, option in (("storage_id", "--storage"), ("dataset", "--dataset")):
        if name in changed:
            raise BadInput(
                f"{option} of intake rule {rule.name!r} can't be changed, as its OPEN datasets "
                f"would have nobody who fills them; `spdf intake remove {rule.name}`, and add "
                "another rule."
            )
    if not changed:
        return before
    session.execute(
        sa.update(IntakeRule)
        .where(col(IntakeRule.id) == before.id)
        .values(**changed, version=col(IntakeRule.version) + 1),
        execution_options={"synchronize_session": False},
    )
    told = ", ".join(
        f"{name} {getattr(before, name)!r} → {value!r}" for name, value in changed.items()
    )
    record_change(session, IntakeRule, before.id, "UPDATED", told)
    return get(session, rule.name)


def decided(rule: Rule, before: Rule) -> Rule:
    """A rule whose lifetime is changed says what becomes of what nothing took.

    One that loses its lifetime keeps what it had decided, since datasets have theirs; while nobody
    has decided, all else of it may be changed. Raises `BadInput`.
    """
    if rule.lifetime_s is not None:
        if (rule.lifetime_s, rule.unmatched) != (before.lifetime_s, None):
            check_decided(rule)
        return rule
    if before.lifetime_s is None:
        if _what_is_undone(rule) != _what_is_undone(before):
            check_decided(rule)
        return rule
    return replace(rule, unmatched=rule.unmatched or Untaken.KEEP, until=(), shed_percent=None)


def _what_is_undone(rule: Rule) -> tuple[Any, ...]:
    return rule.unmatched, rule.until, rule.shed_percent


def alike(session: Session, rule: Rule) -> list[Rule]:
    """The other rules that are followed and call their datasets as this one does."""
    query = _select().where(
        col(IntakeRule.active),
        col(IntakeRule.dataset) == rule.dataset,
        col(IntakeRule.name) != rule.name,
    )
    return [_rule(row) for row in session.execute(query.order_by(col(IntakeRule.id)))]


def remove(session: Session, name: str) -> Rule:
    """Stop a rule; its datasets stay as they are. One of its name may be added anew.

    What it is the source of waits from then on for a rule that adopts it, or a person's word.
    """
    rule = get(session, name)
    # The row stays for the datasets that name it; its name is free again.
    session.execute(
        sa.update(IntakeRule)
        .where(col(IntakeRule.id) == rule.id)
        .values(active=False, name=f"{rule.name}#{rule.id}"),
        execution_options={"synchronize_session": False},
    )
    refusals.unfollow(session, rule.id)
    record_change(session, IntakeRule, rule.id, "REMOVED", rule.name)
    return rule


def get(session: Session, name: str) -> Rule:
    """The rule of that name; raises `NotFound`."""
    if (found := find(session, name)) is None:
        raise NotFound("intake rule", name, _HINT)
    return found


def find(session: Session, name: str) -> Rule | None:
    """The rule of that name that is followed, if there is one."""
    row = session.execute(_select().where(col(IntakeRule.name) == name)).one_or_none()
    return None if row is None else _rule(row)


def by_id(session: Session, rule_id: int) -> Rule:
    """The rule with that id, followed or removed; raises `NotFound`."""
    row = session.execute(_select().where(col(IntakeRule.id) == rule_id)).one_or_none()
    if row is None:
        raise NotFound("intake rule", rule_id, _HINT)
    return _rule(row)


def active(session: Session) -> list[Rule]:
    """The rules that are followed, by name."""
    query = _select().where(col(IntakeRule.active)).order_by(col(IntakeRule.name))
    return [_rule(row) for row in session.execute(query)]


def _rule(row: sa.Row[Any]) -> Rule:
    return Rule(**{**row._mapping, "until": tuple(row.until or ())})


def _select() -> sa.Select[Any]:
    return sa.select(*_COLUMNS).join(Storage, col(Storage.id) == col(IntakeRule.storage_id))
