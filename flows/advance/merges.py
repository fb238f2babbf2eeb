"""Cutting the groups of merge stages: from the prefix of keys that are settled, in root order."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from sqlmodel import Session

from catalog import jobs, tasks
from catalog.jobs import EndedJob, NewJob
from catalog.states import JobState
from flows.advance.chain import BATCH, Chain
from flows.plan import Stage

_ENDED = (JobState.FINISHED, JobState.SKIPPED)


@dataclass(frozen=True)
class KeyFiles:
    """What one key gives to a merge, by port; empty for a key that was filtered out."""

    ordinal: int
    files: Mapping[str, Sequence[int]]


@dataclass
class Group:
    """Files gathered for one merge job."""

    keys: int = 0
    files: dict[str, list[int]] = field(default_factory=dict)

    def add(self, key: KeyFiles) -> None:
        """Take a key's files in, if it has any."""
        if any(key.files.values()):
            self.keys += 1
            for port, ids in key.files.items():
                self.files.setdefault(port, []).extend(ids)


def define_groups(session: Session, chain: Chain, stage: Stage, *, final: bool) -> int:
    """Define merge jobs for whole groups, and (where `final`) for the remainder; gives how many.

    `final`: nothing more will come from the stage's sources.
    """
    task = chain.task(session, stage)
    if stage.files_per_job is None and not final:
        return 0
    cursor, number = task.cursor, task.roots_defined
    new: list[NewJob] = []
    group, last = Group(), cursor
    for key in _keys(session, chain, stage, cursor, final=final):
        group.add(key)
        last = key.ordinal
        if group.keys == stage.files_per_job:
            new.append(_job(number + len(new), group))
            group, cursor = Group(), last
            if len(new) >= BATCH:
                break
    else:
        if final:
            if group.keys or (number == 0 and not new):
                new.append(_job(number + len(new), group))
            cursor = last
    if not new and cursor == task.cursor:
        return 0
    jobs.define(session, task.id, new, passed=not chain.followers(stage))
    tasks.set_progress(session, task.id, cursor=cursor, roots_defined=number + len(new))
    tasks.begin(session, [task.id])
    return len(new)


def _job(number: int, group: Group) -> NewJob:
    return NewJob(f"group-{number:05d}", number, JobState.READY, group.files)


def _keys(
    session: Session, chain: Chain, stage: Stage, after: int, *, final: bool
) -> Iterator[KeyFiles]:
    """The settled prefix of keys beyond `after`, page by page."""
    pages = _root_pages if not stage.upstreams else _job_pages
    return pages(session, chain, stage, after, final)


def _root_pages(
    session: Session, chain: Chain, stage: Stage, after: int, _final: bool
) -> Iterator[KeyFiles]:
    while files := jobs.source_files(session, chain.dataset_id, after, BATCH):
        for file in files:
            yield KeyFiles(file.position, {link.port: [file.file_id] for link in stage.links})
        after = files[-1].position


def _job_pages(
    session: Session, chain: Chain, stage: Stage, after: int, final: bool
) -> Iterator[KeyFiles]:
    first = chain.task_ids[stage.upstreams[0]]
    while page := jobs.after_ordinal(session, first, after, BATCH):
        settled = _settled(page, after, final)
        yield from _files_of(session, chain, stage, settled, final)
        if len(settled) < len(page):
            return
        after = page[-1].ordinal


def _settled(page: Sequence[EndedJob], after: int, final: bool) -> list[EndedJob]:
    """The part of a page before the first key that isn't there or may still change."""
    if final:
        return list(page)
    prefix = []
    for job in page:
        if job.state not in _ENDED or job.ordinal != after + 1:
            break
        prefix.append(job)
        after = job.ordinal
    return prefix


def _files_of(
    session: Session, chain: Chain, stage: Stage, page: Sequence[EndedJob], final: bool
) -> Iterator[KeyFiles]:
    keys = [job.key for job in page]
    found = {
        name: jobs.ended_by_key(session, chain.task_ids[name], keys) for name in stage.upstreams
    }
    files: dict[tuple[int, str], list[int]] = {}
    for name, by_key in found.items():
        ports = {s.port for link in stage.links for s in link.sources if s.stage == name}
        files |= jobs.outputs(session, [job.id for job in by_key.values()], ports)
    for job in page:
        here = [by_key.get(job.key) for by_key in found.values()]
        if not final and any(other is None for other in here):
            return
        yield KeyFiles(
            job.ordinal,
            {
                link.port: [
                    file_id
                    for source in link.sources
                    if (other := found[source.stage or ""].get(job.key)) is not None
                    for file_id in files.get((other.id, source.port), ())
                ]
                for link in stage.links
            },
        )
