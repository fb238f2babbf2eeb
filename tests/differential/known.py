"""Known differences: named, told from the case and its ends, never from its number.

Each name has its row, with who is right and why, in docs/reference/cwl-differences.md.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from tests.differential.cases import Case
from tests.differential.comparing import normal
from tests.differential.drawing import Spelt
from tests.differential.runners import Ended

Predicate = Callable[[Case, Ended, Ended], bool]


def known(case: Case, ours: Ended, theirs: Ended) -> str | None:
    """The name of the known difference that this is; None: it is none."""
    return next((name for name, fits in KNOWN.items() if fits(case, ours, theirs)), None)


def _only_ours_fails(ours: Ended, theirs: Ended) -> bool:
    return ours.outputs is None and not ours.defect and theirs.outputs is not None


def _only_theirs_fails(ours: Ended, theirs: Ended) -> bool:
    return ours.outputs is not None and theirs.outputs is None


def _said(ended: Ended) -> str:
    """Why a runner failed, on one line: cwltool wraps its sentences to the length of the paths."""
    return " ".join(ended.reason.split())


def _undefined(case: Case, ours: Ended, theirs: Ended) -> bool:
    said = r"undefined|is NaN|was joined into|has no ('|item)|no number of CWL"
    return _only_ours_fails(ours, theirs) and bool(re.search(said, ours.reason))


def _unchecked_type(case: Case, ours: Ended, theirs: Ended) -> bool:
    """cwltool looks at no types of what an expression or the payload's own object gives."""
    own = case.document["class"] == "ExpressionTool" or "cwl.output.json" in _text(case)
    wrong = r"output '\w+' of 'tool' (must be|was not made: it is null)"
    return own and _only_ours_fails(ours, theirs) and bool(re.search(wrong, ours.reason))


def _javascript(case: Case, ours: Ended, theirs: Ended) -> bool:
    said = "for JavaScript the tool needs InlineJavascriptRequirement"
    return _only_ours_fails(ours, theirs) and said in ours.reason


def _boolean_for_number(case: Case, ours: Ended, theirs: Ended) -> bool:
    wrong = r"must be (int|long|float|double).*; it is (True|False)$"
    return _only_ours_fails(ours, theirs) and bool(re.search(wrong, ours.reason))


def _stream_by_name(case: Case, ours: Ended, theirs: Ended) -> bool:
    said = "Did not find output file with glob pattern"
    names = [str(case.document.get(one, "")) for one in ("stdout", "stderr")]
    return (
        _only_theirs_fails(ours, theirs)
        and said in _said(theirs)
        and any("[" in one for one in names)
    )


def _null_entry(case: Case, ours: Ended, theirs: Ended) -> bool:
    said = "of listing is not a record, was <class 'NoneType'>"
    return _only_theirs_fails(ours, theirs) and bool(re.search(said, _said(theirs)))


def _broke(case: Case, ours: Ended, theirs: Ended) -> bool:
    """An error of Python's in cwltool: a location that it lost, a literal's text as a path."""
    broken = (
        r"^(KeyError|IndexError|AttributeError|TypeError)\b|Unhandled error|"
        r"\[Errno \d+\] (No such file or directory|File exists)"
    )
    return _only_theirs_fails(ours, theirs) and bool(re.search(broken, theirs.reason, re.M))


def _one_stream(case: Case, ours: Ended, theirs: Ended) -> bool:
    names = {case.document.get("stdout"), case.document.get("stderr")}
    return len(names) == 1 and None not in names and ours.outputs is not None


def _spelling(case: Case, ours: Ended, theirs: Ended) -> bool:
    """Only the text of a double differs, which cwltool writes as it was spelt, or as Python."""
    spelt = any(isinstance(one, Spelt) for one in _values(case.job)) or "1e3" in _text(case)
    return spelt and _contents_alike(ours, theirs, _in_one_language)


def _words(case: Case, ours: Ended, theirs: Ended) -> bool:
    """A boolean, a list or a record within a joined list is JSON here, and Python there."""
    return "itemSeparator" in _text(case) and _contents_alike(ours, theirs, _in_one_language)


def _empty_value(case: Case, ours: Ended, theirs: Ended) -> bool:
    """An empty list that a valueFrom gives adds nothing, no prefix either."""
    given = "$([])" in _text(case) or "$(self)" in _text(case) or "return self" in _text(case)
    return given and _fewer_lines(theirs, ours)


def _two_places(case: Case, ours: Ended, theirs: Ended) -> bool:
    """cwltool knows an input by its location, and stages it at one of its places only."""
    return case.kind == "work" and _fewer_lines(ours, theirs)


def _items_alone(case: Case, ours: Ended, theirs: Ended) -> bool:
    """Items that are bound, in a list that isn't: cwltool sorts them by their index first."""
    bound = any(
        isinstance(one, dict) and one.get("type") == "array" and "inputBinding" in one
        for one in _values(case.document["inputs"])
    )
    if not bound or ours.outputs is None or theirs.outputs is None:
        return False
    return sorted(_lines(ours.outputs)) == sorted(_lines(theirs.outputs))


def _directory_format(case: Case, ours: Ended, theirs: Ended) -> bool:
    """A format is a File's."""
    told = json.dumps([normal(ours.outputs), normal(theirs.outputs)])
    return '"Directory"' in told and _made_alike(ours, theirs, _without("format", "Directory"))


def _outdir(case: Case, ours: Ended, theirs: Ended) -> bool:
    """The output directory as an output has whatever name a runner gave it."""
    return '"glob": "."' in _text(case) or '"."' in _text(case)


def _several(case: Case, ours: Ended, theirs: Ended) -> bool:
    said = "Multiple matches for output item that is a single file"
    return _only_theirs_fails(ours, theirs) and said in _said(theirs)


def _literal(case: Case, ours: Ended, theirs: Ended) -> bool:
    said = "Output File object is missing both 'location' and 'path' fields"
    return _only_theirs_fails(ours, theirs) and said in _said(theirs)


def _nameless(case: Case, ours: Ended, theirs: Ended) -> bool:
    said = "Anonymous directory object must have 'listing' and 'basename' fields"
    return _only_theirs_fails(ours, theirs) and bool(re.search(said, _said(theirs)))


def _twice(case: Case, ours: Ended, theirs: Ended) -> bool:
    """A file that two patterns of a list match is one, also where an outputEval counts them."""
    counted = any(
        isinstance(one, dict)
        and (isinstance(one.get("glob"), list) or "$([" in str(one.get("glob")))
        and "self.length" in str(one.get("outputEval"))
        for one in _values(case.document["outputs"])
    )
    return _made_alike(ours, theirs, _once) or (
        counted and ours.outputs is not None and theirs.outputs is not None
    )


def _glob(case: Case, ours: Ended, theirs: Ended) -> bool:
    return "\\\\[" in _text(case) or "$('x[1]').dat" in _text(case)


def _empty_list(case: Case, ours: Ended, theirs: Ended) -> bool:
    return "'entryname' is invalid when 'entry' returns list" in _said(theirs)


def _text(case: Case) -> str:
    return case.tool.read_text()


def _values(value: Any) -> Iterator[Any]:
    yield value
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for one in inner:
        yield from _values(one)


def _made_alike(ours: Ended, theirs: Ended, form: Callable[[Any], Any]) -> bool:
    if ours.outputs is None or theirs.outputs is None:
        return False
    return bool(form(normal(ours.outputs)) == form(normal(theirs.outputs)))


def _once(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _once(one) for key, one in value.items()}
    if isinstance(value, list):
        return sorted({json.dumps(_once(one), sort_keys=True) for one in value})
    return value


def _contents_alike(ours: Ended, theirs: Ended, form: Callable[[str], Any]) -> bool:
    """Whether the outputs are equal but for Files whose texts have one form."""
    return _made_alike(ours, theirs, lambda value: value) or (
        ours.outputs is not None
        and theirs.outputs is not None
        and _texts(ours.outputs, form) == _texts(theirs.outputs, form)
    )


def _texts(value: Any, form: Callable[[str], Any]) -> Any:
    """An output object with the forms of its Files' texts in their place."""
    if isinstance(value, list):
        return [_texts(one, form) for one in value]
    if not isinstance(value, dict):
        return value
    if value.get("class") == "File":
        with open(value["path"], errors="replace") as file:  # noqa: PTH123 - a path of either
            return form(file.read())
    return {key: _texts(one, form) for key, one in value.items()}


def _in_one_language(text: str) -> str:
    """`text` with numbers in one spelling, and without Python's words, lists and objects."""
    text = re.sub(r"\{.*\}|\[.*\]", "", text, flags=re.S)
    text = text.replace("True", "true").replace("False", "false").replace("None", "null")
    return re.sub(r"\d+(\.\d+)?(e[+-]?\d+)?", lambda found: repr(float(found[0])), text)


def _fewer_lines(whole: Ended, part: Ended) -> bool:
    """Whether one's Files have the other's lines, and some more."""
    if whole.outputs is None or part.outputs is None:
        return False
    more, fewer = (Counter(_lines(one.outputs)) for one in (whole, part))
    return not fewer - more


def _lines(value: Any) -> list[str]:
    """The lines of all Files of an output object, in one language."""
    found: list[str] = []
    _texts(value, lambda text: found.extend(map(_in_one_language, text.splitlines())))
    return found


def _without(key: str, kind: str) -> Callable[[Any], Any]:
    def stripped(value: Any) -> Any:
        if isinstance(value, list):
            return [stripped(one) for one in value]
        if not isinstance(value, dict):
            return value
        dropped = {key} if value.get("class") == kind else set()
        return {name: stripped(one) for name, one in value.items() if name not in dropped}

    return stripped


KNOWN: dict[str, Predicate] = {
    "undefined values": _undefined,
    "types of computed outputs": _unchecked_type,
    "JavaScript without its requirement": _javascript,
    "a boolean for a number": _boolean_for_number,
    "streams by name": _stream_by_name,
    "null entries": _null_entry,
    "stdout and stderr in one file": _one_stream,
    "one number, one text": _spelling,
    "words in joined lists": _words,
    "empty lists of valueFrom": _empty_value,
    "order of items bound alone": _items_alone,
    "one input in two places": _two_places,
    "formats of Directories": _directory_format,
    "the output directory's name": _outdir,
    "several for File or File[]": _several,
    "Directory literals without a name": _nameless,
    "literals of outputEval": _literal,
    "a file once": _twice,
    "escapes in globs": _glob,
    "an empty list with an entryname": _empty_list,
    "cwltool breaks": _broke,
}
