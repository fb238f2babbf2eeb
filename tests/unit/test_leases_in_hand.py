"""No lease is renewed that nobody works on: such a job would run for as long as its pilot does."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from catalog import attempts
from catalog.attempts import Lease
from catalog.errors import ErrorCode
from catalog.refs import JobResult, Outcome
from catalog.settings import Settings
from catalog.states import JobState, Phase
from flows.shift.committer import Committer
from flows.shift.hand import Hand
from flows.shift.heart import Heart
from flows.shift.leases import Leases
from flows.taskspecs import load_task
from tests.conftest import EVERY_WAY
from tests.unit.test_outages import Site
from tests.unit.test_outages import site as site
from tests.unit.test_workload import LEASE_S
from tests.unit.test_workload import start as start
from workers.job import RunningJob, stopped
from workers.spec import JobSpec

pytestmark = EVERY_WAY


def taken_on(leases: Sequence[Lease]) -> list[RunningJob]:
    return [
        RunningJob(JobSpec(one.job_id, one.attempt_id, 1, one.key, 1, one.number, {}, {}))
        for one in leases
    ]


def states(site: Site) -> list[tuple[JobState, int]]:
    return [(job.state, job.failures) for job in site.jobs()]


def held(site: Site) -> set[int]:
    with site.catalog.read() as session:
        return {job_id for job_id, _ in attempts.held(session, site.pilot("n"))}


def committer(site: Site, hand: Hand) -> Committer:
    no_files: Any = None
    return Committer(
        site.catalog, no_files, hand, site.pilot("n"), retry=0, most=10, wait_s=0.1
    )  # fmt: skip


class Meanwhile(Hand):
    """A hand from which jobs are given back while a beat is on its way."""

    def __init__(self, back: Callable[[], None]) -> None:
        super().__init__()
        self._back = back

    def new_phases(self) -> dict[int, Phase]:
        self._back()
        return super().new_phases()


def test_a_job_handed_back_during_a_beat_is_not_stopped_in_its_next_lease(site: Site) -> None:
    """It has the same number again: processes that were told to stop it would do so then."""
    (lease,) = site.lease(limit=1)
    (running,) = taken_on([lease])
    told: list[str] = []
    running.on_stop = lambda: told.append("stop")

    def back() -> None:
        pair = running.spec.job_id, running.spec.number
        hand.drop([pair])
        with site.catalog.write() as session:
            assert attempts.hand_back(session, site.pilot("n"), [pair])

    hand = Meanwhile(back)
    hand.add([running])
    Heart(site.catalog, hand, site.pilot("n"), beat_s=1.0, lease_s=LEASE_S).beat()
    assert told == []
    again = {one.job_id: one.number for one in site.lease()}
    assert again[lease.job_id] == lease.number


def test_a_job_whose_lease_is_lost_is_stopped(site: Site) -> None:
    (lease,) = site.lease(limit=1)
    (running,) = taken_on([lease])
    hand = Hand()
    hand.add([running])
    with site.catalog.write() as session:
        attempts.hand_back(session, site.pilot("n"), [(lease.job_id, lease.number)])
    Heart(site.catalog, hand, site.pilot("n"), beat_s=1.0, lease_s=LEASE_S).beat()
    assert running.stop.is_set()


def test_a_job_that_was_stopped_while_it_is_its_pilots_is_tried_again(site: Site) -> None:
    mine, lost = taken_on(site.lease(limit=2))
    with site.catalog.write() as session:
        attempts.hand_back(session, site.pilot("n"), [(lost.spec.job_id, lost.spec.number)])
    (other,) = site.lease("m", limit=1)
    hand = Hand()
    hand.add([mine, lost])
    committer(site, hand)._commit([stopped(mine), stopped(lost)])
    assert len(hand) == 0
    by_id = {job.id: job for job in site.jobs()}
    assert (by_id[mine.spec.job_id].state, by_id[mine.spec.job_id].failures) == (
        JobState.READY, 0,
    )  # fmt: skip
    assert by_id[mine.spec.job_id].error == ErrorCode.PILOT_STOPPED
    assert by_id[other.job_id].state is JobState.RUNNING, "another's lease is as it was"


def test_an_end_that_the_catalog_refuses_is_one_all_the_same(site: Site) -> None:
    first, second = taken_on(site.lease(limit=2))
    hand = Hand()
    hand.add([first, second])
    nowhere = JobResult(
        first.spec.job_id, first.spec.attempt_id, 1, Outcome.FAILED,
        error=ErrorCode.STORAGE_FULL, message="it is full", storage_id=999_999,
    )  # fmt: skip
    good = JobResult(second.spec.job_id, second.spec.attempt_id, 1, Outcome.FINISHED)
    committer(site, hand)._commit([nowhere, good])
    by_id = {job.id: job for job in site.jobs()}
    assert by_id[second.spec.job_id].state is JobState.FINISHED
    refused = by_id[first.spec.job_id]
    assert refused.state is not JobState.RUNNING
    assert refused.error == ErrorCode.INTERNAL
    assert refused.reason and "refused" in refused.reason


def test_what_is_held_and_not_in_hand_is_handed_back_in_the_middle_of_a_shift(
    site: Site, tmp_path: Path
) -> None:
    settings = Settings(_env_file=None, home=tmp_path, slots=1)
    kept, forgotten = taken_on(site.lease(limit=2))
    hand = Hand()
    hand.add([kept])
    with site.catalog.read() as session:
        task = load_task(session, site.task)
    leases = Leases(site.catalog, settings, site.pilot("n"), task, hand, ())
    leases.settle()
    assert held(site) == {kept.spec.job_id, forgotten.spec.job_id}, "while there is no doubt"
    leases.doubt()
    leases.settle()
    assert held(site) == {kept.spec.job_id}
    assert states(site).count((JobState.READY, 0)) == 3
