"""`python -m workers.cwl [--outdir DIR] [--quiet] DOCUMENT [JOB]`: run one CWL tool."""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from catalog.errors import BadInput
from catalog.names import spelt_out
from catalog.settings import get_settings
from workers.cwl.containers import Containers
from workers.cwl.failures import ToolFailure, Unsupported
from workers.cwl.runner import run_document

FAILED, BAD_INPUT, UNSUPPORTED = 1, 2, 33
"""Exit codes; 33 is what cwltest takes for a feature that a runner hasn't."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a document, print its output object as JSON, and give the exit code."""
    parser = argparse.ArgumentParser(prog="spdf cwl run", description="Run one CWL tool.")
    parser.add_argument("--outdir", default=".", help="where output files go")
    parser.add_argument("--quiet", action="store_true", help="don't show the payload's log")
    parser.add_argument("document", help="a CommandLineTool or ExpressionTool")
    parser.add_argument("job", nargs="?", help="the job order, YAML or JSON")
    given = parser.parse_args(arguments)
    return run(given.document, given.job, given.outdir, quiet=given.quiet)


def run(document: str, job: str | None, outdir: str, *, quiet: bool = False) -> int:
    """As `main`, of parsed arguments."""
    with tempfile.TemporaryDirectory(prefix="spdf-log-") as scratch:
        log = Path(scratch) / "log"
        try:
            outputs = run_document(document, job, outdir, log=log, containers=_containers())
        except Unsupported as fault:
            return _told(fault, UNSUPPORTED)
        except ToolFailure as fault:
            _show(log)
            return _told(fault, FAILED)
        except BadInput as fault:
            return _told(fault, BAD_INPUT)
        if not quiet:
            _show(log)
    sys.stdout.write(json.dumps(outputs, indent=2) + "\n")
    return 0


def _containers() -> Containers | None:
    engine = get_settings().container_engine
    return Containers(engine) if engine else None


def _told(fault: Exception, code: int) -> int:
    sys.stderr.write(f"{spelt_out(str(fault))}\n")
    return code


def _show(log: Path) -> None:
    if log.exists():
        sys.stderr.write(log.read_text("utf-8", "replace"))


if __name__ == "__main__":
    sys.exit(main())
