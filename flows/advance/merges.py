"""Cutting the groups of merge stages: from the prefix of keys that are settled, in root order."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain as chained

from sqlmodel import Session

from catalog import jobfiles, jobs, tasks
from catalog.jobs import EndedJob, NewJob
from catalog.states import JobState
from flows.advance import companions
from flows.advance.chain import BATCH, Chain
from flows.advance.maps import pick_one
from flows.plan import Pick, Stage

_ENDED = (JobState.FINISHED, JobState.SKIPPED)


@dataclass(frozen=True)
class KeyFiles:
    """What one key gives to a merge, by port and source; empty for a key that was filtered out."""

    ordinal: int
    files: Mapping[str, Sequence[Sequence[int]]]
    fault: str | None = None


@dataclass
class Group:
    """Files gathered for one merge job: by port, a list for each of its sources."""

    keys: int = 0
    lists: dict[str, list[list[int]]] = field(default_factory=dict)
    fault: str | None = None

    def add(self, key: KeyFiles) -> None:
        """Take a key's files in, if it has any."""
        self.fault = self.fault or key.fault
        if key.fault or any(any(lists) for lists in key.files.values()):
            self.keys += 1
            for port, lists in key.files.items():
                mine = self.lists.setdefault(port, [[] for _ in lists])
                for whole, part in zip(mine, lists, strict=True):
                    whole.extend(part)

    def job(self, number: int) -> NewJob:
        """The merge job. Sources follow one another, as in CWL's `merge_flattened`."""
        key = f"group-{number:05d}"
        if self.fault:
            return NewJob(key, number, JobState.FAILED, reason=self.fault)
        files = {port: list(chained.from_iterable(lists)) for port, lists in self.lists.items()}
        return NewJob(key, number, JobState.READY, files)


def define_groups(session: Session, chain: Chain, stage: Stage, *, final: bool) -> int:
    """Define merge jobs for whole groups, and (where `final`) for the remainder; gives how many.

    `final`: nothing more will come from the stage's sources.
    """
    task = chain.task(session, stage)
    waits = stage.files_per_job is None or (chain.plan.companions and not stage.upstreams)
    if waits and not final:
        return 0
    cursor, number = task.cursor, task.roots_defined
    new: list[NewJob] = []
    group, last = Group(), cursor
    for key in _keys(session, chain, stage, cursor, final=final):
        group.add(key)
        last = key.ordinal
        if group.keys == stage.files_per_job:
            new.append(group.job(number + len(new)))
            group, cursor = Group(), last
            if len(new) >= BATCH:
                break
    else:
        if final:
            if group.keys or (number == 0 and not new):
                new.append(group.job(number + len(new)))
            cursor = last
    if not new and cursor == task.cursor:
        return 0
    jobs.define(session, task.id, new, passed=not chain.followers(stage))
    tasks.set_progress(session, task.id, cursor=cursor, roots_defined=number + len(new))
    tasks.begin(session, [task.id])
    return len(new)


def _keys(
    session: Session, chain: Chain, stage: Stage, after: int, *, final: bool
) -> Iterator[KeyFiles]:
    """The settled prefix of keys beyond `after`, page by page."""
    pages = _root_pages if not stage.upstreams else _job_pages
    return pages(session, chain, stage, after, final)


def _root_pages(
    session: Session, chain: Chain, stage: Stage, after: int, _final: bool
) -> Iterator[KeyFiles]:
    while files := jobfiles.source_files(session, chain.dataset_id, after, BATCH):
        leading = companions.leading(session, chain, files)
        beside = companions.company(session, chain, [file.name for file in leading])
        for file in leading:
            more = beside.get(file.name, companions.ALONE)
            own = {link.port: [[file.file_id]] for link in stage.links}
            extra = {
                port: [list(ids)] for port, ids in more.inputs(stage.links, file.file_id).items()
            }
            yield KeyFiles(file.position, {**own, **extra}, more.fault)
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
        files |= jobfiles.outputs(session, [job.id for job in by_key.values()], ports)
    for job in page:
        here = [by_key.get(job.key) for by_key in found.values()]
        if not final and any(other is None for other in here):
            return
        lists, fault = {}, None
        for link in stage.links:
            values = [
                files.get((other.id, source.port))
                if (other := found[source.stage or ""].get(job.key)) is not None
                else None
                for source in link.sources
            ]
            if link.pick in (Pick.FIRST_NON_NULL, Pick.THE_ONLY_NON_NULL):
                one, why = pick_one(link, values)
                values, fault = [one], fault or why
            lists[link.port] = [value or [] for value in values]
        yield KeyFiles(job.ordinal, lists, fault)
