"""`spdf demo`: a small detector's run through the whole chain, and whether it came out right."""

import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from catalog.counts import count_of
from catalog.errors import Unavailable
from cli.home import open_catalog, server_client, settings, ui_address
from cli.launch import launch
from cli.output import Json, Size, note, plain, print_fields, print_json, print_table, say
from cli.profile import start, where
from cli.template import activate_one
from cli.verdict import Verdict, judge
from cli.watching import Ended, stage_rows, stage_values, watch

if TYPE_CHECKING:
    from catalog.datasets import DatasetInfo
    from catalog.db import Catalog
    from catalog.storages import StorageInfo
    from flows.services import UpInfo

TEMPLATE = "spd"
NOT_RIGHT = 1
_MASK = "run-[0-9][0-9][0-9][0-9]"


@dataclass(frozen=True)
class Run:
    """A simulated run: its number, and where its truth and what is compared with it lie."""

    number: int
    folder: Path

    @property
    def name(self) -> str:
        """The dataset's name."""
        return f"run-{self.number:04d}"


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command("demo")(demo)


class Profile(StrEnum):
    """Which parts the demo runs on."""

    EMBEDDED = "embedded"
    SITE = "site"


def demo(
    files: Annotated[int, typer.Option(min=1, max=9999, help="Files to simulate.")] = 24,
    keep: Annotated[
        bool, typer.Option("--keep/--down", help="Leave spdf up at the end, or stop it.")
    ] = True,
    profile: Annotated[
        Profile, typer.Option(help="SQLite and directories, or PostgreSQL and S3.")
    ] = Profile.EMBEDDED,
    as_json: Json = False,
) -> None:
    """Simulate a detector's run and filter it: decode, reconstruct, select, merge.

    Ends with the stages, how well tracks were found, how much data were dropped, and where to
    look. The exit code is 0 only if all of it came out as it should. With --profile site a whole
    site of this machine's own is started in SPDF_HOME/site.
    """
    examples = _examples()
    if profile is Profile.SITE:
        _move_to_site()
    info = start()
    catalog = open_catalog()
    run = _simulate(catalog, examples, files)
    dataset = _register(catalog, run)
    workflow_id = _submit(catalog, examples, run)
    note(f"workflow {workflow_id} is under way; {info.ui_url} shows it (login {info.login})")
    end = watch(catalog, workflow_id)
    verdict = judge(catalog, examples, dataset, end, run.folder)
    _show(info, end, verdict, as_json)
    if not keep:
        _down()
    if not verdict.right:
        raise typer.Exit(NOT_RIGHT)


def _move_to_site() -> None:
    """Go on in a site of this machine, laid down where there is none."""
    from catalog.settings import get_settings
    from flows.site.layout import SETTINGS, lay_down_local

    current = settings()
    if current.local_servers:
        return
    home = current.home / "site"
    if not (home / SETTINGS).exists():
        lay_down_local(home)
        note(f"laid down a site in {home}; SPDF_HOME={home} makes other commands use it")
    os.environ["SPDF_HOME"] = str(home)
    get_settings.cache_clear()


def _examples() -> Path:
    """The folder of the detector example; raises `Unavailable` where it can't run."""
    from flows.server import project_file

    if importlib.util.find_spec("numpy") is None:
        raise Unavailable("the demo needs numpy; install spdf with its extra `examples`.")
    return project_file("examples") / "spd"


def _simulate(catalog: "Catalog", examples: Path, files: int) -> Run:
    """Take the next free run number and simulate its slices."""
    run = _next_run(catalog)
    shutil.rmtree(run.folder, ignore_errors=True)
    note(f"simulating {count_of(files, 'file')} of {run.name}")
    command = [sys.executable, "-B", str(examples / "simulate.py"), "--outdir", str(run.folder)]
    command += ["--files", str(files), "--run", str(run.number)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Unavailable(f"the simulation ended with {done.returncode}: {done.stderr.strip()}")
    return run


def _next_run(catalog: "Catalog") -> Run:
    """Create the dataset of the first run number beyond those that were used."""
    from catalog import datasets

    with catalog.write() as session:
        used = datasets.list_datasets(session, mask=_MASK, limit=9999)
        number = max((int(info.name[-4:]) for info in used), default=0) + 1
        run = Run(number, settings().home / "demo" / f"run-{number:04d}")
        datasets.create(session, run.name)
    return run


def _register(catalog: "Catalog", run: Run) -> "DatasetInfo":
    """Copy the slices to the buffer, register them, and close the dataset."""
    from catalog import datasets, intake

    slices = run.folder / "slices"
    measured = intake.copy_in(sorted(slices.iterdir()), _buffer(catalog), run.name)
    shutil.rmtree(slices)
    with catalog.write() as session:
        dataset = datasets.by_name(session, run.name)
        intake.add(session, dataset.id, measured)
        info = datasets.close(session, dataset.id)
    size = Size(info.size_bytes or 0)
    note(f"dataset {info.name} is CLOSED: {count_of(info.file_count or 0, 'file')}, {size}")
    return info


def _buffer(catalog: "Catalog") -> "StorageInfo":
    from catalog import storages
    from catalog.models import StorageRole
    from flows.defaults import DEFAULTS

    name, _ = DEFAULTS[StorageRole.INPUT]
    with catalog.read() as session:
        named = [s for s in storages.list_all(session) if s.name == name]
        return named[0] if named else storages.default_for(session, StorageRole.INPUT)


def _submit(catalog: "Catalog", examples: Path, run: Run) -> int:
    from flows import templates
    from flows.submit import Submission

    info, warnings = templates.create(catalog, examples / "chain.cwl", name=TEMPLATE)
    for warning in warnings:
        note(warning)
    info, _ = activate_one(catalog, info)
    inputs = {"calibration": str(run.folder / "calibration.csv")}
    with server_client() as client:
        done = launch(catalog, client, Submission(info.ref, run.name, inputs))
    return done.workflow.id


def _show(info: "UpInfo", end: Ended, verdict: Verdict, as_json: bool) -> None:
    address = ui_address(end.workflow.flow_run_id)
    if as_json:
        print_json(
            {
                "right": verdict.right,
                "workflow": plain(end.workflow),
                "stages": stage_values(end.stages),
                "checks": plain(verdict.checks),
                "address": address,
                "login": info.login,
            }
        )
        return
    print_table(stage_rows(end.stages), f"workflow {end.workflow.id}: {end.workflow.label}")
    print_table(
        [
            {"what": c.what, "found": c.found, "should be": c.wanted, "right": c.right}
            for c in verdict.checks
        ]
    )
    shown: dict[str, Any] = {**where(info), "this run": address}
    print_fields(shown)
    say("all of it is right." if verdict.right else "not all of it is right.")


def _down() -> None:
    from flows import services

    services.down(settings())
