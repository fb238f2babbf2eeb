"""From files that arrive to an archive and back to nothing: the intake, killed on the way."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.driver import EXAMPLES, Site
from tests.acceptance.machine import until

pytestmark = pytest.mark.xdist_group("server")

COUNT = 40


def service(site: Site, name: str) -> int:
    """The pid of a service that runs."""
    (found,) = [s for s in site.json("status")["services"] if s["name"] == name]
    return int(found["pid"])


def arrive(site: Site, name: str, content: bytes) -> None:
    """As a DAQ does it: written beside, then renamed."""
    path = site.home / "storage" / "input" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}")
    part.write_bytes(content)
    part.rename(path)


def state(site: Site, dataset: str) -> Any:
    rows = site.rows("SELECT state FROM dataset WHERE name = ?", dataset)
    return rows[0][0] if rows else None


def test_a_run_goes_from_its_first_file_to_the_archive_and_is_deleted(site: Site) -> None:
    options = ("--mask", "daq-*[0-9]", "--auto", "--activate", "--intermediate", "consumed")
    chain = EXAMPLES / "twostage" / "chain.cwl"
    site.spdf("template", "create", chain, "--name", "daqchain", *options)
    site.spdf("intake", "add", "daq", "--storage", "buffer", "--stable", "0s",
              "--pattern", r"(?P<run>daq-\d+)/.*\.raw", "--dataset", "{run}",
              "--end", r"(?P<run>daq-\d+)/END")  # fmt: skip
    for number in range(COUNT):
        arrive(site, f"daq-1/f{number:03}.raw", os.urandom(100 + number))
        if number == COUNT // 2:
            os.kill(service(site, "intake"), signal.SIGKILL)
    arrive(site, "daq-1/END", b"")
    until(lambda: state(site, "daq-1") == "CLOSED", "the run closed", 90)
    assert site.one("SELECT file_count FROM dataset WHERE name = 'daq-1'") == COUNT
    assert site.one("SELECT count(*) FROM request WHERE state = 'ERROR' AND lane = 'daq-1'") == 0
    until(
        lambda: site.rows(
            "SELECT 1 FROM workflow w JOIN dataset d ON d.id = w.dataset_id "
            "WHERE d.name = 'daq-1' AND w.state = 'FINISHED'"
        ),
        "its workflow, which nobody has submitted, FINISHED",
        120,
    )
    out = "daq-1.daqchain.v1.cut.digest"
    between = "daq-1.daqchain.v1.md5sum.line"
    until(lambda: state(site, between) == "DELETED", "what lay between the stages gone", 60)

    archive = site.home / "archive"
    site.spdf("storage", "add", "archive", archive, "--role", "output")
    site.spdf("dataset", "upload", out, "--to", "archive")
    until(lambda: site.json("dataset", "show", out)["uploads"][0]["state"] == "DONE", "uploaded")
    assert sum(path.is_file() for path in archive.rglob("[!.]*")) == COUNT

    site.spdf("dataset", "delete", "daq-1", "--yes", "--grace", "0s", "--remove-originals")
    until(lambda: state(site, "daq-1") == "DELETED", "the raw data gone", 60)
    assert not list((site.home / "storage" / "input" / "daq-1").glob("*.raw"))
    for storage in ("buffer", "internal", "output", "archive"):
        found = site.json("inspect", "run", storage, "--full", "--grace", "0s", "--limit", "100")
        wrong = (found["missing"], found["corrupt"])
        assert wrong == (0, 0), site.json("inspect", "report")
    why = site.spdf("dataset", "why", "daq-1")
    assert "was deleted" in why
    site.spdf("intake", "remove", "daq")
    site.spdf("template", "archive", "daqchain")


def test_requests_are_accepted_by_every_way_and_answered(site: Site, tmp_path: Path) -> None:
    def document(kind: str, key: str, **fields: Any) -> str:
        return json.dumps({"kind": kind, "key": key, **fields})

    content = b"by request"
    arrive(site, "asked/f.raw", content)
    entry = {"storageId": "buffer", "path": "asked/f.raw", "size": len(content)}
    lines = tmp_path / "requests.jsonl"
    lines.write_text(
        document("dataset.input", "asked", name="asked-1", lifetime="7d")
        + "\n"
        + document("file.input", "asked f", datasetId="asked-1", files=[entry])
        + "\n"
    )
    assert "2 requests answered, 0 of them with ERROR" in site.spdf("register", lines, "--wait")
    assert "2 requests answered, 0 of them" in site.spdf("register", lines, "--wait"), "the same"
    spool = site.home / "spool"
    spool.mkdir(exist_ok=True)
    part = spool / ".close.json"
    part.write_text(document("dataset.close", "asked close", datasetId="asked-1", fileCount=1))
    part.rename(spool / "close.json")
    until(lambda: state(site, "asked-1") == "CLOSED", "closed through the spool", 30)
    lines.write_text(
        document("file.input", "asked late", datasetId="asked-1", files=[entry]) + "\n"
    )
    done = site.run("register", lines, "--wait")
    assert done.returncode == 4 and "is CLOSED" in done.stderr
    shown = site.json("request", "show", "asked late")
    assert shown["state"] == "ERROR" and shown["reply"]["code"] == "CONFLICT"
    lines.write_text('{"kind": "file.input", "key"')
    done = site.run("register", lines)
    assert done.returncode == 2 and "line 1 is no JSON" in done.stderr
