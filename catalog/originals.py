"""Whose bytes copies are: those that the product wrote, and originals, which lay there before.

Originals go only by a person's word that names them, or by the lifetime that an operator declared
for their storage and pattern; else they are detached: their rows end, and their bytes stay.
"""

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import aliased
from sqlmodel import Session, col

from catalog import intakerules
from catalog.intakerules import Rule
from catalog.models import Dataset, DatasetFile, Replica, Upload
from catalog.refs import Originals


def is_original() -> sa.ColumnElement[bool]:
    """Whether the product didn't write a `Replica`'s bytes, as an expression.

    Of a row by a program that couldn't tell, only outputs of workflows and copies made by uploads
    are known to be the product's: all else counts as original.
    """
    return sa.func.coalesce(col(Replica.in_place), sa.not_(_was_made()))


def _was_made() -> sa.ColumnElement[bool]:
    made_by = aliased(Dataset)
    derived = (
        sa.select(sa.literal(1))
        .select_from(DatasetFile)
        .join(made_by, col(made_by.id) == col(DatasetFile.dataset_id))
        .where(col(DatasetFile.file_id) == col(Replica.file_id), col(made_by.derived))
        .correlate(Replica)
    )
    sent, member = aliased(Dataset), aliased(DatasetFile)
    place = sent.name + "/" + member.name
    uploaded = (
        sa.select(sa.literal(1))
        .select_from(Upload)
        .join(sent, col(sent.id) == col(Upload.dataset_id))
        .join(member, col(member.dataset_id) == col(sent.id))
        .where(
            col(member.file_id) == col(Replica.file_id),
            col(Upload.storage_id) == col(Replica.storage_id),
            sa.func.substr(col(Replica.path), 1, sa.func.length(place)) == place,
        )
        .correlate(Replica)
    )
    return sa.or_(sa.exists(derived), sa.exists(uploaded))


def parent(session: Session, dataset_id: int) -> str | None:
    """The name that the dataset has, or had, from which one was parted."""
    row = session.execute(
        sa.select(col(Dataset.id), col(Dataset.name)).where(
            col(Dataset.id)
            == sa.select(col(Dataset.parted_from))
            .where(col(Dataset.id) == dataset_id)
            .scalar_subquery()
        )
    ).one_or_none()
    return None if row is None else str(row.name).removesuffix(f"#{row.id}")


@dataclass(frozen=True)
class Order:
    """What goes with a dataset of that name: originals, too, where one of the two words says so.

    By `rules` go those that one of them takes, but no marker of any rule that is `followed`.
    """

    dataset: str
    originals: Originals | None = None
    rules: tuple[Rule, ...] = ()
    followed: tuple[Rule, ...] = ()

    def takes(self, storage_id: int, path: str) -> bool:
        """Whether an original goes."""
        if self.originals is Originals.BY_WORD:
            return True
        if self.originals is not Originals.BY_RULE:
            return False
        return any(
            storage_id == rule.storage_id and rule.takes(path) == self.dataset
            for rule in self.rules
        ) and not any(
            storage_id == rule.storage_id and rule.may_be_marker(path) for rule in self.followed
        )

    @property
    def words(self) -> str:
        """By what originals go."""
        if self.originals is Originals.BY_RULE:
            names = sorted(rule.name.partition("#")[0] for rule in self.rules)
            return f"by the lifetime of intake rule {', '.join(names)}"
        return "by a person's word, --remove-originals"


def order_of(session: Session, dataset_id: int) -> Order:
    """What goes with a dataset, as its row says, and as the rules say that are followed now."""
    called = parent(session, dataset_id)
    row = session.execute(
        sa.select(
            (sa.literal(called) if called else col(Dataset.name)).label("name"),
            col(Dataset.originals),
            col(Dataset.closed_at),
            col(Dataset.deleting_at),
        ).where(col(Dataset.id) == dataset_id)
    ).one()
    if row.originals is not Originals.BY_RULE:
        return Order(row.name, row.originals)
    lived_s = (row.deleting_at - row.closed_at).total_seconds()
    # As for the watch, one that can't be followed says neither what is a file nor what a marker.
    followed = tuple(rule for rule in intakerules.active(session) if rule.fault is None)
    # A rule that was removed since, or added again without a lifetime, declares nothing any more.
    rules = tuple(
        rule for rule in followed if rule.lifetime_s is not None and rule.lifetime_s <= lived_s
    )
    return Order(row.name, row.originals, rules, followed)
