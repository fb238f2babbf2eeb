"""Files that the catalog knows by another kind of checksum than a request gives, or will read.

They are read with the catalog's kind, too: the same bytes are the same file.
"""

from collections.abc import Sequence

from sqlmodel import Session

from catalog import files
from catalog.checksums import DEFAULT, algorithm_of
from catalog.requests.kinds import FileInput, FileProcess, RequestDocument, Reread
from catalog.requests.looks import Looker


def with_known(
    session: Session, looker: Looker, documents: Sequence[RequestDocument]
) -> list[RequestDocument]:
    """The documents, with `Reread` in place of files that are known by another kind of checksum."""
    wanted: dict[str, set[str]] = {}
    for document in documents:
        if isinstance(document, FileInput | FileProcess):
            for file in document.files:
                wanted.setdefault(looker.scope(file), set()).add(file.path)
    known = {
        scope: files.algorithms(session, scope, sorted(names))
        for scope, names in sorted(wanted.items())
        if scope
    }
    if not any(known.values()):
        return list(documents)
    return [_reread(looker, document, known) for document in documents]


def _reread(
    looker: Looker, document: RequestDocument, known: dict[str, dict[str, str]]
) -> RequestDocument:
    if not isinstance(document, FileInput | FileProcess):
        return document
    found = []
    for file in document.files:
        there = known.get(looker.scope(file), {}).get(file.path)
        mine = DEFAULT if file.checksum is None else algorithm_of(file.checksum)
        if there is not None and there != mine:
            values = {name: getattr(file, name) for name in type(file).model_fields}
            file = Reread.model_construct(**values, algorithm=there)
        found.append(file)
    return document.model_copy(update={"files": found})
