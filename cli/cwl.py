"""`spdf cwl`: single CWL documents, without a server or a catalog."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(name="cwl", help="Single CWL documents on this machine.", no_args_is_help=True)


@app.command("run")
def run_tool(
    document: Annotated[
        str, typer.Argument(metavar="DOCUMENT", help="A CommandLineTool or ExpressionTool.")
    ],
    job: Annotated[
        str | None, typer.Argument(metavar="JOB", help="Its inputs: a YAML or JSON file.")
    ] = None,
    outdir: Annotated[Path, typer.Option(help="Where its output files go.")] = Path(),
    quiet: Annotated[bool, typer.Option("--quiet", help="Don't show its log.")] = False,
) -> None:
    """Run one CWL tool and print its output object as JSON.

    Exit codes: 1 the tool failed, 2 it can't be run as it is, 33 it needs what isn't supported.
    """
    from workers.cwl.__main__ import run

    raise typer.Exit(run(document, job, str(outdir), quiet=quiet))
