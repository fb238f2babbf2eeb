"""Running one CWL document on this machine, without a server or a catalog."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from catalog.errors import BadInput, BadTemplate
from workers.cwl.containers import Containers
from workers.cwl.document import load_document
from workers.cwl.engine import run_tool
from workers.cwl.files import file_uri
from workers.cwl.resources import resources
from workers.cwl.source import fragment_of, joined, plain, read_values
from workers.cwl.tool import Tool, load_tool
from workers.cwl.words import CLASSES, spoken, typed
from workers.reapers import Reapers
from workers.spec import ToolRun

_OVERRIDES = "http://commonwl.org/cwltool#overrides"
_REQUIREMENTS = "cwl:requirements"


def run_document(
    document: str | Path,
    job: str | Path | None,
    outdir: str | Path,
    *,
    log: str | Path | None = None,
    containers: Containers | None = None,
) -> dict[str, Any]:
    """Run a CommandLineTool or ExpressionTool; its output files go to `outdir`.

    `job` is a YAML or JSON job order. `log` gets what the payload prints. `containers` runs a tool
    that requires one. Files of the result have a sha1 checksum. Raises `BadTemplate`, `BadInput`,
    `ToolFailure`.
    """
    packed = load_document(document)
    inputs = {} if job is None else load_job(job, packed)
    tool = _tool(document, packed, inputs)
    if tool.container is not None and containers is not None:
        containers.ensure(tool.container)
    with tempfile.TemporaryDirectory(prefix="spdf-cwl-") as scratch:
        work = Path(scratch).resolve()
        for name in ("out", "tmp", "stage"):
            (work / name).mkdir()
        reserved = resources(tool, inputs)
        run = ToolRun(
            inputs=inputs,
            outdir=work / "out",
            tmpdir=work / "tmp",
            stagedir=work / "stage",
            log=work / "log",
            cores=reserved.cores,
            ram_mib=reserved.ram_mib,
        )
        reapers = Reapers()
        try:
            outcome = run_tool(
                tool,
                run,
                reapers=reapers,
                discover_secondary=True,
                checksums=True,
                containers=containers,
            )
        finally:
            reapers.close()
            left = work / "log"
            if log is not None and left.is_file() and not left.is_symlink():
                shutil.copyfile(left, log)
        Path(outdir).mkdir(parents=True, exist_ok=True)
        delivery = _Delivery(work / "out", Path(outdir).resolve())
        return {name: delivery.deliver(value) for name, value in outcome.outputs.items()}


def _tool(document: str | Path, packed: dict[str, Any], inputs: dict[str, Any]) -> Tool:
    if packed["class"] == "Workflow":
        raise BadTemplate(
            "a Workflow is run as a template (`spdf template create`); name a tool here",
            str(document),
        )
    extra = inputs.pop(_REQUIREMENTS, None) or []
    packed["requirements"] = [*packed["requirements"], *extra]
    return load_tool(packed, base=fragment_of(document)[0])


def load_job(path: str | Path, tool: Mapping[str, Any]) -> dict[str, Any]:
    """A job order for a packed tool, from a YAML or JSON file.

    Words are what the types of the tool's inputs say. Its Files get absolute locations, and formats
    whose prefix the tool's namespaces (or the job's own) declare are spelled out.
    """
    uri, _ = fragment_of(path)
    job = read_values(uri, "`NAME: VALUE` of each input")
    if _OVERRIDES in job:
        raise BadInput(f"{path} is no job order; write a mapping of input names to values.")
    if _REQUIREMENTS in job:
        job[_REQUIREMENTS] = spoken(job[_REQUIREMENTS], CLASSES)
    own = plain(job.pop("$namespaces", None)) or {}
    prefixes = {**(tool.get("$namespaces") or {}), **own}
    types = {one["id"]: one["type"] for one in tool.get("inputs") or ()}
    values = {key: plain(typed(value, types.get(key, "Any"))) for key, value in job.items()}
    return {key: _located(value, uri, prefixes) for key, value in values.items()}


def _located(value: Any, base: str, prefixes: Mapping[str, str]) -> Any:
    if isinstance(value, list):
        return [_located(one, base, prefixes) for one in value]
    if not isinstance(value, Mapping):
        return value
    made = {key: _located(one, base, prefixes) for key, one in value.items()}
    if made.get("class") in ("File", "Directory"):
        if isinstance(made.get("location"), str):
            try:
                made["location"] = joined(base, made["location"])
            except BadTemplate as fault:
                raise BadInput(f"a location of the job order: {fault.reason}") from fault
        prefix, _, rest = str(made.get("format", "")).partition(":")
        if prefix in prefixes:
            made["format"] = f"{prefixes[prefix]}{rest}"
    return made


class _Delivery:
    """Brings output files from the work directory to where the user wants them."""

    def __init__(self, work: Path, outdir: Path) -> None:
        self._work, self._outdir = work, outdir
        self._placed: dict[tuple[str, str], Path] = {}

    def deliver(self, value: Any) -> Any:
        """`value` with its files in the output directory."""
        if isinstance(value, list):
            return [self.deliver(one) for one in value]
        if not isinstance(value, Mapping):
            return value
        if value.get("class") not in ("File", "Directory"):
            return {key: self.deliver(one) for key, one in value.items()}
        return self._delivered(value, self._outdir)

    def _delivered(self, value: Mapping[str, Any], folder: Path) -> dict[str, Any]:
        source = Path(value["path"])
        # What two outputs name lies there once, unless it has another name in one of them.
        named = value["path"], value["basename"]
        if named in self._placed:
            target = self._placed[named]
        else:
            target = self._placed[named] = _free(folder / value["basename"])
            if source.is_dir():
                shutil.copytree(source, target)
            elif source.is_symlink() or not source.is_relative_to(self._work):
                shutil.copyfile(source, target)
            else:
                shutil.copy(source, target)
        made = _at(value, target)
        if value.get("secondaryFiles"):
            made["secondaryFiles"] = [
                self._delivered(one, target.parent) for one in value["secondaryFiles"]
            ]
        return made


def _free(path: Path) -> Path:
    """`path`, or where it is taken already one beside it with a number."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}_{number}")
    return free


def _at(value: Mapping[str, Any], path: Path) -> dict[str, Any]:
    made = {**value, "path": str(path), "location": file_uri(str(path))}
    if value.get("listing"):
        made["listing"] = [_at(one, path / one["basename"]) for one in value["listing"]]
    return made
