"""A job that a storage or its node fails: it waits for the end of the outage, and pays nothing."""

import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from catalog import datasets, intake, jobs, outages, ownership, storages, templates
from catalog.db import Catalog
from catalog.errors import ERRORS, ErrorClass, ErrorCode
from catalog.jobs import AttemptInfo, JobInfo
from catalog.models import StorageRole
from catalog.settings import Settings, get_settings
from catalog.states import AttemptState, JobState, WorkflowState
from flows import templates as template_files
from flows.advance import Chain, advance, load
from flows.shift import Roster, Shift
from flows.submit import Submission, submit
from tests.documents import copying
from tests.servers.rgw import S3Server
from workers.slots import Capacity

pytestmark = pytest.mark.xdist_group("s3")

BYTES = 3 * 2**20


@dataclass
class OneJob:
    """A workflow of one job whose input and output are on S3."""

    catalog: Catalog
    settings: Settings
    server: S3Server
    chain: Chain
    buckets: dict[StorageRole, str]

    def shift(self, settings: Settings | None = None) -> None:
        """One pilot's shift."""
        roster = Roster(self.chain.task_ids["copy"], "cpu", Capacity(1, 1024), None)
        with Shift(self.catalog, settings or self.settings, roster) as shift:
            shift.work(lambda window: [shift.begin_job(job) for job in window])

    def seen(self) -> tuple[JobInfo, AttemptInfo]:
        """The job, and its last attempt."""
        with self.catalog.read() as session:
            (job,) = jobs.list_jobs(session, task_id=self.chain.task_ids["copy"], limit=2)
            return job, jobs.attempts(session, [job.id])[job.id][-1]

    def ends(self) -> None:
        """See the job go on by itself, with nothing in its way, until the workflow ends."""
        until = time.monotonic() + 90
        while advance(self.chain) is not WorkflowState.FINISHED:
            assert time.monotonic() < until, self.seen()
            self.shift()


@pytest.fixture
def one(
    catalog: Catalog, s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[OneJob]:
    """The job is READY."""
    settings = s3_server.settings(
        tmp_path / "home", slots=1, heartbeat_s=0.2, lease_s=5.0, drain_s=1.0, commit_s=0.05,
        outage_s=1.0, pilot_idle_s=0.5,
    )  # fmt: skip
    for name in ("s3_access_key", "s3_secret_key"):
        monkeypatch.setenv(f"SPDF_{name.upper()}", getattr(settings, name).get_secret_value())
    get_settings.cache_clear()
    buckets = {role: s3_server.bucket(tmp_path) for role in StorageRole}
    with catalog.write() as session:
        places = {
            role: storages.add(session, role, "s3", role, url) for role, url in buckets.items()
        }
    raw = tmp_path / "raw.dat"
    raw.write_bytes(b"r" * BYTES)
    measured = intake.copy_in([raw], places[StorageRole.INPUT], "run")
    with catalog.write() as session:
        dataset = datasets.create(session, "run-1")
        intake.add(session, dataset, measured)
        datasets.close(session, dataset)
    (tmp_path / "copy.cwl").write_text(copying())
    info, _ = template_files.create(catalog, tmp_path / "copy.cwl", mask="run-?")
    with catalog.write() as session:
        reference = templates.activate(session, info.id).ref
    workflow, _ = submit(catalog, Submission(reference, "run-1", {}))
    with catalog.write() as session:
        epoch = ownership.claim(session, workflow, "test", 600.0, None)
    assert epoch is not None
    chain = load(catalog, workflow, epoch, 600.0)
    advance(chain)
    yield OneJob(catalog, settings, s3_server, chain, buckets)
    get_settings.cache_clear()


def check(one: OneJob, code: ErrorCode, sentence: str) -> None:
    """The attempt failed with that code and sentence, and the job is where its class puts it."""
    job, attempt = one.seen()
    assert (attempt.state, attempt.error) == (AttemptState.FAILED, code), attempt.message
    assert sentence in str(attempt.message)
    assert "\n" not in str(attempt.message)
    assert ERRORS[code].error_class is ErrorClass.OUTAGE
    assert (job.state, job.failures) == (JobState.READY, 0)
    with one.catalog.read() as session:
        (outage,) = outages.current(session)
    assert outage.code is code


def test_a_wrong_login_is_waited_for(one: OneJob, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as wrong:
        wrong.setenv("SPDF_S3_SECRET_KEY", "wrong")
        one.shift()
    check(one, ErrorCode.STORAGE_DENIED, "correct SPDF_S3_ACCESS_KEY and SPDF_S3_SECRET_KEY")
    one.ends()


def test_a_bucket_that_vanished_is_waited_for(one: OneJob) -> None:
    name = one.buckets[StorageRole.OUTPUT].rpartition("/")[2]
    _admin(one, "bucket", "rm", "--bucket", name, "--purge-objects")
    one.shift()
    check(one, ErrorCode.STORAGE_GONE, "bring it back")
    _make_bucket(one, name)
    one.ends()


def test_a_full_storage_is_waited_for(one: OneJob) -> None:
    name = one.buckets[StorageRole.OUTPUT].rpartition("/")[2]
    scope = ("--quota-scope", "bucket", "--bucket", name)
    _admin(one, "quota", "set", *scope, "--max-size", "1024")
    _admin(one, "quota", "enable", *scope)
    one.shift()
    check(one, ErrorCode.STORAGE_FULL, "free some space there")
    _admin(one, "quota", "disable", *scope)
    one.ends()


def test_a_server_that_is_away_for_long_is_waited_for(one: OneJob) -> None:
    one.server.kill("rgw")
    try:
        one.shift()
    finally:
        one.server.start("rgw")
        one.server.store.wait_ready()
    check(one, ErrorCode.STORAGE_UNAVAILABLE, "storage 'input'")
    one.ends()


def test_a_full_work_disk_is_waited_for(one: OneJob, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", small], check=False, capture_output=True
    )
    if done.returncode:
        pytest.skip("NOT TESTED: only root can mount a small file system")
    try:
        one.shift(one.settings.model_copy(update={"work_dir": small}))
    finally:
        subprocess.run(["umount", small], check=True)
    check(one, ErrorCode.NODE_DISK_FULL, "space")
    one.ends()


def _admin(one: OneJob, *words: str) -> None:
    subprocess.run([*one.server.store.admin, *words], check=True, capture_output=True)


def _make_bucket(one: OneJob, name: str) -> None:
    from flows.site.buckets import PREFIX, ensure_bucket

    ensure_bucket(one.settings, name.removeprefix(PREFIX))
