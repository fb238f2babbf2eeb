"""CWL v1.2 expressions: parameter references, JavaScript and string interpolation."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from catalog.errors import BadTemplate
from workers.cwl.failures import ExpressionError
from workers.cwl.javascript import Script, ScriptError, check_syntax
from workers.cwl.normal import has_expression
from workers.cwl.numbers import is_inexact, json_text
from workers.cwl.scanner import Code, Unfinished, scan

_SEGMENT = re.compile(r"""\.(\w+)|\['((?:[^'\\]|\\.)*)'\]|\["((?:[^"\\]|\\.)*)"\]|\[(\d+)\]""")
_SYMBOL = re.compile(r"\((\w+)")
_ESCAPED = re.compile(r"\\(.)")
_ROOTS = ("inputs", "self", "runtime")


class _NoReference(Exception):
    """A parameter reference that leads to nothing."""


class Scope:
    """The values that expressions of one job see; their JSON is made once."""

    __slots__ = ("_texts", "inputs", "runtime")

    def __init__(self, inputs: Mapping[str, Any], runtime: Mapping[str, Any] | None = None) -> None:
        self.inputs, self.runtime = inputs, {} if runtime is None else runtime
        self._texts: tuple[str, str, str] | None = None

    def texts(self) -> tuple[str, str, str]:
        """The inputs and the runtime as JSON texts, and which inputs JavaScript can't hold."""
        if self._texts is None:
            unsafe = (name for name, value in self.inputs.items() if is_inexact(value))
            self._texts = json.dumps(self.inputs), json.dumps(self.runtime), "/".join(unsafe)
        return self._texts


@dataclass(frozen=True)
class Reference:
    """A parameter reference, such as `inputs.file.basename`."""

    root: str
    segments: tuple[str | int, ...]

    def evaluate(self, scope: Scope, self_: Any) -> Any:
        """Its value. Raises `_NoReference`."""
        if self.root == "null":
            return None
        value: Any = self_ if self.root == "self" else getattr(scope, self.root)
        last = len(self.segments) - 1
        for index, key in enumerate(self.segments):
            if isinstance(value, Mapping) and key in value:
                value = value[key]
            elif isinstance(value, list | tuple) and key == "length" and index == last:
                value = len(value)
            elif isinstance(value, list | tuple) and isinstance(key, int) and key < len(value):
                value = value[key]
            else:
                raise _NoReference(f"{self._shown(index)} has no {key!r}, it is {_kind(value)}")
        return value

    def _shown(self, count: int) -> str:
        return self.root + "".join(
            f"[{key}]" if isinstance(key, int) else f".{key}" for key in self.segments[:count]
        )


@dataclass(frozen=True)
class _Fragment:
    """One expression within a text: a reference, a script, or a reference with a script behind."""

    reference: Reference | None
    script: Script | None


class Expression:
    """A compiled field that may hold expressions. Use `compile_expression` to make one.

    `place` says in words where it stands, for the error of one that fails.
    """

    __slots__ = ("_parts", "constant", "place", "text")

    def __init__(
        self, text: Any, parts: tuple[str | _Fragment, ...] | None, place: str = ""
    ) -> None:
        self.text, self.place = text, place
        self._parts = parts
        self.constant = parts is None

    @property
    def is_sole(self) -> bool:
        """Whether it is one expression and nothing else, so that it may give any value."""
        parts = self._parts
        return parts is not None and len(parts) == 1 and isinstance(parts[0], _Fragment)

    def fault(self, reason: str) -> ExpressionError:
        """The failure of this expression for that reason."""
        return ExpressionError(str(self.text), reason, self.place)

    def evaluate(
        self,
        inputs: Mapping[str, Any],
        self_: Any = None,
        runtime: Mapping[str, Any] | None = None,
    ) -> Any:
        """The value in that context. Raises `ExpressionError`, which names the expression."""
        return self.within(Scope(inputs, runtime), self_)

    def within(self, scope: Scope, self_: Any = None) -> Any:
        """The value in a scope that several expressions share. Raises `ExpressionError`."""
        parts = self._parts
        if parts is None:
            return self.text
        if len(parts) == 1 and isinstance(parts[0], _Fragment):
            return self._value(parts[0], scope, self_)
        texts = []
        for part in parts:
            texts.append(
                part if isinstance(part, str) else json_text(self._value(part, scope, self_))
            )
        return "".join(texts)

    def _value(self, fragment: _Fragment, scope: Scope, self_: Any) -> Any:
        if fragment.reference is not None:
            try:
                return fragment.reference.evaluate(scope, self_)
            except _NoReference as fault:
                if fragment.script is None:
                    raise self.fault(str(fault)) from None
        script = fragment.script
        assert script is not None
        if script.uses_self and is_inexact(self_):
            raise self.fault("self holds a whole number beyond 2**53; JavaScript would change it")
        inputs, runtime, unsafe = scope.texts()
        try:
            own = json.dumps(self_) if script.uses_self else "null"
            return json.loads(script(inputs, own, runtime, unsafe))
        except ScriptError as fault:
            raise self.fault(str(fault)) from None


def compile_expression(
    text: Any,
    js: bool = False,
    lib: Iterable[str] = (),
    *,
    strip: bool = True,
    place: str = "",
) -> Expression:
    """Compile a field; what is no string, or holds no expression, evaluates to itself.

    Without `js` (InlineJavascriptRequirement) only parameter references are allowed. `lib` is its
    `expressionLib`. Blanks around an expression are dropped unless `strip` is False. `place` is
    where it stands, in words. Raises `BadTemplate`.
    """
    if not has_expression(text):
        return Expression(text, None, place)
    try:
        found = scan(text.strip() if strip else text)
    except Unfinished as fault:
        raise BadTemplate(f"expression {text!r}: {fault}") from None
    library = tuple(lib)
    return Expression(
        text,
        tuple(
            _fragment(part.text, js, library, text) if isinstance(part, Code) else part.text
            for part in found
        )
        or ("",),
        place,
    )


def _fragment(code: str, js: bool, library: tuple[str, ...], text: str) -> _Fragment:
    reference = parse_reference(code)
    if not js:
        if reference is None:
            raise BadTemplate(
                f"expression {text!r} is no parameter reference; for JavaScript the tool needs "
                "InlineJavascriptRequirement"
            )
        return _Fragment(reference, None)
    script = Script(code, library)
    fault = check_syntax(script)
    if fault is not None:
        raise BadTemplate(f"expression {text!r} is no valid JavaScript: {fault}")
    return _Fragment(reference, script)


def parse_reference(code: str) -> Reference | None:
    """The parameter reference that `(...)` is, or None."""
    start = _SYMBOL.match(code)
    if start is None:
        return None
    root, at = start.group(1), start.end()
    segments: list[str | int] = []
    while found := _SEGMENT.match(code, at):
        name, single, double, index = found.groups()
        quoted = single if single is not None else double
        if index is not None:
            segments.append(int(index))
        else:
            segments.append(name if quoted is None else _ESCAPED.sub(r"\1", quoted))
        at = found.end()
    if code[at:] != ")" or not (root in _ROOTS or (root == "null" and not segments)):
        return None
    return Reference(root, tuple(segments))


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, Mapping):
        return "an object without it"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    return f"{value!r}"
