"""Parts of a site that are away for a while in mid-run: the run ends, exactly once, by itself."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.acceptance.driver import Node, WholeSite
from tests.acceptance.machine import until

pytestmark = pytest.mark.xdist_group("server")

FILES = 1000
AWAY_S = 15.0
PARTS = ("postgres", "s3-rgw", "server")


def take_away(site: WholeSite, part: str) -> None:
    """Kill a part, and hold back who would start it anew, for the time of the outage."""
    supervisor = int(json.loads(site.run("status", "--json").stdout)["supervisor_pid"])
    pid = site.service(part)
    assert pid is not None
    os.kill(supervisor, signal.SIGSTOP)
    try:
        os.kill(pid, signal.SIGKILL)
        time.sleep(AWAY_S)
    finally:
        os.kill(supervisor, signal.SIGCONT)
    until(lambda: site.service(part) not in (None, pid), f"{part} is back", 60)


def test_catalog_storage_and_server_are_each_away_in_mid_run(
    whole_site: WholeSite, nodes: list[Node], tmp_path: Path
) -> None:
    site = whole_site
    files = site.copied("raw-1000", FILES)
    nodes.append(site.start_node("lone", "--slots", 12))
    site.online("lone")
    workflow = site.copy("raw-1000", 1)
    done = 0
    for part in PARTS:
        until(
            lambda done=done: site.jobs(workflow).get("FINISHED", 0) > done + 60,
            lambda part=part: f"jobs end before {part} goes away: {site.jobs(workflow)}",
            180,
        )
        assert site.state(workflow) == "IN_PROGRESS", f"there is something left for {part}'s outage"
        take_away(site, part)
        done = site.jobs(workflow)["FINISHED"]
    site.finished(workflow, 400)
    site.came_out(workflow, files, tmp_path / "got")
    shown = {"COMPLETED": FILES}
    until(lambda: site.shown(workflow).get("COMPLETED") == FILES, f"Prefect shows {shown}", 90)
