"""Masks of dataset names, and whether one fits the datasets that its own template makes."""

import fnmatch
import string
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product

from catalog.errors import BadInput
from catalog.names import MAX_NAME

_FIRST = frozenset(string.ascii_letters + string.digits)
_ALPHABET = _FIRST | frozenset("._+@=-")
_DIGITS = frozenset(string.digits)
_ANY = None


@dataclass(frozen=True)
class Glob:
    """A mask cut into tokens: the characters that each takes, or `_ANY` for a `*`."""

    tokens: tuple[frozenset[str] | None, ...]

    def closure(self, position: int) -> Iterable[int]:
        """The positions that can be reached from `position` without reading."""
        yield position
        while position < len(self.tokens) and self.tokens[position] is _ANY:
            position += 1
            yield position

    def step(self, position: int, character: str) -> Iterable[int]:
        """The positions after `character` was read at `position` (or behind a star there)."""
        for at in self.closure(position):
            if at < len(self.tokens):
                token = self.tokens[at]
                if token is _ANY:
                    yield at
                elif character in token:
                    yield at + 1

    def accepts(self, position: int) -> bool:
        """Whether all may have been read at `position`."""
        return any(at == len(self.tokens) for at in self.closure(position))


def check_syntax(mask: str) -> Glob:
    """The tokens of `mask`; raises BadInput if it is no mask, or fits no possible name."""
    if not mask:
        raise BadInput("the mask is empty; give a pattern of dataset names, such as `run-????`.")
    if any(ord(c) < 32 or ord(c) == 127 for c in mask):
        raise BadInput(f"mask {mask!r} holds control characters; remove them.")
    if "/" in mask:
        raise BadInput(f"mask {mask!r} holds `/`, which no dataset name has; remove it.")
    if len(mask) > MAX_NAME:
        raise BadInput(f"the mask is longer than {MAX_NAME} characters; shorten it.")
    glob = Glob(tuple(_tokens(mask)))
    if not _common_name(glob, _Tail(())):
        raise BadInput(
            f"mask {mask!r} fits no name that a dataset can have (letters, digits and "
            "`. _ + @ = -`, beginning with a letter or digit); correct it."
        )
    return glob


def _tokens(mask: str) -> Iterable[frozenset[str] | None]:
    at = 0
    while at < len(mask):
        character = mask[at]
        at += 1
        if character == "*":
            yield _ANY
        elif character == "?":
            yield _ALPHABET
        elif character == "[":
            end = _bracket_end(mask, at)
            pattern = mask[at - 1 : end]
            yield frozenset(c for c in _ALPHABET if fnmatch.fnmatchcase(c, pattern))
            at = end
        else:
            yield frozenset(character)


def _bracket_end(mask: str, at: int) -> int:
    """The position behind the `]` that closes the bracket opened before `at`."""
    start = at + 1 if mask[at : at + 1] == "!" else at
    # As in fnmatch, a `]` right after the opening stands for itself.
    end = mask.find("]", start + 1 if mask[start : start + 1] == "]" else start)
    if end < 0:
        raise BadInput(
            f"mask {mask!r} opens a `[` that it doesn't close; close it, or write `[[]` for the "
            "character itself."
        )
    return end + 1


@dataclass(frozen=True)
class _Tail:
    """The names' endings, as the edges of an automaton: state, characters, next state.

    State 0 is the start and -1 the end; without edges there is no ending at all.
    """

    edges: tuple[tuple[int, frozenset[str], int], ...]


def output_tail(name: str, version: int, tails: Iterable[str]) -> _Tail:
    """The endings `.<template>.v<version>[.rN].<step>.<port>` for each `<step>.<port>`."""
    edges: list[tuple[int, frozenset[str], int]] = []
    count = 0

    def word(start: int, text: str, end: int | None = None) -> int:
        nonlocal count
        for index, character in enumerate(text):
            last = end is not None and index == len(text) - 1
            if not last:
                count += 1
            target = end if last and end is not None else count
            edges.append((start, frozenset(character), target))
            start = target
        return start

    base = word(0, f".{name}.v{version}")
    repeat = word(base, ".r")
    count += 1
    digits = count
    edges.append((repeat, _DIGITS - {"0"}, digits))
    edges.append((digits, _DIGITS, digits))
    for tail in tails:
        word(base, f".{tail}", -1)
        word(digits, f".{tail}", -1)
    return _Tail(tuple(edges))


def fits_outputs(glob: Glob, tail: _Tail) -> str | None:
    """An output's name that the mask fits, where the input's name fits it too; None if none does.

    Both names are read together: what the mask may be at after the input's name so far, and
    what it may be at after the output's, which goes on where the input's ends.
    """
    return _common_name(glob, tail)


def in_common(one: str, other: str) -> str | None:
    """A dataset's name that both masks fit; None if there is none. Raises `BadInput`."""
    first, second = check_syntax(one), check_syntax(other)
    letters = _letters([*first.tokens, *second.tokens])
    queue: deque[tuple[int, int, str]] = deque([(0, 0, "")])
    seen = {(0, 0, "")}
    while queue:
        at, beside, text = queue.popleft()
        if text and text[-1] != "." and first.accepts(at) and second.accepts(beside):
            return text
        if len(text) >= MAX_NAME:
            continue
        for character in letters:
            if (not text and character not in _FIRST) or (character == "." and text[-1:] == "."):
                continue
            for pair in product(
                set(first.step(at, character)), set(second.step(beside, character))
            ):
                state = (*pair, "." if character == "." else "x")
                if state not in seen:
                    seen.add(state)
                    queue.append((*pair, text + character))
    return None


_State = tuple[int, int, int]
"""Position of the mask in the input's name (-1: ended), in the output's, and in the ending."""


def _common_name(glob: Glob, tail: _Tail) -> str | None:
    start: tuple[_State, str] = ((0, 0, 0), "")
    queue: deque[tuple[_State, str]] = deque([start])
    letters = _letters([*glob.tokens, *(characters for _, characters, _ in tail.edges)])
    # Of the last character only matters whether a dot may follow it and whether it is the first.
    seen: set[tuple[_State, str]] = {((0, 0, 0), "")}
    edges: dict[int, list[tuple[frozenset[str], int]]] = {}
    for source, characters, target in tail.edges:
        edges.setdefault(source, []).append((characters, target))
    while queue:
        (first, second, at), text = queue.popleft()
        if not tail.edges and text and first >= 0 and glob.accepts(first):
            return text
        if at == -1 and glob.accepts(second):
            return text
        if len(text) >= MAX_NAME:
            continue
        for state, character in _moves(glob, edges, letters, (first, second, at), text):
            kind = "." if character == "." else "x"
            if (state, kind) not in seen:
                seen.add((state, kind))
                queue.append((state, text + character))
    return None


def _letters(sets: Iterable[frozenset[str] | None]) -> str:
    """One character for each way in which characters can be told apart."""
    known = [*dict.fromkeys(one for one in sets if one is not None), _FIRST, frozenset(".")]
    first: dict[tuple[bool, ...], str] = {}
    for character in sorted(_ALPHABET):
        first.setdefault(tuple(character in one for one in known), character)
    return "".join(sorted(first.values()))


def _moves(
    glob: Glob,
    edges: dict[int, list[tuple[frozenset[str], int]]],
    letters: str,
    state: _State,
    text: str,
) -> Iterable[tuple[_State, str]]:
    first, second, at = state
    if first >= 0:
        for character in letters:
            if (not text and character not in _FIRST) or (character == "." and text[-1:] == "."):
                continue
            for one in set(glob.step(first, character)):
                for other in set(glob.step(second, character)):
                    yield (one, other, at), character
        if not text or text.endswith(".") or not glob.accepts(first):
            return
    for characters, target in edges.get(at, ()):
        for character in letters:
            if character not in characters:
                continue
            for other in set(glob.step(second, character)):
                yield (-1, other, target), character
