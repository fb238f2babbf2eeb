"""`spdf template try`: every stage of a template on one local file."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from catalog.errors import BadInput, Conflict, NotFound, Unavailable
from cli.home import add_own_programs, open_catalog
from cli.launch import read_inputs
from cli.output import Json, Size, note, print_json, print_table, say

if TYPE_CHECKING:
    from flows.trial import Candidate, Trialled

FAILED = 1
_LOG_LINES = 40


def try_template(
    template: Annotated[
        str,
        typer.Argument(metavar="TEMPLATE", help="A CWL file, NAME or NAME@N.", show_default=False),
    ],
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The file to try it on.", show_default=False)
    ],
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input", metavar="NAME=VALUE", help="Another input; a File by its path. Repeatable."
        ),
    ] = None,
    outdir: Annotated[
        Path | None, typer.Option(help="Keep outputs and logs in this new or empty directory.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run one job of each stage on one file, here and now, without a server.

    Exit code 1 where a stage fails; its log is shown.
    """
    given = read_inputs(inputs or [])
    if not file.is_file():
        raise BadInput(f"there is no file {str(file)!r}; give the path of one that exists.")
    if outdir is not None:
        _make(outdir)
    results = _run(_candidate(template), file, given, outdir, silent=as_json)
    failed = any(row.get("failed") for row in results)
    if as_json:
        print_json({"template": template, "file": file, "failed": failed, "stages": results})
    else:
        _show(results, outdir)
    if failed:
        raise typer.Exit(FAILED)


def _run(
    candidate: "Candidate",
    file: Path,
    given: dict[str, str],
    outdir: Path | None,
    *,
    silent: bool,
) -> list[dict[str, Any]]:
    """The stages in order with what became of them; those not reached have no state."""
    from flows.trial import Trial

    add_own_programs()
    results = []
    with Trial(candidate, file, given) as trial:
        for result in trial.stages():
            results.append(_described(result, outdir))
            if not silent:
                note(f"{result.stage}: {results[-1]['state']}")
    left = candidate.plan.stages[len(results) :]
    return results + [{"stage": stage.name, "state": None} for stage in left]


def _make(outdir: Path) -> None:
    outdir.mkdir(parents=True, exist_ok=True)
    if any(outdir.iterdir()):
        raise Conflict(f"{outdir} is not empty; nothing in it is replaced, so give another.")


def _candidate(template: str) -> "Candidate":
    from flows.trial import from_catalog, from_file

    path = Path(template)
    if path.is_file():
        return from_file(path)
    try:
        return from_catalog(open_catalog(), template)
    except (NotFound, Unavailable) as error:
        raise BadInput(f"{template!r} is neither a file nor a template here: {error}") from error


def _described(result: "Trialled", outdir: Path | None) -> dict[str, Any]:
    """A stage's result as JSON values, its files and log copied before they go."""
    attempt = result.attempt
    log = result.log.read_text("utf-8", "replace") if result.log else ""
    if outdir is not None and result.log is not None:
        (outdir / f"{result.stage}.log").write_text(log, "utf-8")
    return {
        "stage": result.stage,
        "state": result.state,
        "failed": result.failed,
        "error": attempt.error if attempt else None,
        "exit_code": attempt.exit_code if attempt else None,
        "reason": result.reason,
        "wall_s": attempt.wall_s if attempt else None,
        "cpu_s": attempt.cpu_s if attempt else None,
        "peak_rss_bytes": attempt.peak_rss_bytes if attempt else None,
        "outputs": [
            {
                "port": port,
                "file": str(_kept(path, name, result.stage, port, outdir)) if outdir else name,
                "size_bytes": size_bytes,
            }
            for port, name, path, size_bytes in result.files
        ],
        "values": result.values,
        "log": log,
    }


def _kept(path: Path, name: str, stage: str, port: str, outdir: Path) -> Path:
    target = outdir / stage / port / name
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, target)
    return target


def _show(results: list[dict[str, Any]], outdir: Path | None) -> None:
    print_table(
        [
            {
                "stage": row["stage"],
                "state": row["state"] or "not reached",
                "error": row.get("error"),
                "exit": row.get("exit_code"),
                "wall s": row.get("wall_s"),
                "CPU s": row.get("cpu_s"),
                "outputs": _outputs(row),
            }
            for row in results
        ]
    )
    for row in results:
        if row.get("failed"):
            say(f"stage {row['stage']}: {row['reason'] or row['state']}")
            lines = row["log"].splitlines()
            if lines:
                say(f"the last lines of its log ({len(lines)} in all):")
                say("\n".join(f"  {line}" for line in lines[-_LOG_LINES:]))
            else:
                say("it left no log.")
        elif row["state"] == "SKIPPED":
            say(f"stage {row['stage']} was skipped: {row['reason'] or '`when` is false'}")
    if outdir is not None:
        kept = any(outdir.iterdir())
        say(f"outputs and logs are in {outdir}" if kept else f"nothing to keep came to {outdir}")


def _outputs(row: dict[str, Any]) -> str:
    files = [
        f"{made['port']}: {Path(made['file']).name} ({Size(made['size_bytes'])})"
        for made in row.get("outputs", ())
    ]
    values = [f"{name} = {value!r}" for name, value in (row.get("values") or {}).items()]
    return ", ".join(files + values)
