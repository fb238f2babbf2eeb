"""Inputs and outputs of a tool, compiled: types, bindings and what is done with files."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from catalog.errors import BadTemplate
from workers.cwl.expressions import Expression, compile_expression
from workers.cwl.normal import has_expression
from workers.cwl.numbers import beyond_range, is_double

_INT, _LONG = 2**31, 2**63
_CLASSES = ("File", "Directory")
LISTINGS = ("no_listing", "shallow_listing", "deep_listing")


@dataclass(frozen=True)
class Binding:
    """A CommandLineBinding."""

    position: Expression
    prefix: str | None = None
    separate: bool = True
    item_separator: str | None = None
    value_from: Expression | None = None
    shell_quote: bool = True


BARE_BINDING = Binding(Expression(0, None))


@dataclass(frozen=True)
class Secondary:
    """One secondaryFiles entry."""

    pattern: Expression
    required: Expression
    by_default: bool
    """Whether they must be there where `required` gives null."""


@dataclass(frozen=True)
class OutputBinding:
    """A CommandOutputBinding. `literal`: the glob is a file's name, not a pattern."""

    globs: tuple[Expression, ...] = ()
    literal: bool = False
    load_contents: bool = False
    load_listing: str | None = None
    output_eval: Expression | None = None


@dataclass(frozen=True)
class Type:
    """A type. `with_files` says whether a value of it may hold Files or Directories."""

    kind: str
    items: "Type | None" = None
    symbols: frozenset[str] = frozenset()
    fields: "tuple[Parameter, ...]" = ()
    members: "tuple[Type, ...]" = ()
    binding: Binding | None = None

    @property
    def with_files(self) -> bool:
        """Whether a value may hold Files or Directories."""
        if self.items is not None:
            return self.items.with_files
        if self.kind == "record":
            return any(field.with_files for field in self.fields)
        if self.kind == "union":
            return any(member.with_files for member in self.members)
        return self.kind in ("File", "Directory", "Any")

    @property
    def settles(self) -> bool:
        """Whether one value of it can be written in several ways: doubles, and records."""
        inner = (*self.members, *((self.items,) if self.items else ()))
        return self.kind in ("float", "double", "record") or any(one.settles for one in inner)

    @property
    def bound(self) -> bool:
        """Whether a binding stands anywhere within the type."""
        inner = (*self.members, *((self.items,) if self.items else ()))
        return (
            self.binding is not None
            or any(one.bound for one in inner)
            or any(field.binding is not None or field.type.bound for field in self.fields)
        )

    @property
    def optional(self) -> bool:
        """Whether null is a value of it."""
        return self.kind == "null" or any(one.optional for one in self.members)

    def fits(self, value: Any, strict: bool = False) -> bool:
        """Whether `value` is of this type; `strict` allows no unknown field in a record."""
        match self.kind:
            case "union":
                return any(one.fits(value, strict) for one in self.members)
            case "array":
                item = self.items
                assert item is not None
                return isinstance(value, list | tuple) and all(
                    item.fits(one, strict) for one in value
                )
            case "record":
                return (
                    isinstance(value, Mapping)
                    and all(one.type.fits(value.get(one.name), strict) for one in self.fields)
                    and not (strict and value.keys() - {one.name for one in self.fields})
                )
            case "enum":
                return isinstance(value, str) and value in self.symbols
            case kind:
                return _FITS[kind](value)

    def member(self, value: Any) -> "Type":
        """The member of a union that `value` is of; any other type is its own."""
        if self.kind != "union":
            return self
        for strict in (True, False):
            for one in self.members:
                if one.fits(value, strict):
                    return one.member(value)
        return self

    def __str__(self) -> str:
        if self.kind == "array":
            return f"{self.items}[]"
        if self.kind == "union":
            return " | ".join(map(str, self.members))
        if self.kind == "enum":
            return f"one of {', '.join(sorted(self.symbols))}"
        return self.kind


_FITS: Mapping[str, Callable[[Any], bool]] = {
    "null": lambda v: v is None,
    "boolean": lambda v: isinstance(v, bool),
    "int": lambda v: _whole(v, _INT),
    "long": lambda v: _whole(v, _LONG),
    "float": is_double,
    "double": is_double,
    "string": lambda v: isinstance(v, str),
    "File": lambda v: isinstance(v, Mapping) and v.get("class") == "File",
    "Directory": lambda v: isinstance(v, Mapping) and v.get("class") == "Directory",
    "Any": lambda v: v is not None and beyond_range(v) is None,
}


def _whole(value: Any, limit: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -limit <= value < limit


@dataclass(frozen=True)
class Parameter:
    """An input, an output or a field of a record."""

    name: str
    type: Type
    default: Any = None
    binding: Binding | None = None
    output: OutputBinding | None = None
    secondary: tuple[Secondary, ...] = ()
    formats: tuple[Expression, ...] = ()
    load_contents: bool = False
    load_listing: str | None = None
    with_files: bool = True
    settles: bool = True


@dataclass(frozen=True)
class ParameterCompiler:
    """Compiles the parameters of one tool: `js` and `lib` are its InlineJavascriptRequirement."""

    tool: str
    js: bool = False
    lib: tuple[str, ...] = ()

    def expression(self, text: Any, place: str, *, strip: bool = True) -> Expression:
        """A field that may hold an expression; `place` names it in words.

        Raises `BadTemplate` naming the tool.
        """
        try:
            return compile_expression(text, self.js, self.lib, strip=strip, place=place)
        except BadTemplate as fault:
            raise BadTemplate(f"tool {self.tool!r}: {fault.reason}") from None

    def parameter(self, entry: Mapping[str, Any], *, is_output: bool = False) -> Parameter:
        """An input or output in the packed form."""
        name = str(entry.get("id") or entry["name"])
        binding, output = entry.get("inputBinding"), entry.get("outputBinding")
        what = f"{'output' if is_output else 'input'} {name!r}"
        kind = self.type(entry["type"], name, is_output)
        loads = entry.get("loadContents") or (binding or {}).get("loadContents")
        made = Parameter(
            name,
            kind,
            default=entry.get("default"),
            binding=None if binding is None else self.binding(binding, what),
            output=None if output is None else self._output(output, name),
            secondary=tuple(
                self._secondary(one, what, is_output) for one in entry.get("secondaryFiles") or ()
            ),
            formats=tuple(
                self.expression(one, f"format of {what}") for one in listed(entry.get("format"))
            ),
            load_contents=bool(loads),
            load_listing=_listing(entry.get("loadListing"), name),
        )
        return replace(made, with_files=kind.with_files, settles=kind.settles)

    def type(self, kind: Any, name: str, is_output: bool = False) -> Type:
        """A type in the packed form. Raises `BadTemplate`."""
        if isinstance(kind, list):
            return Type("union", members=tuple(self.type(one, name, is_output) for one in kind))
        if isinstance(kind, str):
            if kind in ("stdin", "stdout", "stderr"):
                return Type("File")
            if kind in _FITS:
                return Type(kind)
        if isinstance(kind, Mapping):
            binding = kind.get("inputBinding")
            made = Type(
                str(kind.get("type")),
                binding=None if binding is None else self.binding(binding, f"{name!r}"),
            )
            match made.kind:
                case "array":
                    return replace(made, items=self.type(kind["items"], name, is_output))
                case "enum":
                    return replace(made, symbols=frozenset(kind["symbols"]))
                case "record":
                    fields = tuple(
                        self.parameter(one, is_output=is_output) for one in kind.get("fields") or ()
                    )
                    return replace(made, fields=fields)
        raise BadTemplate(f"tool {self.tool!r}: {name!r} has a type that CWL lacks: {kind!r}")

    def binding(self, entry: Mapping[str, Any], what: str) -> Binding:
        """The CommandLineBinding of `what`."""
        position, value_from = entry.get("position"), entry.get("valueFrom")
        return Binding(
            position=self.expression(0 if position is None else position, f"position of {what}"),
            prefix=entry.get("prefix"),
            separate=entry.get("separate", True) is not False,
            item_separator=entry.get("itemSeparator"),
            value_from=None
            if value_from is None
            else self.expression(value_from, f"valueFrom of {what}"),
            shell_quote=entry.get("shellQuote", True) is not False,
        )

    def _output(self, entry: Mapping[str, Any], name: str) -> OutputBinding:
        globs = tuple(
            self.expression(one, f"glob of output {name!r}") for one in listed(entry.get("glob"))
        )
        for one in globs:
            if one.constant:
                check_glob(str(one.text), f"tool {self.tool!r}: output {name!r}")
        output_eval = entry.get("outputEval")
        return OutputBinding(
            globs,
            literal=entry.get("glob") is not None and entry.get("literal") is True,
            load_contents=bool(entry.get("loadContents")),
            load_listing=_listing(entry.get("loadListing"), name),
            output_eval=None
            if output_eval is None
            else self.expression(output_eval, f"outputEval of output {name!r}"),
        )

    def _secondary(self, entry: Mapping[str, Any], what: str, is_output: bool) -> Secondary:
        required = entry.get("required")
        place = f"secondaryFiles of {what}"
        return Secondary(
            self.expression(entry["pattern"], place),
            self.expression(required, place),
            by_default=not is_output,
        )


def check_glob(pattern: str, what: str) -> None:
    """Refuse (`BadTemplate`) a pattern that leads out of the output directory."""
    if ".." in pattern.split("/"):
        raise BadTemplate(
            f"{what}: glob {pattern!r} holds `..`; outputs are found below the outdir"
        )


def _listing(value: Any, name: str) -> str | None:
    if value is not None and value not in LISTINGS:
        raise BadTemplate(f"{name!r}: loadListing is {value!r}, not one of {', '.join(LISTINGS)}")
    return None if value is None else str(value)


def listed(value: Any) -> list[Any]:
    """`value` as a list: null is empty, what is no list stands alone."""
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def secondary_name(primary: str, pattern: str) -> str:
    """A secondary file's name by CWL's rule: each `^` drops an extension, the rest is added."""
    while pattern.startswith("^"):
        stem, dot, _ = primary.rpartition(".")
        primary, pattern = (stem if dot and stem else primary), pattern[1:]
    return primary + pattern


def secondary_names(
    secondary: Secondary, primary: Mapping[str, Any], evaluate: Any
) -> Iterator[Any]:
    """What an entry names for `primary`: names, or File and Directory objects.

    Raises `ExpressionError` for anything else; null is none.
    """
    if not has_expression(secondary.pattern.text):
        yield secondary_name(primary["basename"], str(secondary.pattern.text))
        return
    for one in listed(evaluate(secondary.pattern, primary)):
        if one is None:
            continue
        if not (isinstance(one, str) and one) and not is_file_object(one):
            raise secondary.pattern.fault(f"a secondary file is a name or a File, not {one!r}")
        yield one


def is_required(secondary: Secondary, primary: Mapping[str, Any], evaluate: Any) -> bool:
    """Whether an entry's files must be there. Raises `ExpressionError`."""
    value = evaluate(secondary.required, primary)
    if value is None:
        return secondary.by_default
    if not isinstance(value, bool):
        raise secondary.required.fault(f"`required` is true or false, not {value!r}")
    return value


def is_file_object(value: Any) -> bool:
    """Whether `value` is a File or Directory object."""
    return isinstance(value, Mapping) and value.get("class") in _CLASSES
