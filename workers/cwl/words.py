"""Which words of a CWL document are strings: those that its schema says are, as they were written.

YAML takes `010`, `1e3`, `true` and `~` for something else, wherever they stand. What a field is
decides the schema, and what a default or an input of a job is decides its type.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ruamel.yaml.comments import CommentedMap, CommentedSeq

from catalog.errors import BadTemplate
from workers.cwl.lines import changed, file_of, line_of
from workers.cwl.reading import Word


@dataclass(frozen=True)
class Field:
    """What may stand under a key; a list of any of it may stand there, too.

    `text`: a string. `null`: the string `null` too, which is a type's name. `fields`: a mapping of
    these. `named`: a mapping by name of what the rest of this says. `kept`: left as it is, since a
    type decides, which is known later. `code`: an expression, or what this says in words.
    `single`: no list or mapping.
    """

    text: bool = False
    null: bool = False
    fields: Mapping[str, "Field"] = field(default_factory=dict)
    named: bool = False
    kept: bool = False
    code: str = ""
    single: bool = False


TEXT = Field(text=True)
_NAME = Field(text=True, single=True)
_NAMES = ("id", "class", "name")
_KEPT = Field(kept=True)
_TEXTS = "id class label doc"


def _texts(names: str) -> dict[str, Field]:
    return {name: _NAME if name in _NAMES else TEXT for name in names.split()}


_NUMBER, _WHOLE, _TRUTH = (
    Field(code=words) for words in ("a number", "a whole number", "true or false")
)
_BINDING = Field(
    text=True,
    fields={**_texts("prefix itemSeparator valueFrom loadListing"), "position": _WHOLE},
)
_INNER: dict[str, Field] = {}
_TYPE = Field(text=True, null=True, fields=_INNER)
_SECONDARY = Field(text=True, fields={"pattern": TEXT, "required": _TRUTH})
_OUTPUT = Field(fields=_texts("glob outputEval loadListing"))
_PARAMETER = Field(
    text=True,
    null=True,
    named=True,
    fields={
        **_texts(f"{_TEXTS} name format outputSource linkMerge pickValue loadListing"),
        "type": _TYPE,
        "default": _KEPT,
        "secondaryFiles": _SECONDARY,
        "inputBinding": _BINDING,
        "outputBinding": _OUTPUT,
    },
)
_INNER.update(_texts("name label doc symbols"))
_INNER.update(type=_TYPE, items=_TYPE, fields=_PARAMETER, inputBinding=_BINDING)
_FILE: dict[str, Field] = _texts("class location path basename format checksum contents")
FILE = Field(text=True, fields=_FILE)
_FILE.update(secondaryFiles=FILE, listing=FILE)
_VARIABLE = Field(text=True, named=True, fields=_texts("envName envValue"))
_ENTRY = Field(text=True, fields={**_FILE, **_texts("entryname entry")})
_PACKAGE = Field(text=True, named=True, fields=_texts("package version specs"))
_AMOUNTS = "coresMin coresMax ramMin ramMax tmpdirMin tmpdirMax outdirMin outdirMax"
CLASSES = Field(
    named=True,
    fields={
        **_texts(
            "class expressionLib loadListing dockerPull dockerLoad dockerFile dockerImport "
            "dockerImageId dockerOutputDirectory mask dataset device"
        ),
        "types": _TYPE,
        "listing": _ENTRY,
        "envDef": _VARIABLE,
        "packages": _PACKAGE,
        **dict.fromkeys(_AMOUNTS.split(), _NUMBER),
        "timelimit": _NUMBER,
        "networkAccess": _TRUTH,
        "enableReuse": _TRUTH,
    },
)
_SOURCE = Field(
    text=True,
    named=True,
    fields={
        **_texts("id label source linkMerge pickValue valueFrom loadListing"),
        "default": _KEPT,
    },
)
_PROCESS: dict[str, Field] = {}
_STEP = Field(
    named=True,
    fields={
        **_texts(f"{_TEXTS} scatter scatterMethod when"),
        "in": _SOURCE,
        "out": Field(text=True, fields=_texts("id")),
        "run": Field(text=True, fields=_PROCESS),
        "requirements": CLASSES,
        "hints": CLASSES,
    },
)
_PROCESS.update(
    {
        **_texts(f"{_TEXTS} cwlVersion intent stdin stdout stderr expression $schemas"),
        "baseCommand": TEXT,
        "arguments": _BINDING,
        "inputs": _PARAMETER,
        "outputs": _PARAMETER,
        "steps": _STEP,
        "requirements": CLASSES,
        "hints": CLASSES,
        "$namespaces": Field(text=True, named=True),
        "$graph": Field(fields=_PROCESS),
    }
)
PROCESS = Field(fields=_PROCESS)


def spoken(node: Any, kind: Field = PROCESS, *, listed: bool = False) -> Any:
    """`node` with each word that stands where CWL's schema asks for a string as it was written.

    Other words become their values, but for defaults, which `typed` reads. A null says "nothing",
    except as a type and in a list of strings. Raises `BadTemplate` as `Word.value` does.
    """
    if kind.kept:
        return None if isinstance(node, Word) and node.found is None else node
    if isinstance(node, Word):
        said = node.found is not None or (node.text and (listed or (kind.null and not kind.named)))
        return node.text if kind.text and said else node.value
    if isinstance(node, list):
        return _like(node, [spoken(one, kind, listed=True) for one in node])
    if not isinstance(node, dict):
        return node
    if kind.named and not listed:
        inner = replace(kind, named=False)
        return _like(node, {key: spoken(one, inner) for key, one in node.items()})
    fields = {key: spoken(node[key], one) for key, one in kind.fields.items() if key in node}
    for key, value in fields.items():
        fault = _unfit(key, value, kind.fields[key])
        if fault is not None:
            raise BadTemplate(fault, file_of(node) or "", line_of(node, key))
    return _like(
        node, {key: fields[key] if key in fields else _native(one) for key, one in node.items()}
    )


def _unfit(key: str, value: Any, kind: Field) -> str | None:
    if kind.code and isinstance(value, str) and "$" not in value:
        return f"`{key}` is {value!r}; it is {kind.code} or an expression"
    if kind.single and isinstance(value, list | dict):
        return f"`{key}` is a {'list' if isinstance(value, list) else 'mapping'}; it is a name"
    return None


def typed(value: Any, kind: Any) -> Any:
    """A default or an input of a job, in which words are what the spelled-out type `kind` says.

    Raises `BadTemplate` for a number that CWL's types can't hold.
    """
    members = kind if isinstance(kind, list | tuple) else [kind]
    if isinstance(value, Word):
        return _word(value, members)
    if isinstance(value, list):
        items = _member(members, "array").get("items", "Any")
        return _like(value, [typed(one, items) for one in value])
    if not isinstance(value, Mapping):
        return value
    if value.get("class") in ("File", "Directory"):
        return spoken(value, FILE)
    fields = _member(members, "record").get("fields") or ()
    types = {one["name"]: one["type"] for one in fields}
    return _like(value, {key: typed(one, types.get(key, "Any")) for key, one in value.items()})


def type_defaults(step: Mapping[str, Any], run: Mapping[str, Any]) -> None:
    """Read the defaults of a step's inputs by the types of what it runs; all in the packed form."""
    types = {port["id"]: port["type"] for port in run["inputs"]}
    for entry in step["in"]:
        if entry.get("default") is not None:
            entry["default"] = typed(entry["default"], types.get(entry["id"], "Any"))


def _like(node: Any, values: Any) -> Any:
    """`values` with the lines of `node`, where it has any."""
    if not isinstance(node, CommentedMap | CommentedSeq):
        return values
    left = iter(values.values() if isinstance(values, dict) else values)
    return changed(node, lambda _: next(left))


def _word(word: Word, members: Any) -> Any:
    """What a word is to YAML, if the type has that; else the string, if the type has one."""
    names = {one["type"] if isinstance(one, Mapping) else one for one in members}
    if word.found is None:
        return None
    if names & {"string", "enum"} and not names & _native_types(word.found):
        return word.text
    if word.beyond and names <= {"null", "float", "double"} and abs(word.found) < 10**300:
        return float(word.found)
    return word.value


def _native_types(found: Any) -> set[str]:
    if isinstance(found, bool):
        return {"boolean"}
    return {"float", "double"} | ({"int", "long"} if isinstance(found, int) else set())


def _member(members: Any, kind: str) -> Mapping[str, Any]:
    found = (one for one in members if isinstance(one, Mapping) and one.get("type") == kind)
    return next(found, {})


def _native(node: Any) -> Any:
    if isinstance(node, Word):
        return node.value
    if isinstance(node, dict):
        return _like(node, {key: _native(one) for key, one in node.items()})
    return _like(node, [_native(one) for one in node]) if isinstance(node, list) else node
