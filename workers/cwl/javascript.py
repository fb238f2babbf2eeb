"""JavaScript by quickjs-ng: one context per thread, functions compiled once, all bounded."""

import threading
from itertools import count
from typing import TYPE_CHECKING

import quickjs

if TYPE_CHECKING:
    from catalog.settings import Settings

_MAX_SHOWN = 300
_MAX_FUNCTIONS = 2000
_numbers = count()


class ScriptError(Exception):
    """A script threw, ran out of time or memory, or gave no JSON value."""


class Script:
    """A CWL expression as a function of JSON texts. Compiled on its first call in each thread.

    `code` is as it stands behind the `$`: `(expression)` or `{function body}`; `library` is the
    tool's `expressionLib`. It runs in strict mode, and the library afresh at each call, so that
    nothing is left over from one evaluation to the next.
    """

    __slots__ = ("number", "source")

    def __init__(self, code: str, library: tuple[str, ...]) -> None:
        body = code if code.startswith("{") else f"{{return (\n{code[1:-1]}\n);}}"
        parts = "\n;\n".join(library)
        self.number = next(_numbers)
        self.source = (
            "(function(i$, s$, r$) {'use strict';\n"
            "var inputs = JSON.parse(i$), self = JSON.parse(s$), runtime = JSON.parse(r$);\n"
            f"{parts}\n;"
            f"var result$ = (function() {body}).call(this);\n"
            "return JSON.stringify(result$ === undefined ? null : result$);\n"
            "}).bind(globalThis)"
        )

    def __call__(self, inputs: str, self_: str, runtime: str) -> str:
        """The result as JSON text. Raises `ScriptError`."""
        engine = _engine()
        try:
            result = engine.function(self)(inputs, self_, runtime)
        except (quickjs.JSException, quickjs.StackOverflow) as fault:
            reason = str(fault)
            if "interrupted" in reason or "out of memory" in reason or not reason.strip():
                _local.engine = None
            raise ScriptError(_explain(reason)) from None
        if not isinstance(result, str):
            raise ScriptError("it gives a function or another value that JSON can't hold")
        return result


class _Engine:
    """A thread's context and the functions compiled in it.

    A function must be freed by its own thread, so scripts don't own them: all go with the engine.
    """

    def __init__(self) -> None:
        settings = _settings()
        self.context = quickjs.Context()
        self.context.set_memory_limit(settings.expression_bytes)
        self.context.set_time_limit(settings.expression_s)
        self._functions: dict[int, quickjs.Object] = {}

    def function(self, script: Script) -> quickjs.Object:
        """The compiled form of `script` in this context."""
        function = self._functions.get(script.number)
        if function is None:
            function = self._functions[script.number] = self.context.eval(script.source)
        return function

    @property
    def full(self) -> bool:
        """Whether so many functions were compiled that a new engine should be begun."""
        return len(self._functions) >= _MAX_FUNCTIONS


class _Local(threading.local):
    engine: _Engine | None = None


_local = _Local()


def _engine() -> _Engine:
    if _local.engine is None or _local.engine.full:
        _local.engine = _Engine()
    return _local.engine


def check_syntax(script: Script) -> str | None:
    """What is wrong with the script's JavaScript, or None."""
    try:
        _engine().function(script)
    except (quickjs.JSException, quickjs.StackOverflow) as fault:
        return _explain(str(fault))
    return None


def _settings() -> "Settings":
    # Slow to import, and most tools have no script.
    from catalog.settings import get_settings

    return get_settings()


def _explain(reason: str) -> str:
    settings = _settings()
    if "interrupted" in reason:
        return f"it ran longer than {settings.expression_s:g} s (setting SPDF_EXPRESSION_S)"
    if "out of memory" in reason:
        return (
            f"it took more than {settings.expression_bytes} bytes (setting SPDF_EXPRESSION_BYTES)"
        )
    first = reason.strip().splitlines()[0] if reason.strip() else "the engine gave no reason"
    return first if len(first) <= _MAX_SHOWN else f"{first[:_MAX_SHOWN]}..."
