"""Patterns of users: regular expressions as Python means them, matched in linear time.

A pattern is read by Python's own parser and written anew for RE2, whose time grows with the text's
length only; what RE2 can't do, or would understand otherwise, is refused.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from re import error as re_error
from typing import Any

import re2

from catalog.errors import BadInput
from catalog.names import shown

MOST = 2000
"""Characters of a pattern."""
_MOST_STEPS = 60_000
"""Of RE2's program: a letter of Unicode is 1,350, and the worst takes 15 ms for a long path."""
_MOST_BEGUN_STEPS = 200_000
"""Of one that only folders that can't be read are matched against."""
_MOST_REPEATS = 1000

_ASCII, _CASELESS, _MULTILINE, _DOTALL = (
    sre.SRE_FLAG_ASCII,
    sre.SRE_FLAG_IGNORECASE,
    sre.SRE_FLAG_MULTILINE,
    sre.SRE_FLAG_DOTALL,
)
_FLAGS = _ASCII | _CASELESS | _MULTILINE | _DOTALL

_SPACES = (
    r"\t-\r\x{1c}-\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}"
    r"\x{3000}"
)
_CLASSES = {
    sre.CATEGORY_DIGIT: (r"\p{Nd}", "0-9"),
    sre.CATEGORY_SPACE: (_SPACES, r"\t-\r "),
    sre.CATEGORY_WORD: (r"\p{L}\p{N}_", "0-9A-Za-z_"),
}
"""What stands in brackets for a class: of Unicode, and of ASCII."""
_OPPOSITES = {
    sre.CATEGORY_NOT_DIGIT: sre.CATEGORY_DIGIT,
    sre.CATEGORY_NOT_SPACE: sre.CATEGORY_SPACE,
    sre.CATEGORY_NOT_WORD: sre.CATEGORY_WORD,
}
_REFUSED = {
    sre.ASSERT: "`(?=…)` and `(?<=…)` look at what is beside; write out what may stand there",
    sre.ASSERT_NOT: "`(?!…)` and `(?<!…)` look at what is beside; write out what may stand there",
    sre.GROUPREF: "it refers back to what a group took; write out what may stand there",
    sre.GROUPREF_EXISTS: "it asks whether a group took anything; write the cases with `|`",
    sre.ATOMIC_GROUP: "`(?>…)` never gives back what it took; write `(?:…)`",
    sre.POSSESSIVE_REPEAT: "`*+`, `++` and `?+` never give back what they took; leave out the `+`",
}
"""Nothing that takes linear time can do these."""


class Pattern:
    """A regular expression that is matched against whole texts.

    `groups` are the names of its groups. Raises `BadInput`, which names the `option` that it came
    by, for what is none or can't be used.
    """

    def __init__(self, text: str, option: str = "pattern") -> None:
        self.text = text
        self.groups, self._compiled = _compiled(text, option)

    @property
    def takes_nothing(self) -> bool:
        """Whether it fits no text but the empty one."""
        return bool(_parsed(self.text).getwidth()[1] == 0)

    def fullmatch(self, text: str) -> dict[str, str] | None:
        """What the named groups took, "" for one that took no part; None where it doesn't fit.

        Bytes that are no UTF-8 (surrogates in `text`) are each a character like any other that
        is neither a letter nor a digit.
        """
        found = self._compiled.fullmatch(_encoded(text))
        if found is None:
            return None
        return {name: (found.group(number) or b"").decode() for name, number in self.groups.items()}

    def may_begin(self, text: str) -> bool:
        """Whether a text that fits may begin so; True, too, where that can't be told."""
        begun = _compiled_begun(self.text)
        return begun is None or begun.fullmatch(_encoded(text)) is not None


def named(pattern: str, template: str, text: str) -> str | None:
    """The name that a template such as `run-{run}` gives a text that fits; None where none does.

    Raises `BadInput` for a pattern that can't be used.
    """
    groups = Pattern(pattern).fullmatch(text)
    return None if groups is None else template.format_map(groups)


@lru_cache(maxsize=512)
def _compiled(text: str, option: str) -> tuple[Mapping[str, int], Any]:
    if len(text) > MOST:
        raise BadInput(f"{option} is longer than {MOST} characters; shorten it.")
    try:
        tree = _parsed(text)
    except (re_error, OverflowError, RecursionError) as error:
        raise BadInput(
            f"{option} {_quoted(text)} is no regular expression ({error}); write one, such as "
            r"`(?P<run>run-\d+)/.*\.raw`."
        ) from error
    try:
        flags = tree.state.flags & _FLAGS
        compiled = re2.compile(_sequence(tree, flags).encode(), _options())
        if compiled.programsize > _MOST_STEPS:
            raise _Refused("it is too large; write fewer or shorter repeats")
    except _Refused as error:
        raise BadInput(f"{option} {_quoted(text)} can't be used: {error}.") from error
    except (re2.error, RecursionError) as error:
        told = error.args[0] if error.args else error
        told = told.decode(errors="replace") if isinstance(told, bytes) else str(told)
        if "repetition size" in told:
            told = f"repeats in repeats come to more than {_MOST_REPEATS} times; write `*` or `+`"
        else:
            told += "; write it simpler"
        raise BadInput(f"{option} {_quoted(text)} can't be used: {told}.") from error
    return dict(tree.state.groupdict), compiled


@lru_cache(maxsize=512)
def _compiled_begun(text: str) -> Any:
    """Fits what a text that fits may begin with; None where it is too large for RE2."""
    tree = _parsed(text)
    try:
        compiled = re2.compile(_begun(tree, tree.state.flags & _FLAGS).encode(), _options())
    except (re2.error, RecursionError):
        return None
    return compiled if compiled.programsize <= _MOST_BEGUN_STEPS else None


def _parsed(text: str) -> Any:
    with warnings.catch_warnings(action="ignore"):
        return parser.parse(text)


def _quoted(text: str) -> str:
    """A pattern as it was written: a `repr` doubles its backslashes."""
    return f"'{shown(text)}'"


def _options() -> Any:
    options = re2.Options()
    options.log_errors = False
    return options


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        return "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text).encode()


class _Refused(Exception):
    """Something in a pattern that can't be written for RE2."""


def _sequence(items: Iterable[tuple[Any, Any]], flags: int) -> str:
    return "".join(_WRITERS.get(kind, _unknown(kind))(value, flags) for kind, value in items)


def _unknown(kind: Any) -> Callable[[Any, int], str]:
    def refuse(_value: Any, _flags: int) -> str:
        raise _Refused(_REFUSED.get(kind, f"it holds {kind}, which is not known here"))

    return refuse


def _literal(code: int, flags: int) -> str:
    return _caseless(_character(code), flags)


def _not_literal(code: int, flags: int) -> str:
    return _caseless(f"[^{_character(code)}]", flags)


def _character(code: int) -> str:
    if 0xD800 <= code <= 0xDFFF:
        raise _Refused("it holds a byte that is no UTF-8; write `.` for it")
    character = chr(code)
    plain = character.isascii() and (character.isalnum() or character in "_/")
    return character if plain else rf"\x{{{code:x}}}"


def _caseless(text: str, flags: int) -> str:
    return f"(?i:{text})" if flags & _CASELESS else text


def _any(_value: None, flags: int) -> str:
    return r"(?s:.)" if flags & _DOTALL else r"[^\n]"


def _in(items: Iterable[tuple[Any, Any]], flags: int) -> str:
    """A set: what RE2 has no word for inside of brackets becomes alternatives beside them."""
    inside, beside, negated = "", [], False
    for kind, value in items:
        if kind is sre.NEGATE:
            negated = True
        elif kind is sre.LITERAL:
            inside += _character(value)
        elif kind is sre.RANGE:
            low, high = value
            inside += f"{_character(low)}-{_character(high)}"
        elif value in _OPPOSITES:
            beside.append(_class(_OPPOSITES[value], flags))
        else:
            inside += _class(value, flags)
    if not beside:
        return _caseless(f"[{'^' if negated else ''}{inside}]", flags)
    if not negated:
        choices = [f"[^{opposite}]" for opposite in beside] + ([f"[{inside}]"] if inside else [])
        return _caseless(f"(?:{'|'.join(choices)})", flags)
    if len(beside) == 1 and not inside:
        return _caseless(f"[{beside[0]}]", flags)
    raise _Refused(r"it excludes `\D`, `\S` or `\W` beside others; write what may stand there")


def _class(category: Any, flags: int) -> str:
    of_unicode, of_ascii = _CLASSES[category]
    return of_ascii if flags & _ASCII else of_unicode


def _at(place: Any, flags: int) -> str:
    many = bool(flags & _MULTILINE)
    if place in (sre.AT_BOUNDARY, sre.AT_NON_BOUNDARY):
        if not flags & _ASCII:
            raise _Refused(
                r"`\b` and `\B` are known for ASCII only; write `(?a)` before the pattern, or what "
                "may stand there"
            )
        return r"\b" if place is sre.AT_BOUNDARY else r"\B"
    if place is sre.AT_BEGINNING:
        return "(?m:^)" if many else r"\A"
    if place is sre.AT_END:
        # Of a whole text: what `re` lets follow, a last line feed, is in no name.
        return "(?m:$)" if many else r"\z"
    return r"\A" if place is sre.AT_BEGINNING_STRING else r"\z"


def _repeat(lazy: str) -> Callable[[tuple[int, Any, Any], int], str]:
    def write(value: tuple[int, Any, Any], flags: int) -> str:
        low, high, what = value
        if low > _MOST_REPEATS or (high is not sre.MAXREPEAT and high > _MOST_REPEATS):
            raise _Refused(f"it repeats more than {_MOST_REPEATS} times; write `*` or `+`")
        most = "" if high is sre.MAXREPEAT else str(high)
        return f"(?:{_sequence(what, flags)}){{{low},{most}}}{lazy}"

    return write


def _group(value: tuple[int | None, int, int, Any], flags: int) -> str:
    number, added, taken, what = value
    inside = _sequence(what, ((flags | added) & ~taken) & _FLAGS)
    return f"(?:{inside})" if number is None else f"({inside})"


def _branch(value: tuple[Any, Iterable[Any]], flags: int) -> str:
    return f"(?:{'|'.join(_sequence(choice, flags) for choice in value[1])})"


_WRITERS: Mapping[Any, Callable[[Any, int], str]] = {
    sre.LITERAL: _literal,
    sre.NOT_LITERAL: _not_literal,
    sre.ANY: _any,
    sre.IN: _in,
    sre.AT: _at,
    sre.MAX_REPEAT: _repeat(""),
    sre.MIN_REPEAT: _repeat("?"),
    sre.SUBPATTERN: _group,
    sre.BRANCH: _branch,
}


def _begun(items: Iterable[tuple[Any, Any]], flags: int) -> str:
    """A sequence that may end anywhere: within its first, or after that within the rest."""
    rest = ""
    for kind, value in reversed(list(items)):
        rest = f"(?:{_begun_one(kind, value, flags)}|{_WRITERS[kind](value, flags)}{rest})"
    return rest


def _begun_one(kind: Any, value: Any, flags: int) -> str:
    if kind in (sre.MAX_REPEAT, sre.MIN_REPEAT):
        _low, high, what = value
        if high == 0:
            return ""
        before = "" if high is sre.MAXREPEAT else str(high - 1)
        return f"(?:{_sequence(what, flags)}){{0,{before}}}{_begun(what, flags)}"
    if kind is sre.SUBPATTERN:
        _number, added, taken, what = value
        return _begun(what, ((flags | added) & ~taken) & _FLAGS)
    if kind is sre.BRANCH:
        return f"(?:{'|'.join(_begun(choice, flags) for choice in value[1])})"
    return ""
