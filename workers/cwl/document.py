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

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from ruamel.yaml.comments import CommentedMap, CommentedSeq

from catalog.errors import BadTemplate
from workers.cwl.lines import changed, copy_lines, line_of, mapping
from workers.cwl.normal import Normaliser
from workers.cwl.reading import Word
from workers.cwl.source import Source, fragment_of, plain, read_source
from workers.cwl.words import type_defaults

__all__ = ["line_of", "load_document", "plain", "resolve"]

_VERSIONS = ("v1.0", "v1.1", "v1.2")
Reader = Callable[[str], Source]


def load_document(path_or_uri: str | Path) -> dict[str, Any]:
    """The process at a path or `file://` URI (`#name` picks one of a `$graph`), packed.

    Plain JSON values; a Workflow's `run`s are packed into it. Raises `BadTemplate` with the line.
    """
    read = lru_cache(maxsize=None)(read_source)
    packed: dict[str, Any] = plain(_embed(resolve(path_or_uri, read), (), read))
    return packed


def resolve(path_or_uri: str | Path, read: Reader = read_source) -> dict[str, Any]:
    """The process at a path or URI in the packed form, except that a `run` may be a URI.

    Its mappings and lists are ruamel's, so `line_of(node, key)` tells where they came from; words
    in the defaults of a step's inputs are `Word`s yet. `read` gives the document at a URI.
    Raises `BadTemplate`: no such file, no YAML, not valid against the CWL schema.
    """
    uri, fragment = fragment_of(path_or_uri)
    source = read(uri)
    version = source.root.get("cwlVersion")
    if version not in _VERSIONS:
        said = "there is no cwlVersion" if version is None else f"cwlVersion is {version!r}"
        raise BadTemplate(
            f"{said}; documents of CWL {', '.join(_VERSIONS)} can be read",
            source.path,
            line_of(source.root, "cwlVersion"),
        )
    process = _pick(source, fragment)
    for node in (source.root, process):
        _check_namespaces(source, node)
    try:
        _validate(source, process)
        return Normaliser(source, str(version)).process(process)
    except RecursionError as fault:
        raise BadTemplate(
            "it is nested too deeply; put inner processes into files of their own", source.path
        ) from fault


def _check_namespaces(source: Source, node: Mapping[str, Any]) -> None:
    spaces, schemas = node.get("$namespaces", {}), node.get("$schemas", [])
    if not isinstance(spaces, dict) or not all(isinstance(one, str) for one in spaces.values()):
        line = line_of(node, "$namespaces")
        raise BadTemplate("`$namespaces` is a mapping of prefixes to addresses", source.path, line)
    if not isinstance(schemas, list):
        line = line_of(node, "$schemas")
        raise BadTemplate("`$schemas` is a list of addresses", source.path, line)


def _pick(source: Source, fragment: str | None) -> dict[str, Any]:
    """The process that is meant: the document itself, or one of its `$graph`."""
    graph = source.root.get("$graph")
    if graph is None:
        return source.root
    if not isinstance(graph, list) or not all(isinstance(one, dict) for one in graph):
        raise BadTemplate(
            "`$graph` is no list of processes", source.path, line_of(source.root, "$graph")
        )
    name = fragment or "main"
    for process in graph:
        if str(process.get("id", "")).rpartition("#")[2] == name:
            return _whole(source, process)
    if fragment is None and len(graph) == 1:
        return _whole(source, graph[0])
    raise BadTemplate(
        f"there is no process {name!r} in the document's $graph; it has "
        f"{', '.join(repr(_name(one)) for one in graph) or 'none'}",
        source.path,
        line_of(source.root, "$graph"),
    )


def _name(process: Mapping[str, Any]) -> str:
    return str(process.get("id", "")).rpartition("#")[2]


def _whole(source: Source, process: dict[str, Any]) -> dict[str, Any]:
    """A process of a `$graph` with what the document says of all of them."""
    made = mapping(process)
    copy_lines(made, process)
    made["cwlVersion"] = source.root["cwlVersion"]
    made.update(process)
    return made


def _embed(process: dict[str, Any], parents: tuple[str, ...], read: Reader) -> dict[str, Any]:
    """`process` with the files that its steps run in their place."""
    for step in process.get("steps", ()):
        run = step.get("run")
        inner = parents
        if isinstance(run, str):
            if run in parents:
                raise BadTemplate(f"step {step['id']!r} runs {run}, which runs this step", run)
            inner = (*parents, run)
            run = resolve(run, read)
            type_defaults(step, run)
        if isinstance(run, dict):
            step["run"] = _embed(run, inner, read)
    return process


def _validate(source: Source, process: Mapping[str, Any]) -> None:
    """Check a process against the schema of its CWL version, as cwl-utils knows it."""
    # Half a second to import, so not for everyone.
    from cwl_utils.parser import load_document_by_yaml
    from schema_salad.exceptions import SchemaSaladException
    from schema_salad.fetcher import DefaultFetcher
    from schema_salad.runtime import LoadingOptions

    # Without a session the classes of hints, which are URIs, are not looked for on the network.
    offline = LoadingOptions(fetcher=DefaultFetcher({}, None))
    try:
        load_document_by_yaml(_checkable(process), source.uri, offline)
    except SchemaSaladException as fault:
        line = _line(fault) or line_of(process)
        raise BadTemplate(_reason(fault), source.path, line) from fault
    except (ValueError, TypeError, AttributeError, KeyError, IndexError) as fault:
        # The parser trips over some of what the schema doesn't allow.
        raise BadTemplate(f"not valid CWL: {fault}", source.path, line_of(process)) from fault


def _checkable(node: Any, outermost: bool = True) -> Any:
    """A copy of a process for the parser of cwl-utils, which takes less than other runners.

    It knows `$namespaces` and `$schemas` on the outermost process only, and no name of a
    requirement, which `cwltool --pack` gives to one that was imported.
    """
    if isinstance(node, Word):
        return node.text
    if not isinstance(node, CommentedMap | CommentedSeq):
        return node
    made = changed(node, lambda one: _checkable(one, outermost=False))
    if isinstance(made, CommentedMap):
        if not outermost:
            for key in ("$namespaces", "$schemas"):
                made.pop(key, None)
        for key in ("requirements", "hints"):
            for entry in made[key] if isinstance(made.get(key), list) else ():
                if isinstance(entry, dict) and "class" in entry:
                    entry.pop("id", None)
    return made


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
