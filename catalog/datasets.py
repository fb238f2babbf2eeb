"""Datasets: named, ordered sets of files that never change once they are closed."""

import fnmatch
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog import duties, incomplete, lifetimes
from catalog.bulk import chunks, insert_ignore, insert_rest
from catalog.clock import now
from catalog.ends import unended
from catalog.errors import Conflict, NotFound, StateConflict
from catalog.manifests import content
from catalog.models import Dataset, DatasetFile, Source
from catalog.names import check_name, check_path
from catalog.refs import Originals, SourceEnd
from catalog.rowsets import among
from catalog.states import DatasetState
from catalog.transitions import move, record, record_change

RENAMED = "RENAMED"
"""What the event of a DELETED dataset says whose name another has now."""
_PAGE = 1000


@dataclass(frozen=True)
class DatasetInfo:
    """A dataset as its row stood. Count, bytes and digest are those of the close, else None.

    One that is `incomplete` lacks what that says.
    """

    id: int
    name: str
    state: DatasetState
    derived: bool
    task_id: int | None
    port: str | None
    storage_id: int | None
    file_count: int | None
    size_bytes: int | None
    digest: str | None
    lifetime_s: float | None
    pin: str | None
    incomplete: str | None
    created_at: datetime
    closed_at: datetime | None
    expires_at: datetime | None
    released_at: datetime | None
    deleting_at: datetime | None
    grace_until: datetime | None
    originals: Originals | None
    """By what its originals go with it, while it is DELETING; None: they stay."""


@dataclass(frozen=True)
class Member:
    """A file to be attached, by the name it has in the dataset; a raw file is its own key."""

    file_id: int
    name: str


_INFO = (
    col(Dataset.id),
    col(Dataset.name),
    col(Dataset.state),
    col(Dataset.derived),
    col(Dataset.task_id),
    col(Dataset.port),
    col(Dataset.storage_id),
    col(Dataset.file_count),
    col(Dataset.size_bytes),
    col(Dataset.digest),
    col(Dataset.lifetime_s),
    col(Dataset.pin),
    col(Dataset.incomplete),
    col(Dataset.created_at),
    col(Dataset.closed_at),
    col(Dataset.expires_at),
    col(Dataset.released_at),
    col(Dataset.deleting_at),
    col(Dataset.grace_until),
    col(Dataset.originals),
)


def create(
    session: Session,
    name: str,
    *,
    derived: bool = False,
    task_id: int | None = None,
    port: str | None = None,
    storage_id: int | None = None,
    lifetime_s: float | None = None,
    rule_id: int | None = None,
) -> int:
    """Create an OPEN dataset, to be deleted `lifetime_s` after its close, or never.

    A DELETED one gives its name up, and is called `NAME#ID` from then on. Raises `Conflict` where
    the name is taken, `BadName`.
    """
    row = {
        "name": check_name("dataset", name),
        "state": DatasetState.OPEN,
        "derived": derived,
        "task_id": task_id,
        "port": port,
        "storage_id": storage_id,
        "next_position": 0,
        "lifetime_s": lifetime_s,
        "rule_id": rule_id,
    }
    if not insert_ignore(session, Dataset, [row]):
        renamed = _give_up(session, name)
        if not insert_ignore(session, Dataset, [row]):
            raise _taken(session, name)
        if renamed is not None:
            told = f"another dataset is called {name} from now on"
            record_change(session, Dataset, renamed, RENAMED, told)
    info = by_name(session, name)
    record(session, Dataset, [(info.id, None)], DatasetState.OPEN)
    return info.id


def _give_up(session: Session, name: str) -> int | None:
    """A DELETED dataset of that name is called by its id, too; gives the id, if there is one."""
    return session.execute(
        sa.update(Dataset)
        .where(col(Dataset.name) == name, col(Dataset.state) == DatasetState.DELETED)
        .values(name=col(Dataset.name) + "#" + sa.cast(col(Dataset.id), sa.String))
        .returning(col(Dataset.id)),
        execution_options={"synchronize_session": False},
    ).scalar()


def _taken(session: Session, name: str) -> Conflict:
    info = by_name(session, name)
    if info.state is not DatasetState.DELETING:
        return Conflict(f"dataset {name!r} exists already; choose another name.")
    mend = f"its name is free once it is DELETED: see `spdf dataset why {name}`"
    if info.grace_until is not None:
        mend = (
            f"`spdf dataset undelete {name}` takes it back, "
            f"`spdf dataset delete {name} --grace 0s` ends it now"
        )
    return Conflict(f"dataset {name!r} is being deleted; {mend}.")


def is_taken(session: Session, name: str) -> bool:
    """Whether a dataset of that name is there that isn't DELETED."""
    query = sa.select(col(Dataset.id)).where(
        col(Dataset.name) == name, col(Dataset.state) != DatasetState.DELETED
    )
    return session.execute(query).first() is not None


def by_name_at(session: Session, name: str, moment: datetime) -> DatasetInfo:
    """The dataset that had a name at a time, though another may have it now; raises `NotFound`."""
    named = sa.or_(
        col(Dataset.name) == name,
        col(Dataset.name) == sa.literal(f"{name}#") + sa.cast(col(Dataset.id), sa.String),
    )
    row = session.execute(
        sa.select(*_INFO)
        .where(named, col(Dataset.created_at) <= moment)
        .order_by(col(Dataset.id).desc())
        .limit(1)
    ).one_or_none()
    if row is None:
        raise NotFound("dataset", name)
    return DatasetInfo(**row._mapping)


def get(session: Session, dataset_id: int) -> DatasetInfo:
    """The dataset with that id; raises `NotFound`."""
    return _one(session, col(Dataset.id) == dataset_id, dataset_id)


def by_name(session: Session, name: str) -> DatasetInfo:
    """The dataset of that name, DELETED or not; raises `NotFound`."""
    return _one(session, col(Dataset.name) == name, name)


def known(session: Session, references: Collection[int | str]) -> dict[int | str, DatasetInfo]:
    """Those of the datasets, each given by id or name, that there are, DELETED or not."""
    ids = [reference for reference in references if isinstance(reference, int)]
    names = [reference for reference in references if isinstance(reference, str)]
    found: dict[int | str, DatasetInfo] = {}
    for column, values in ((col(Dataset.id), ids), (col(Dataset.name), names)):
        if values:
            rows = session.execute(sa.select(*_INFO).where(among(session, column, values)))
            infos = [DatasetInfo(**row._mapping) for row in rows]
            found.update({info.id if values is ids else info.name: info for info in infos})
    return found


def _one(session: Session, condition: sa.ColumnElement[bool], name: object) -> DatasetInfo:
    row = session.execute(sa.select(*_INFO).where(condition)).one_or_none()
    if row is None:
        raise NotFound("dataset", name)
    return DatasetInfo(**row._mapping)


def list_datasets(
    session: Session,
    *,
    mask: str | None = None,
    state: DatasetState | None = None,
    limit: int = 100,
    after: str | None = None,
) -> list[DatasetInfo]:
    """Datasets by name, at most `limit`; `after` continues beyond a name, `mask` is a glob."""
    found: list[DatasetInfo] = []
    while len(found) < limit:
        query = sa.select(*_INFO).order_by(col(Dataset.name)).limit(_PAGE if mask else limit)
        if mask:
            literal = re.split(r"[*?\[]", mask, maxsplit=1)[0]
            query = query.where(col(Dataset.name).startswith(literal, autoescape=True))
        if state is not None:
            query = query.where(col(Dataset.state) == state)
        if after is not None:
            query = query.where(col(Dataset.name) > after)
        page = [DatasetInfo(**row._mapping) for row in session.execute(query)]
        found += [i for i in page if not mask or fnmatch.fnmatchcase(i.name, mask)]
        if not mask or len(page) < _PAGE:
            break
        after = page[-1].name
    return found[:limit]


def deleting(session: Session, *, after: int = 0, limit: int = 100) -> list[DatasetInfo]:
    """The datasets whose bytes are to go now, by id; `after` continues beyond one."""
    # In these words, so that the partial index is seen to have them.
    query = sa.select(*_INFO).where(
        sa.text("dataset.state = 'DELETING'"),
        col(Dataset.grace_until).is_(None),
        col(Dataset.id) > after,
    )
    rows = session.execute(query.order_by(col(Dataset.id)).limit(limit))
    return [DatasetInfo(**row._mapping) for row in rows]


def check_from_outside(session: Session, dataset_id: int) -> None:
    """Raise `Conflict` for a dataset that a workflow makes: only its jobs fill and close it."""
    info = get(session, dataset_id)
    if info.derived:
        raise Conflict(
            f"dataset {info.name!r} is made by a workflow, which fills and closes it itself; "
            "create one of your own for your files."
        )


def attach(session: Session, dataset_id: int, members: Sequence[Member]) -> int:
    """Attach files to an OPEN dataset in the order given; gives how many were new to it.

    A file that is in it already stays as it is. Raises `Conflict` for a name that another file has
    there and for a dataset that a workflow makes, `StateConflict` for one that is not OPEN.
    """
    check_from_outside(session, dataset_id)
    wanted = _distinct(members)
    # The update holds the row until the transaction ends: no close comes in between, and the
    # positions of those who attach at the same time never mix.
    end = session.execute(
        sa.update(Dataset)
        .where(col(Dataset.id) == dataset_id, col(Dataset.state) == DatasetState.OPEN)
        .values(next_position=col(Dataset.next_position) + len(wanted), filled_at=now())
        .returning(col(Dataset.next_position))
    ).scalar()
    if end is None:
        raise _not_open(session, dataset_id, "changed")
    clashed = insert_rest(
        session,
        DatasetFile,
        [
            {
                "dataset_id": dataset_id,
                "file_id": member.file_id,
                "name": member.name,
                "key": member.name,
                "position": position,
            }
            for position, member in enumerate(wanted, end - len(wanted))
        ],
        "file_id",
    )
    known = set(clashed)
    _check_known(session, dataset_id, [m for m in wanted if m.file_id in known])
    return len(wanted) - len(clashed)


def _distinct(members: Sequence[Member]) -> list[Member]:
    by_name: dict[str, Member] = {}
    names: dict[int, str] = {}
    for member in members:
        check_path("file name", member.name)
        other = by_name.setdefault(member.name, member)
        if other.file_id != member.file_id:
            raise Conflict(
                f"two files are to be attached as {member.name!r} ({other.file_id} and "
                f"{member.file_id}); names in a dataset are unique."
            )
        names.setdefault(member.file_id, member.name)
    return [Member(file_id, name) for file_id, name in names.items()]


def _check_known(session: Session, dataset_id: int, known: Sequence[Member]) -> None:
    """Raise `Conflict` where other files of the dataset have the names of these."""
    for batch in chunks(known):
        ids = {member.name: member.file_id for member in batch}
        rows = session.execute(
            sa.select(col(DatasetFile.file_id), col(DatasetFile.name)).where(
                col(DatasetFile.dataset_id) == dataset_id,
                sa.or_(
                    col(DatasetFile.file_id).in_(list(ids.values())),
                    col(DatasetFile.name).in_(list(ids)),
                ),
            )
        )
        for file_id, name in rows:
            if ids.get(name, file_id) != file_id:
                raise Conflict(
                    f"dataset {get(session, dataset_id).name!r} has another file called {name!r}; "
                    "names in a dataset are unique."
                )


def lock_open(session: Session, dataset_ids: Sequence[int]) -> list[int]:
    """Those of the datasets that are OPEN, and stay so until the transaction ends.

    What adds to or takes from a dataset holds this lock (or that of `attach`) before it does.
    """
    held: list[int] = []
    for batch in chunks(sorted(set(dataset_ids))):
        held += session.scalars(
            sa.select(col(Dataset.id))
            .where(col(Dataset.id).in_(batch), col(Dataset.state) == DatasetState.OPEN)
            .order_by(col(Dataset.id))
            .with_for_update(read=True)
        )
    return held


def detach(session: Session, dataset_id: int, file_ids: Sequence[int]) -> int:
    """Take files out of an OPEN dataset; gives how many were in it. Raises `StateConflict`."""
    if not lock_open(session, [dataset_id]):
        raise _not_open(session, dataset_id, "changed")
    count = 0
    for batch in chunks(sorted(set(file_ids))):
        gone = session.execute(
            sa.delete(DatasetFile)
            .where(col(DatasetFile.dataset_id) == dataset_id, col(DatasetFile.file_id).in_(batch))
            .returning(col(DatasetFile.file_id))
        )
        count += len(gone.all())
    return count


def require_open(session: Session, dataset_id: int) -> None:
    """Hold a dataset's row, OPEN, until the transaction ends; raises `StateConflict`."""
    if not lock_open(session, [dataset_id]):
        raise _not_open(session, dataset_id, "changed")


class SourcesOpen(StateConflict):
    """A dataset can't be closed yet: not all who fill it have ended."""


def close(
    session: Session,
    dataset_id: int,
    *,
    by_sources: bool = False,
    is_whole: bool = False,
    why: str | None = None,
) -> DatasetInfo:
    """Close a dataset for good and note its count, bytes and digest; a CLOSED one stays as it is.

    That is a word that ends all its sources, unless it is `by_sources`: then these must have ended,
    or `SourcesOpen` is raised, and the transaction must not be committed. What it lacks is noted
    (see `incomplete`), unless a person says that it `is_whole`. Raises `StateConflict` for one that
    is being deleted.
    """
    if not move(
        session, Dataset, [dataset_id], DatasetState.CLOSED, only_from=[DatasetState.OPEN],
        message=why, closed_at=now(),
    ):  # fmt: skip
        info = get(session, dataset_id)
        if info.state is DatasetState.CLOSED:
            return info
        raise StateConflict("dataset", info.name, info.state, DatasetState.CLOSED)
    # The row is ours and says CLOSED: what is counted from here on is final. A source that was
    # being added was waited for; in the statement before it would have been overlooked.
    filling = unended(col(Source.id)).where(col(Source.dataset_id) == dataset_id)
    if by_sources and session.execute(filling.limit(1)).first() is not None:
        name = get(session, dataset_id).name
        told = "one who fills it has not ended"
        raise SourcesOpen("dataset", name, DatasetState.OPEN, DatasetState.CLOSED, told)
    lacks = incomplete.at_close(session, dataset_id, is_whole=is_whole)
    _end_sources(session, dataset_id, by_word=not by_sources)
    _set(session, dataset_id, incomplete=lacks)
    found = content(session, dataset_id)
    _set(
        session,
        dataset_id,
        file_count=found.files,
        size_bytes=found.size_bytes,
        digest=found.digest,
    )
    duties.fix(session, dataset_id)
    lifetimes.begin(session, only=dataset_id)
    return get(session, dataset_id)


def _set(session: Session, dataset_id: int, **values: Any) -> None:
    session.execute(sa.update(Dataset).where(col(Dataset.id) == dataset_id).values(**values))


def _end_sources(session: Session, dataset_id: int, *, by_word: bool) -> None:
    """Note what ended the last sources of a dataset that was closed."""
    session.execute(
        sa.update(Source)
        .where(col(Source.dataset_id) == dataset_id, col(Source.ended_by).is_(None))
        .values(ended_by=SourceEnd.WORD if by_word else SourceEnd.QUIET, ended_at=now()),
        execution_options={"synchronize_session": False},
    )


def _not_open(session: Session, dataset_id: int, target: str) -> StateConflict:
    info = get(session, dataset_id)
    why = "only an OPEN dataset takes or gives up files"
    return StateConflict("dataset", info.name, info.state, target, why)
