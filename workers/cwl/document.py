"""CWL documents: from files, as people write them, to one packed v1.2 form.

The form of a process that `resolve` gives:

- `inputs`, `outputs`, `steps`, a step's `in`, `requirements` and `hints` are lists (never maps);
  every `id` is a bare name, a step's `out` a list of bare names, `source` and `outputSource` are
  `input` or `step/port`;
- types are spelled out (`File?` is `["null", "File"]`, `File[]` an array type) and types of a
  `SchemaDefRequirement` stand in the place of their names; `secondaryFiles` is a list of
  `{pattern, required}`;
- `$import`, `$include`, `$mixin` and `$graph` are resolved, formats are full IRIs, and the
  locations of default Files, `$schemas` and a step's `run` are absolute `file://` URIs;
- `cwlVersion` is v1.2: older documents get what their version implied.
"""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from catalog.errors import BadTemplate
from workers.cwl.normal import Normaliser
from workers.cwl.source import Source, fragment_of, line_of, plain, read_source

__all__ = ["line_of", "load_document", "plain", "resolve"]

_VERSIONS = ("v1.0", "v1.1", "v1.2")


def load_document(path_or_uri: str | Path) -> dict[str, Any]:
    """The process at a path or `file://` URI (`#name` picks one of a `$graph`), packed.

    Plain JSON values; a Workflow's `run`s are packed into it. Raises `BadTemplate` with the line.
    """
    packed: dict[str, Any] = plain(_embed(resolve(path_or_uri), ()))
    return packed


def resolve(path_or_uri: str | Path) -> dict[str, Any]:
    """The process at a path or URI in the packed form, except that a `run` may be a URI.

    Its mappings and lists are ruamel's, so `line_of(node, key)` tells where they came from.
    Raises `BadTemplate`: no such file, no YAML, not valid against the CWL schema.
    """
    uri, fragment = fragment_of(path_or_uri)
    source = read_source(uri)
    version = source.root.get("cwlVersion")
    if version not in _VERSIONS:
        said = "there is no cwlVersion" if version is None else f"cwlVersion is {version!r}"
        raise BadTemplate(
            f"{said}; documents of CWL {', '.join(_VERSIONS)} can be read",
            source.path,
            line_of(source.root, "cwlVersion"),
        )
    process = _pick(source, fragment)
    _validate(source, process)
    return Normaliser(source, str(version)).process(process)


def _pick(source: Source, fragment: str | None) -> dict[str, Any]:
    """The process that is meant: the document itself, or one of its `$graph`."""
    graph = source.root.get("$graph")
    if graph is None:
        return source.root
    name = fragment or "main"
    for process in graph:
        if str(process.get("id", "")).rpartition("#")[2] == name:
            return {"cwlVersion": source.root["cwlVersion"], **process}
    if fragment is None and len(graph) == 1:
        return {"cwlVersion": source.root["cwlVersion"], **graph[0]}
    raise BadTemplate(f"there is no process {name!r} in the document's $graph", source.path)


def _embed(process: dict[str, Any], parents: tuple[str, ...]) -> dict[str, Any]:
    """`process` with the files that its steps run in their place."""
    for step in process.get("steps", ()):
        run = step.get("run")
        inner = parents
        if isinstance(run, str):
            if run in parents:
                raise BadTemplate(f"step {step['id']!r} runs {run}, which runs this step", run)
            inner = (*parents, run)
            run = resolve(run)
        if isinstance(run, dict):
            step["run"] = _embed(run, inner)
    return process


def _validate(source: Source, process: Mapping[str, Any]) -> None:
    """Check the document against the schema of its CWL version, as cwl-utils knows it."""
    # Half a second to import, so not for everyone.
    from cwl_utils.parser import load_document_by_uri, load_document_by_yaml
    from schema_salad.exceptions import SchemaSaladException
    from schema_salad.fetcher import DefaultFetcher
    from schema_salad.runtime import LoadingOptions

    # Without a session the classes of hints, which are URIs, are not looked for on the network.
    offline = LoadingOptions(fetcher=DefaultFetcher({}, None))
    name = str(process.get("id", "")).lstrip("#")
    try:
        if source.mixed:
            # The parser of cwl-utils knows no `$mixin`.
            load_document_by_yaml(copy.deepcopy(source.root), source.uri, offline, id_=name)
        else:
            uri = f"{source.uri}#{name}" if "$graph" in source.root else source.uri
            load_document_by_uri(uri, offline)
    except SchemaSaladException as fault:
        raise BadTemplate(_reason(fault), source.path, _line(fault)) from fault


def _leaves(fault: Any) -> list[Any]:
    return [leaf for child in fault.children for leaf in _leaves(child)] or [fault]


def _reason(fault: Any) -> str:
    texts = dict.fromkeys(" ".join(str(leaf.message).split()) for leaf in _leaves(fault))
    return "not valid CWL: " + "; ".join(list(texts)[:4])


def _line(fault: Any) -> int | None:
    for leaf in (*_leaves(fault), fault):
        if leaf.start is not None:
            line: int = leaf.start[0]
            return line
    return None
