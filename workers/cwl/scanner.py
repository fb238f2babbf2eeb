"""Finding the expressions in a string: the grammar of CWL v1.2, section Expressions."""

import re
from dataclasses import dataclass

_CLOSES = {"(": ")", "{": "}", "[": "]"}
_BEFORE_REGEX = frozenset("(,=:[!&|?{};+-*%~^<>")
_WORD_BEFORE_REGEX = re.compile(r"(?:^|[^\w$.])(?:return|typeof|case|in|of|delete|void)\Z")


class Unfinished(ValueError):
    """An expression that begins and doesn't end."""


@dataclass(frozen=True)
class Literal:
    """Text that stands for itself."""

    text: str


@dataclass(frozen=True)
class Code:
    """An expression; `text` is with its brackets: `(inputs.x)` or `{return 1;}`."""

    text: str


def scan(text: str) -> tuple[Literal | Code, ...]:
    """Cut `text` into literals and expressions. Raises `Unfinished`.

    `\\$(` and `\\${` give a literal `$(` and `${`; `\\\\` gives one backslash.
    """
    parts: list[Literal | Code] = []
    literal: list[str] = []
    at = 0
    while at < len(text):
        if text.startswith(("\\$(", "\\${"), at):
            literal.append(text[at + 1 : at + 3])
            at += 3
        elif text.startswith("\\\\", at):
            literal.append("\\")
            at += 2
        elif text.startswith(("$(", "${"), at):
            end = _end_of_code(text, at + 1)
            if literal:
                parts.append(Literal("".join(literal)))
                literal = []
            parts.append(Code(text[at + 1 : end]))
            at = end
        else:
            literal.append(text[at])
            at += 1
    if literal:
        parts.append(Literal("".join(literal)))
    return tuple(parts)


def _end_of_code(text: str, start: int) -> int:
    """The position behind the bracket that closes the one at `start`."""
    stack: list[str] = []
    at = start
    while at < len(text):
        char = text[at]
        if char in "\"'`":
            at = _end_of_quote(text, at)
            continue
        if char == "/":
            at = _end_of_slash(text, at, start)
            continue
        if char in _CLOSES:
            stack.append(_CLOSES[char])
        elif char in ")}]":
            if char != stack.pop():
                break
            if not stack:
                return at + 1
        at += 1
    raise Unfinished(f"the expression at position {start - 1} has no end")


def _end_of_quote(text: str, start: int) -> int:
    quote, at = text[start], start + 1
    while at < len(text):
        if text[at] == "\\":
            at += 1
        elif text[at] == quote:
            return at + 1
        elif quote == "`" and text.startswith("${", at):
            at = _end_of_code(text, at + 1) - 1
        at += 1
    raise Unfinished(f"the quote at position {start} has no end")


def _end_of_slash(text: str, at: int, start: int) -> int:
    """Behind the comment, the regular expression or the division that begins at `at`."""
    if text.startswith("//", at):
        line_end = text.find("\n", at)
        return len(text) if line_end < 0 else line_end
    if text.startswith("/*", at):
        close = text.find("*/", at + 2)
        return len(text) if close < 0 else close + 2
    before = text[start:at].rstrip()
    if before[-1] in _BEFORE_REGEX or _WORD_BEFORE_REGEX.search(before):
        return _end_of_regex(text, at)
    return at + 1


def _end_of_regex(text: str, start: int) -> int:
    in_class, at = False, start + 1
    while at < len(text) and text[at] != "\n":
        if text[at] == "\\":
            at += 1
        elif text[at] == "/" and not in_class:
            return at + 1
        elif text[at] in "[]":
            in_class = text[at] == "["
        at += 1
    return start + 1
