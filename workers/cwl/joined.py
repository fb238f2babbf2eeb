"""What JavaScript writes into a text for what is no text: `undefined`, `NaN`, `[object Object]`."""

import re

_OBJECT = "[object Object]"
_WORDS = {
    "undefined": ("undefined", "indefined"),
    "NaN": (r"NaN(?![A-Za-z0-9])", "NoN"),
    "Infinity": (r"Infinity(?![A-Za-z0-9])", "Imfinity"),
    "Invalid Date": ("Invalid Date", "Imvalid Date"),
    _OBJECT: (r"\[object Object\]", "[abject Object]"),
}
"""By word: the pattern by which it is found, and what stands for it where the data have it, too."""

_TOKEN = re.compile(
    r"""//[^\n]*|/\*.*?\*/|(?P<text>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|`(?:\\.|[^`\\])*`)""", re.S
)
_COMPARES = ("==", "!=")
_ASKED = re.compile(r"([=!]==?\s*)?\btypeof\b(\s*\(?[\w$.]+(\[[^]]*\])*\)?\s*[=!]==?)?")
"""What gives `undefined` as a text of its own, where nothing is compared with it."""


def words_of(code: str, library: str) -> frozenset[str]:
    """Those of the words that a script writes on purpose: in a text of its own, or by `typeof`.

    What a library finds out by `typeof` it keeps to itself.
    """
    if "globalThis" in code:
        return frozenset(_WORDS)
    found = {word for part in (code, library) for word in _WORDS if _has_text(part, word)}
    if any(not asked[1] and not asked[2] for asked in _ASKED.finditer(code)):
        found.add("undefined")
    return frozenset(found)


def _has_text(code: str, word: str) -> bool:
    """Whether the word is in a text of the code with which nothing is compared."""
    return word in code and any(
        word in (found["text"] or "")
        and not code[: found.start()].rstrip().endswith(_COMPARES)
        and not code[found.end() :].lstrip().startswith(_COMPARES)
        for found in _TOKEN.finditer(code)
    )


def words_in(result: str, known: frozenset[str]) -> list[str]:
    """Those of the words that a result has, as JSON text, and that are not `known` otherwise."""
    return [
        word
        for word, (pattern, _) in _WORDS.items()
        if word in result and word not in known and re.search(pattern, result)
    ]


def mend(word: str) -> str:
    """What to do about a word."""
    if word == _OBJECT:
        return "a text takes no File, list or record: say which part of it is meant"
    return "ask first whether the value is there"


def without(word: str, data: str) -> str:
    """The data without that word: what a script then still writes is its own doing."""
    return data.replace(word, _WORDS[word][1])
