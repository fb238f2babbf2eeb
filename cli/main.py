"""The `spdf` command: all its nouns, and the edge where errors become sentences."""

import sys
from collections.abc import Callable
from functools import cache
from typing import Annotated, NoReturn

import typer

from catalog.errors import SpdfError
from catalog.names import spelt_out
from cli import (
    buffer,
    catalog,
    clock,
    cwl,
    dataset,
    datasetcare,
    datasetdelete,
    datasetfill,
    demo,
    ending,
    file,
    inspect,
    intake,
    job,
    overdue,
    pilot,
    profile,
    register,
    request,
    site,
    storage,
    task,
    template,
    worker,
    workflow,
)
from cli.faults import explain, record_defect
from cli.parameters import bound
from cli.pinned import pin_paths

app = typer.Typer(
    name="spdf",
    epilog="Every command explains itself: `spdf workflow submit --help`. "
    "Exit codes: 0 done, 1 not all is well (`status`, `template try`, `--wait`), 2 wrong use, "
    "3 not found, 4 conflict, 5 unavailable, 70 a defect.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
profile.register(app)
demo.register(app)
register.register(app)
datasetfill.register(dataset.app)
datasetcare.register(dataset.app)
datasetdelete.register(dataset.app)
ending.register(workflow.app)
overdue.register(dataset.app)
for noun in (
    catalog, storage, dataset, file, request, template, workflow, task, job, pilot, worker, cwl,
    intake, buffer, inspect, site, clock,
):  # fmt: skip
    app.add_typer(noun.app)
bound(app)


def _version(wanted: bool) -> None:
    if not wanted:
        return
    from importlib.metadata import PackageNotFoundError, version

    try:
        typer.echo(f"spdf {version('spdf')}")
    except PackageNotFoundError:
        typer.echo("spdf, from a checkout that is not installed")
    raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Datasets, templates and workflows of a high-throughput online filter."""


@cache
def _command() -> Callable[..., object]:
    """All commands with their parameters, which take 50 ms to be made from their functions."""
    return typer.main.get_command(app)


def run() -> NoReturn:
    """Entry point: run the command line of this process and end it with its exit code."""
    try:
        pin_paths()
        _command()(prog_name="spdf")
    except SpdfError as error:
        fault, code = str(error), type(error).exit_code
    except Exception as error:  # noqa: BLE001 - the edge: nothing is shown as a traceback
        fault, code = explain(error) or record_defect(error)
    else:
        sys.exit(0)
    typer.echo(f"spdf: {spelt_out(fault)}", err=True)
    sys.exit(code)
