"""Running a case with our engine and, in the same process, with cwltool."""

import functools
import io
import json
import logging
import os
import shutil
import traceback
from dataclasses import dataclass
from typing import Any
from unittest import mock

import quickjs
from cwl_utils.sandboxjs import NodeJSEngine, set_js_engine
from cwltool import main as cwltool
from cwltool import process

from catalog.errors import BadInput, BadTemplate
from tests.differential.cases import Case
from workers.cwl.failures import ToolFailure
from workers.cwl.runner import run_document


@dataclass(frozen=True)
class Ended:
    """What a runner made of a case: an output object, or why there is none."""

    outputs: dict[str, Any] | None
    reason: str = ""
    defect: bool = False
    """It ended by an error that isn't the case's."""


def ours(case: Case) -> Ended:
    """The case by `workers.cwl`."""
    try:
        return Ended(run_document(case.tool, case.order, case.folder / "ours"))
    except (ToolFailure, BadTemplate, BadInput) as fault:
        return Ended(None, str(fault))
    except Exception:  # noqa: BLE001 - that there is none is what is tested
        return Ended(None, traceback.format_exc(), defect=True)


def theirs(case: Case) -> Ended:
    """The case by cwltool."""
    _prepare()
    out, said = io.StringIO(), io.StringIO()
    handler = logging.StreamHandler(said)
    options = [
        *("--no-container", "--no-match-user", "--disable-color", "--relax-path-checks"),
        *("--outdir", str(case.folder / "theirs")),
        *("--tmpdir-prefix", f"{case.folder}/tmp/", str(case.tool), str(case.order)),
    ]
    # It sorts what a glob finds by the locale; ours is the order of bytes.
    with mock.patch.dict(os.environ, LC_ALL="C.UTF-8"):
        code = cwltool.main(options, stdout=out, stderr=said, logger_handler=handler)
    if code != 0:
        return Ended(None, said.getvalue())
    return Ended(json.loads(out.getvalue()))


class _QuickJs(NodeJSEngine):
    """Runs cwltool's scripts in this process, where there is no node."""

    def exec_js_process(self, js_text: str, *_: Any, **__: Any) -> tuple[int, str, str]:
        """The (exit code, stdout, stderr) that node would give."""
        context = quickjs.Context()
        context.set_time_limit(10)
        context.set("text", js_text)
        try:
            return 0, str(context.eval("'' + JSON.stringify((0, eval)(text))")), ""
        except quickjs.JSException as fault:
            return 1, "", str(fault)


@functools.lru_cache(maxsize=1)
def _prepare() -> None:
    """Have cwltool read its schemas once, not for each run, and take the JavaScript there is."""
    process.get_schema = functools.lru_cache(process.get_schema)
    if not (shutil.which("node") or shutil.which("nodejs")):
        set_js_engine(_QuickJs())
