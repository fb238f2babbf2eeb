"""A CWL tool, compiled once and run for every job."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from catalog.errors import BadTemplate
from workers.cwl.dirents import Dirent, check_places, work_dir
from workers.cwl.expressions import Expression
from workers.cwl.images import Image, image_of
from workers.cwl.normal import Normaliser, bare
from workers.cwl.parameters import LISTINGS, Binding, Parameter, ParameterCompiler, listed
from workers.cwl.source import Source, plain

_KNOWN = frozenset(
    {
        "InlineJavascriptRequirement", "SchemaDefRequirement", "LoadListingRequirement",
        "DockerRequirement", "SoftwareRequirement", "InitialWorkDirRequirement",
        "EnvVarRequirement", "ShellCommandRequirement", "ResourceRequirement", "WorkReuse",
        "NetworkAccess", "InplaceUpdateRequirement", "ToolTimeLimit", "CUDARequirement",
        "SubworkflowFeatureRequirement", "ScatterFeatureRequirement",
        "MultipleInputFeatureRequirement", "StepInputExpressionRequirement",
    }
)  # fmt: skip
_CUDA = ("cwltool:CUDARequirement", "http://commonwl.org/cwltool#CUDARequirement")
_UNPLAIN = re.compile(r"[^A-Za-z0-9._-]")
_DEFAULT_LISTING = "no_listing"


@dataclass(frozen=True)
class Streams:
    """Names of the files that stdin, stdout and stderr are redirected from and to."""

    stdin: Expression | None
    stdout: Expression | None
    stderr: Expression | None


@dataclass(frozen=True)
class Tool:
    """A compiled `CommandLineTool` or (with `expression`) `ExpressionTool`."""

    name: str
    inputs: tuple[Parameter, ...]
    outputs: tuple[Parameter, ...]
    base_command: tuple[str, ...] = ()
    arguments: tuple[Binding, ...] = ()
    bound: tuple[Parameter, ...] = ()
    """The inputs that add to the command line."""
    streams: Streams = Streams(None, None, None)
    expression: Expression | None = None
    environment: tuple[tuple[str, Expression], ...] = ()
    work_dir: tuple[Dirent | Expression, ...] | Expression = ()
    resources: tuple[tuple[str, Expression], ...] = ()
    cuda_devices: Expression | None = None
    time_limit: Expression | None = None
    shell: bool = False
    inplace: bool = False
    container: Image | None = None
    """The image of a DockerRequirement that must be met: not of a hint."""
    network: Expression | None = None
    """Whether a payload in a container may use the network; None: it may not."""
    load_listing: str = _DEFAULT_LISTING
    success_codes: frozenset[int] = frozenset()
    temporary_codes: frozenset[int] = frozenset()
    permanent_codes: frozenset[int] = frozenset()
    schemas: tuple[str, ...] = ()
    """Ontologies that say which file format is a kind of which."""


def load_tool(document: Mapping[str, Any], *, base: str | None = None) -> Tool:
    """Compile a self-contained CWL v1.2 `CommandLineTool` or `ExpressionTool` in JSON form.

    `base` is the URI or path of the document, to name it and to resolve relative links. Raises
    `BadTemplate` on what is no such tool, an unknown requirement or a broken expression.
    """
    name = bare(document.get("id") or base or "tool")
    source = Source(base or "", base or "", dict(document))
    try:
        packed = plain(Normaliser(source, "v1.2").process(document))
        return _compile(packed, name)
    except (KeyError, TypeError, AttributeError, ValueError) as fault:
        raise BadTemplate(f"tool {name!r} is no valid CWL: {fault!r}", base or "") from fault


def _compile(packed: Mapping[str, Any], name: str) -> Tool:
    if packed["class"] not in ("CommandLineTool", "ExpressionTool"):
        raise BadTemplate(
            f"{name!r} is a {packed['class']}; only a CommandLineTool or ExpressionTool can be run"
        )
    wanted = _requirements(packed, name)
    script = wanted.get("InlineJavascriptRequirement")
    compiler = ParameterCompiler(
        name, script is not None, tuple((script or {}).get("expressionLib") or ())
    )
    names = _stream_names(packed, name)
    outputs = [_of_stream(one, names) for one in packed["outputs"]]
    common = _common({**packed, "outputs": outputs}, wanted, compiler, name)
    if packed["class"] == "ExpressionTool":
        body = compiler.expression(packed["expression"], "the tool's body")
        return Tool(**common, expression=body)
    streams = Streams(
        *(None if one is None else compiler.expression(one, key) for key, one in names.items())
    )
    command = _command(packed, wanted, compiler, common["inputs"])
    check_places(command["work_dir"], (streams.stdout, streams.stderr), name)
    return Tool(**common, **command, streams=streams)


def _requirements(packed: Mapping[str, Any], name: str) -> dict[str, Mapping[str, Any]]:
    """Requirements and the known hints by class; a requirement goes before a hint."""
    found: dict[str, Mapping[str, Any]] = {}
    for hint in packed["hints"]:
        if _class(hint) in _KNOWN:
            found[_class(hint)] = hint
    found.pop("DockerRequirement", None)
    for requirement in packed["requirements"]:
        if _class(requirement) not in _KNOWN:
            raise BadTemplate(
                f"tool {name!r} requires {requirement['class']}, which isn't supported; as a hint "
                "it would be ignored"
            )
        found[_class(requirement)] = requirement
    return found


def _class(requirement: Mapping[str, Any]) -> str:
    given = str(requirement["class"])
    return "CUDARequirement" if given in _CUDA else given.removeprefix("#")


def _common(
    packed: Mapping[str, Any], wanted: Mapping[str, Any], compiler: ParameterCompiler, name: str
) -> dict[str, Any]:
    listing = (wanted.get("LoadListingRequirement") or {}).get("loadListing", _DEFAULT_LISTING)
    if listing not in LISTINGS:
        raise BadTemplate(f"tool {name!r}: loadListing is {listing!r}, which CWL lacks")
    resources = wanted.get("ResourceRequirement") or {}
    cuda = wanted.get("CUDARequirement")
    limit = wanted.get("ToolTimeLimit")
    return {
        "name": name,
        "inputs": tuple(compiler.parameter(one) for one in packed["inputs"]),
        "outputs": tuple(compiler.parameter(one, is_output=True) for one in packed["outputs"]),
        "load_listing": listing,
        "resources": tuple(
            (key, compiler.expression(value, key))
            for key, value in resources.items()
            if key != "class" and value is not None
        ),
        "cuda_devices": cuda
        and compiler.expression(cuda.get("cudaDeviceCountMin", 1), "cudaDeviceCountMin"),
        "time_limit": limit and compiler.expression(limit["timelimit"], "timelimit"),
        "schemas": tuple(packed.get("$schemas") or ()),
    }


def _command(
    packed: Mapping[str, Any],
    wanted: Mapping[str, Any],
    compiler: ParameterCompiler,
    inputs: tuple[Parameter, ...],
) -> dict[str, Any]:
    image, network = wanted.get("DockerRequirement"), wanted.get("NetworkAccess")
    return {
        "base_command": tuple(str(one) for one in listed(packed.get("baseCommand"))),
        "arguments": tuple(
            compiler.binding(
                one if isinstance(one, Mapping) else {"valueFrom": one}, f"argument {number}"
            )
            for number, one in enumerate(packed.get("arguments") or (), 1)
        ),
        "bound": tuple(one for one in inputs if one.binding is not None or one.type.bound),
        "environment": _environment(wanted.get("EnvVarRequirement") or {}, compiler),
        "work_dir": work_dir(wanted.get("InitialWorkDirRequirement") or {}, compiler),
        "shell": "ShellCommandRequirement" in wanted,
        "inplace": bool(wanted.get("InplaceUpdateRequirement", {}).get("inplaceUpdate")),
        "container": image and image_of(image),
        "network": network
        and compiler.expression(network.get("networkAccess", False), "networkAccess"),
        "success_codes": frozenset(packed.get("successCodes") or ()),
        "temporary_codes": frozenset(packed.get("temporaryFailCodes") or ()),
        "permanent_codes": frozenset(packed.get("permanentFailCodes") or ()),
    }


def _stream_names(packed: Mapping[str, Any], tool: str) -> dict[str, Any]:
    """The fields stdin, stdout and stderr, with what the types of those names imply."""
    names: dict[str, Any] = {key: packed.get(key) for key in ("stdin", "stdout", "stderr")}
    for one in packed["inputs"]:
        if one["type"] == "stdin":
            if names["stdin"] is not None or one.get("inputBinding") is not None:
                raise BadTemplate(
                    f"tool {tool!r}: input {one['id']!r} is of type stdin, so the tool "
                    "can't have another stdin, nor the input an inputBinding"
                )
            names["stdin"] = f"$(inputs[{one['id']!r}].path)"
    for key in ("stdout", "stderr"):
        shortcut = any(one["type"] == key for one in packed["outputs"])
        if shortcut and names[key] is None:
            names[key] = f"{_UNPLAIN.sub('_', tool)}.{key}"
    return names


def _of_stream(output: Mapping[str, Any], names: Mapping[str, Any]) -> Mapping[str, Any]:
    """An output of type stdout or stderr as the File that it is short for."""
    if output["type"] not in ("stdout", "stderr"):
        return output
    name = names[output["type"]]
    return {**output, "type": "File", "outputBinding": {"glob": name, "literal": True}}


def _environment(
    requirement: Mapping[str, Any], compiler: ParameterCompiler
) -> tuple[tuple[str, Expression], ...]:
    defined = requirement.get("envDef") or ()
    if isinstance(defined, Mapping):
        defined = [
            {"envName": key, **(value if isinstance(value, Mapping) else {"envValue": value})}
            for key, value in defined.items()
        ]
    return tuple(
        (
            str(one["envName"]),
            compiler.expression(one["envValue"], f"envValue of {one['envName']}"),
        )
        for one in defined
    )
