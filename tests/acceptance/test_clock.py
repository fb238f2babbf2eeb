"""A machine whose clock is set, and one that comes back behind: with the clock itself preloaded."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.acceptance.driver import TIMES, Site, clean_environment, running
from tests.acceptance.machine import until

AHEAD_S, BEHIND_S = 45 * 86400, -3 * 3600
SOURCE = Path(__file__).with_name("wrongclock.c")
PATTERN = r"q/(?P<run>\d+)/.*\.raw"


class WrongClock(Site):
    """A site whose processes take their clock from a file."""

    def set_clock(self, seconds: int) -> None:
        """Set it that much wrong."""
        Path(self.environment["CLOCK_FILE"]).write_text(str(seconds))

    def put(self, path: str) -> None:
        """A file that arrives."""
        place = self.home / "raw" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(path)

    def has(self, dataset: str) -> int:
        """How many files a dataset has."""
        query = (
            "SELECT count(*) FROM dataset_file JOIN dataset d ON d.id = dataset_id WHERE d.name = ?"
        )
        return int(self.one(query, dataset))

    def told(self) -> str:
        """What status says isn't well."""
        return "\n".join(json.loads(self.run("status", "--json").stdout)["problems"])

    def late(self) -> list[tuple[str, str, str]]:
        """Times in rows that are later than anything here may be: a lifetime of thirty days."""
        latest = (datetime.now(UTC) + timedelta(days=31)).strftime("%Y-%m-%d")
        found = []
        for (table,) in self.rows("SELECT name FROM sqlite_master WHERE type = 'table'"):
            for _, column, kind, *_ in self.rows(f"PRAGMA table_info({table})"):
                if kind == "DATETIME":
                    query = f"SELECT max({column}) FROM {table}"
                    ((last,),) = self.rows(query)
                    found += [(table, column, last)] if last and last > latest else []
        return found


@pytest.fixture
def site(tmp_path: Path) -> Iterator[WrongClock]:
    """A profile of its own, whose clock is right so far."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("NOT TESTED: there is no C compiler")
    library, clock, home = tmp_path / "wrongclock.so", tmp_path / "clock", tmp_path / "home"
    line = [compiler, "-shared", "-fPIC", "-O2", "-o", library, SOURCE, "-ldl"]
    subprocess.run(line, check=True)
    home.mkdir(mode=0o700)
    environment = {
        **clean_environment(), **TIMES,
        "SPDF_HOME": str(home), "LD_PRELOAD": str(library), "CLOCK_FILE": str(clock),
    }  # fmt: skip
    made = WrongClock(home, environment)
    made.set_clock(0)
    with running(made):
        yield made


def test_a_clock_that_is_set_removes_closes_and_holds_up_nothing(site: WrongClock) -> None:
    raw = site.home / "raw"
    raw.mkdir()
    site.put("keep/a.raw")
    site.spdf("storage", "add", "raw", raw, "--role", "input")
    site.spdf("dataset", "create", "keep", "--lifetime", "30d")
    site.spdf("dataset", "add", "keep", raw / "keep" / "a.raw")
    site.spdf("dataset", "close", "keep")
    rule = ("--storage", "raw", "--prefix", "q", "--pattern", PATTERN, "--dataset", "run-{run}")
    site.spdf("intake", "add", "raw", *rule, "--quiet", "1h")
    site.put("q/1/s1.raw")
    until(lambda: site.has("run-1") == 1, "the first file is registered")

    site.set_clock(AHEAD_S)
    until(lambda: "ahead" in site.told(), "status tells that the clock is ahead")
    site.put("q/1/s2.raw")
    until(lambda: site.has("run-1") == 2, "files are registered while it is")
    time.sleep(6)  # long enough for a beat, lifetimes and closing, several times each
    pid = site.service("intake")
    site.set_clock(0)
    until(lambda: "is right again" in site.told(), "status tells that it is right again")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    site.put("q/2/s1.raw")
    until(lambda: site.has("run-2") == 1, "a new intake goes on at once")
    states = dict(site.rows("SELECT name, state FROM dataset WHERE name IN ('keep', 'run-1')"))
    assert states == {"keep": "CLOSED", "run-1": "OPEN"}
    assert (raw / "keep" / "a.raw").exists()
    assert site.late() == []

    # The power goes, and the machine comes back with its clock in another zone's time.
    for process in site.mine():
        os.kill(process.pid, signal.SIGKILL)
    until(lambda: site.mine() == [], "everything is dead")
    site.set_clock(BEHIND_S)
    site.server = site.json("up", limit_s=240)
    assert "behind" in site.told()
    site.put("q/2/s2.raw")
    until(lambda: site.has("run-2") == 2, "the intake is at work")
    site.set_clock(0)
    until(lambda: "was 3 h behind" in site.told(), "it is right again")
    assert site.late() == []
