"""Defining the jobs of map stages: one per key, as soon as what it needs is there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlmodel import Session

from catalog import jobfiles, jobs, tasks
from catalog.jobfiles import SourceFile
from catalog.jobs import EndedJob, NewJob
from catalog.states import JobState
from flows.advance import companions
from flows.advance.chain import BATCH, Chain
from flows.advance.companions import Company
from flows.plan import Link, Pick, Source, Stage


@dataclass(frozen=True)
class Harvest:
    """What the sources of a stage gave for some keys."""

    root: Mapping[str, int]
    beside: Mapping[str, Company]
    ended: Mapping[str, Mapping[str, EndedJob]]
    files: Mapping[tuple[int, str], Sequence[int]]

    def value(self, source: Source, key: str, kind: str) -> Any:
        """The value of a source for a key: file ids, or a plain value; None for null."""
        if source.stage is None:
            file_id = self.root.get(key)
            return None if file_id is None else [file_id]
        job = self.ended[source.stage][key]
        if kind == "value":
            return job.outputs.get(source.port)
        found = self.files.get((job.id, source.port))
        # A list may be empty; a job that was SKIPPED has none.
        if found is None and kind == "File[]" and job.state is JobState.FINISHED:
            return []
        return found


def define_roots(session: Session, chain: Chain, stage: Stage) -> int:
    """Define jobs for files of the input dataset that have none; gives how many files it took."""
    task = chain.task(session, stage)
    files = jobfiles.source_files(session, chain.dataset_id, task.cursor, BATCH)
    if not files:
        return 0
    leading = companions.leading(session, chain, files)
    beside = companions.company(session, chain, [file.name for file in leading])
    new = [
        _root_job(stage, file, beside.get(file.name, companions.ALONE), task.roots_defined + i)
        for i, file in enumerate(leading)
    ]
    jobs.define(session, task.id, new, passed=not chain.followers(stage))
    tasks.set_progress(
        session,
        task.id,
        cursor=files[-1].position,
        roots_defined=task.roots_defined + len(leading),
    )
    tasks.begin(session, [task.id])
    return len(files)


def _root_job(stage: Stage, file: SourceFile, beside: Company, ordinal: int) -> NewJob:
    if beside.fault is not None:
        return NewJob(file.name, ordinal, JobState.FAILED, reason=beside.fault)
    own = {link.port: [file.file_id] for link in stage.links}
    files = {**own, **beside.inputs(stage.links, file.file_id)}
    return NewJob(file.name, ordinal, JobState.READY, files)


def pass_on(session: Session, chain: Chain, stage: Stage) -> int:
    """Define what follows the jobs of `stage` that ended; gives how many it looked at."""
    followers = chain.followers(stage)
    if not followers:
        return 0
    ended = jobs.unpassed(session, chain.task_ids[stage.name], BATCH)
    for follower in followers:
        define_for(session, chain, follower, ended)
    jobs.mark_passed(session, [job.id for job in ended])
    return len(ended)


def define_after_barrier(session: Session, chain: Chain, stage: Stage) -> int:
    """Define jobs of a stage with a barrier whose upstreams are all finished."""
    task = chain.task(session, stage)
    upstream = chain.task_ids[stage.upstreams[0]]
    page = jobs.after_ordinal(session, upstream, task.cursor, BATCH)
    if not page:
        return 0
    define_for(session, chain, stage, page)
    tasks.set_progress(
        session,
        task.id,
        cursor=page[-1].ordinal,
        roots_defined=task.roots_defined + len(page),
    )
    return len(page)


def define_for(session: Session, chain: Chain, stage: Stage, ended: Sequence[EndedJob]) -> None:
    """Define a stage's jobs for those keys whose upstream jobs have all ended."""
    harvest = _harvest(session, chain, stage, [job.key for job in ended])
    new = [
        _job(stage, harvest, job.key, job.ordinal)
        for job in ended
        if all(job.key in found for found in harvest.ended.values())
    ]
    if new:
        task_id = chain.task_ids[stage.name]
        jobs.define(session, task_id, new, passed=not chain.followers(stage))
        tasks.begin(session, [task_id])


def _harvest(session: Session, chain: Chain, stage: Stage, keys: Sequence[str]) -> Harvest:
    sources = [source for link in stage.links for source in link.sources]
    ended = {
        name: jobs.ended_by_key(session, chain.task_ids[name], keys) for name in stage.upstreams
    }
    files: dict[tuple[int, str], list[int]] = {}
    for name, found in ended.items():
        ports = {source.port for source in sources if source.stage == name}
        files |= jobfiles.outputs(session, [job.id for job in found.values()], ports)
    root: dict[str, int] = {}
    beside: Mapping[str, Company] = {}
    if any(source.stage is None for source in sources):
        root = jobfiles.files_by_name(session, chain.dataset_id, keys)
        beside = companions.company(session, chain, keys)
    return Harvest(root, beside, ended, files)


def _job(stage: Stage, harvest: Harvest, key: str, ordinal: int) -> NewJob:
    files: dict[str, Sequence[int]] = {}
    values: dict[str, Any] = {}
    for link in stage.links:
        value, fault = pick_one(link, [harvest.value(s, key, link.kind) for s in link.sources])
        if fault is not None:
            return NewJob(key, ordinal, JobState.FAILED, reason=fault)
        if value is None:
            if link.null_skips:
                where = ", ".join(f"{s.stage}/{s.port}" for s in link.sources)
                return NewJob(key, ordinal, JobState.SKIPPED, reason=f"nothing came from {where}")
            if link.kind == "File[]":
                values[link.port] = None
        elif link.kind == "value":
            values[link.port] = value
        else:
            files[link.port] = value
    if key in harvest.beside:
        files |= harvest.beside[key].inputs(stage.links, harvest.root[key])
    return NewJob(key, ordinal, JobState.READY, files, values)


def pick_one(link: Link, values: Sequence[Any]) -> tuple[Any, str | None]:
    """The value that counts among those of branches that meet, and why there is none."""
    there = [value for value in values if value is not None]
    if link.pick is Pick.THE_ONLY_NON_NULL and len(there) != 1:
        return None, f"{len(there)} of {len(values)} sources of {link.port} gave a value, not one"
    if link.pick is Pick.FIRST_NON_NULL and not there and not link.null_skips:
        return None, f"no source of {link.port} gave a value"
    return (there[0] if there else None), None
