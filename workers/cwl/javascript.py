"""JavaScript by quickjs-ng: one context per thread, functions compiled once, all bounded."""

import threading
from itertools import count
from typing import TYPE_CHECKING

import quickjs

from workers.cwl.joined import mend, without, words_in, words_of

if TYPE_CHECKING:
    from catalog.settings import Settings

_MAX_SHOWN = 300
_MAX_FUNCTIONS = 2000
_SPENT = ("interrupted", "out of memory")
_UNSAID = ("", "null")
"""What an engine says that has not even the memory to say so."""
_numbers = count()

_PRELUDE = r"""
(function () {
'use strict';
// What a File or Directory may have, and often hasn't; undefined is the answer then.
const FIELDS = new Set(['class', 'location', 'path', 'basename', 'dirname', 'nameroot', 'nameext',
  'checksum', 'size', 'secondaryFiles', 'format', 'contents', 'listing', 'metadata']);
// Whatever a value of type Any may be is asked for its class, to know a File.
const CLASS = new Set(['class']);

// What inputs and self are made of, to say where a value stands when something is amiss.
let roots = {};
// What was asked for of Files and isn't there, as [File, name].
let missed = [];
const MOST_MISSED = 20;

function where(value) {
  function* within(path, one) {
    if (one === null || typeof one !== 'object') return;
    if (one === value) yield path;
    else if (Array.isArray(one))
      for (let at = 0; at < one.length; at++) yield* within(`${path}[${at}]`, one[at]);
    else for (const [key, inner] of Object.entries(one)) yield* within(`${path}.${key}`, inner);
  }
  for (const [name, root] of Object.entries(roots))
    for (const path of within(name, root)) return path;
  return Array.isArray(value) ? 'a list' : 'an object';
}

// A prototype that makes a name which an object hasn't an error, not undefined. It is asked only
// for what isn't there: what is costs nothing more.
function guard(base, optional) {
  return new Proxy(Object.freeze(Object.create(base)), {get(target, key, receiver) {
    if (typeof key === 'symbol' || key === 'toJSON' || key in target || optional.has(key)) {
      if (optional.has(key) && key !== 'class' && missed.length < MOST_MISSED)
        missed.push([receiver, key]);
      return Reflect.get(target, key, receiver);
    }
    if (Array.isArray(receiver) && /^\d+$/.test(key)) throw new RangeError(
      `${where(receiver)} has no item [${key}], its length is ${receiver.length}`);
    throw new ReferenceError(`${where(receiver)} has no '${key}'`);
  }});
}

const LIST = guard(Array.prototype, CLASS), RECORD = guard(Object.prototype, CLASS);
const FILE = guard(Object.prototype, FIELDS);

// The value with each list, record, File and Directory in it guarded.
function guarded(value) {
  if (value === null || typeof value !== 'object') return value;
  if (Array.isArray(value)) {
    for (const one of value) if (typeof one === 'object') guarded(one);
    return Object.setPrototypeOf(value, LIST);
  }
  for (const key in value) if (typeof value[key] === 'object') guarded(value[key]);
  const file = value.class === 'File' || value.class === 'Directory';
  return Object.setPrototypeOf(value, file ? FILE : RECORD);
}

// The inputs or the runtime: guarded, each value when it is first asked for.
function strict(name, text, unsafe) {
  const object = roots[name] = JSON.parse(text), seen = new Set();
  return new Proxy(object, {get(target, key) {
    if (typeof key === 'symbol' || key === 'toJSON') return target[key];
    if (unsafe.has(key)) throw new RangeError(
      `${name}.${key} holds a whole number beyond 2**53; JavaScript would change it`);
    if (!(key in target)) throw new ReferenceError(`${name} has no '${key}'`);
    const value = target[key];
    if (typeof value === 'object' && !seen.has(key)) {
      seen.add(key);
      guarded(value);
    }
    return value;
  }});
}

// Refuse what JSON would leave out or write as null.
function check(value, path) {
  switch (typeof value) {
  case 'string': case 'boolean': return;
  case 'number':
    if (Number.isFinite(value)) return;
    throw new RangeError(`${path.join('')} is ${value}, which is no number of CWL`);
  case 'object': {
    if (value === null || typeof value.toJSON === 'function') return;
    const kind = Object.prototype.toString.call(value).slice(8, -1);
    if (!['Object', 'Array', 'String', 'Number', 'Boolean'].includes(kind))
      throw new TypeError(`${path.join('')} is a ${kind}, which is no value of CWL`);
    const array = kind === 'Array';
    for (const key of array ? value.keys() : Object.keys(value)) {
      path.push(array ? `[${key}]` : `.${key}`);
      check(value[key], path);
      path.pop();
    }
    return;
  }}
  const what = value === undefined ? 'undefined' : `a ${typeof value}`;
  throw new TypeError(`${path.join('')} is ${what}; where no value is meant, give null`);
}

for (const [name, value] of Object.entries({
  'inputs$': (text, unsafe) => {
    roots = {};
    missed = [];
    return strict('inputs', text, new Set(unsafe.split('/')));
  },
  'self$': (text) => guarded(roots.self = JSON.parse(text)),
  'runtime$': (text) => strict('runtime', text, new Set()),
  'missed$': () =>
    [...new Set(missed.map(([value, key]) => `${where(value)} has no '${key}'`))].join(', '),
  'json$': (value) => { check(value, ['its result']); return JSON.stringify(value); },
})) Object.defineProperty(globalThis, name, {value});
})();
"""


class ScriptError(Exception):
    """A script threw, ran out of time or memory, or gave no JSON value."""


class Script:
    """A CWL expression as a function of JSON texts. Compiled on its first call in each thread.

    `code` is as it stands behind the `$`: `(expression)` or `{function body}`; `library` is the
    tool's `expressionLib`. It runs in strict mode, and the library afresh at each call, so that
    nothing is left over from one evaluation to the next. A name that `inputs` or `runtime` hasn't
    is an error, and so is one that a record, a list or a File in them or in `self` hasn't, and a
    result with undefined, NaN, infinity or a function in it, or with a text into which one of
    these, an object, or a date that is none was joined.
    """

    __slots__ = ("_words", "number", "source", "uses_self")

    def __init__(self, code: str, library: tuple[str, ...]) -> None:
        body = code if code.startswith("{") else f"{{return (\n{code[1:-1]}\n);}}"
        parts = "\n;\n".join(library)
        self.uses_self = "self" in code or "self" in parts
        self._words = words_of(body, parts)
        self.number = next(_numbers)
        self.source = (
            "(function(i$, s$, r$, u$) {'use strict';\n"
            "var inputs = inputs$(i$, u$), self = self$(s$), runtime = runtime$(r$);\n"
            f"{parts}\n;"
            f"var result$ = (function() {body}).call(this);\n"
            "return json$(result$);\n"
            "}).bind(globalThis)"
        )

    def __call__(self, inputs: str, self_: str, runtime: str, unsafe: str = "") -> str:
        """The result as JSON text. Raises `ScriptError`.

        `unsafe` names inputs, with `/` between them, whose numbers JavaScript can't hold.
        """
        result = self._run(inputs, self_, runtime, unsafe)
        for word in words_in(result, self._words):
            missed = _engine().context.eval("missed$()")
            if self._writes(word, inputs, self_, runtime, unsafe):
                why = f" ({missed})" if missed else ""
                raise ScriptError(
                    f"{word} was joined into its result {_shortened(result)}{why}; {mend(word)}"
                )
        return result

    def _writes(self, word: str, inputs: str, self_: str, runtime: str, unsafe: str) -> bool:
        """Whether it has that word from elsewhere than from what it was given."""
        if not any(word in data for data in (inputs, self_, runtime)):
            return True
        inputs, self_, runtime = (without(word, data) for data in (inputs, self_, runtime))
        try:
            return word in words_in(self._run(inputs, self_, runtime, unsafe), self._words)
        except ScriptError:
            return False

    def _run(self, inputs: str, self_: str, runtime: str, unsafe: str) -> str:
        engine = _engine()
        try:
            result = engine.function(self)(inputs, self_, runtime, unsafe)
        except (quickjs.JSException, quickjs.StackOverflow) as fault:
            reason = str(fault)
            if any(word in reason for word in _SPENT) or reason.strip() in _UNSAID:
                _local.engine = None
            raise ScriptError(_explain(reason)) from None
        if not isinstance(result, str):
            raise ScriptError("it gives a value that JSON can't hold")
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
        self.context.eval(_PRELUDE)
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
    if reason.strip() == "null":
        limit = f"{settings.expression_bytes} bytes (setting SPDF_EXPRESSION_BYTES)"
        return f"it took more than {limit}, or threw null"
    first = reason.strip().splitlines()[0] if reason.strip() else "the engine gave no reason"
    return _shortened(first)


def _shortened(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."
