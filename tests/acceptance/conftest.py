"""The whole system as a user has it: the `spdf` command, its processes, a real Prefect server."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.services import postgres, rgw
from tests.acceptance.driver import (
    BIN,
    COPY,
    NAP,
    TIMES,
    Node,
    Site,
    WholeSite,
    clean_environment,
    running,
)
from tests.servers.install import need
from tests.servers.postgres import PACKAGE


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A home of its own, up; at the end it is down and nothing of it runs."""
    home = tmp_path_factory.mktemp("acceptance") / "home"
    home.mkdir(mode=0o700)
    with running(Site(home, {**clean_environment(), **TIMES, "SPDF_HOME": str(home)})) as site:
        yield site


@pytest.fixture(scope="session")
def whole_site() -> Iterator[WholeSite]:
    """PostgreSQL, S3 and the server of a site, up; payloads run on the nodes that a test starts.

    It is not below pytest's own directories, which are closed to PostgreSQL's user under root.
    """
    need(lambda: postgres.program("postgres"), PACKAGE)
    need(lambda: rgw.program("radosgw"), *rgw.PACKAGES)
    with tempfile.TemporaryDirectory(prefix="spdf-site-") as folder:
        home = Path(folder, "home")
        own = clean_environment()
        subprocess.run([BIN / "spdf", "site", "init", home, "--local"], check=True, env=own)
        with (home / "spdf.env").open("a") as settings:
            settings.write("SPDF_LOCAL_PAYLOADS=false\n")
        with running(WholeSite(home, {**own, **TIMES, "SPDF_HOME": str(home)})) as site:
            site.catalog_url = site.addresses["SPDF_CATALOG_URL"]
            (home / "copy.cwl").write_text(COPY)
            site.template(home / "copy.cwl", "raw-????")
            yield site


@pytest.fixture(scope="session")
def nap_files(site: Site) -> dict[str, bytes]:
    """Content by key of the 30 files of dataset `nap-files`; template `nap` is active."""
    files = {f"f{i:02d}.dat": f"content {i}\n".encode() * (i + 1) for i in range(30)}
    site.dataset("nap-files", site.write("nap-files", files))
    path = site.home / "nap.cwl"
    path.write_text(NAP)
    site.template(path, "nap-files")
    return {f"nap-files/{name}": content for name, content in files.items()}


@pytest.fixture
def nodes(whole_site: WholeSite) -> Iterator[list[Node]]:
    """The nodes of a test; whatever is left of them at its end is killed."""
    made: list[Node] = []
    yield made
    for node in made:
        assert node.process is not None
        for pid in [node.process.pid, *(p.pid for p in node.mine())]:
            if node.process.poll() is None or pid != node.process.pid:
                os.kill(pid, signal.SIGKILL)
        node.process.wait()
        # Shown by pytest where the test failed.
        sys.stderr.write(f"--- {node.name}\n{(node.home / 'worker.log').read_text()[-4000:]}\n")
