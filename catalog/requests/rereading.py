"""Files that the catalog knows: what a request says of them is compared before it is believed.

Those known by another kind of checksum than the request gives, or will read, are read with the
catalog's kind, too: the same bytes are the same file. Those whose copy is BAD or MISSING, or was
written to since it was registered, are read as well: that they once had the checksum says nothing.
"""

from collections.abc import Sequence

from sqlmodel import Session

from catalog import files
from catalog.checksums import DEFAULT, algorithm_of
from catalog.files import KnownCopy
from catalog.requests.kinds import (
    FileEntry,
    FileInput,
    FileProcess,
    RequestDocument,
    Reread,
    Verify,
)
from catalog.requests.looks import Looker
from catalog.states import ReplicaState


def with_known(
    session: Session, looker: Looker, documents: Sequence[RequestDocument]
) -> list[RequestDocument]:
    """The documents, with `Reread` in place of known files that may have to be read."""
    wanted: dict[tuple[str, int], set[str]] = {}
    for document in documents:
        if isinstance(document, FileInput | FileProcess):
            for file in document.files:
                if (storage := looker.storage(file)) is not None:
                    wanted.setdefault((storage.name, storage.id), set()).add(file.path)
    known = {
        scope: files.known_copies(session, scope, storage_id, sorted(names))
        for (scope, storage_id), names in sorted(wanted.items())
    }
    if not any(known.values()):
        return list(documents)
    return [_reread(looker, document, known) for document in documents]


def _reread(
    looker: Looker, document: RequestDocument, known: dict[str, dict[str, KnownCopy]]
) -> RequestDocument:
    if not isinstance(document, FileInput | FileProcess):
        return document
    found = []
    for file in document.files:
        there = known.get(looker.scope(file), {}).get(file.path)
        if there is not None and (must := _must_read(there, file, document.verify)) is not None:
            values = {name: getattr(file, name) for name in type(file).model_fields}
            file = Reread.model_construct(
                **values, algorithm=there.algorithm, mtime_us=None if must else there.mtime_us
            )
        found.append(file)
    return document.model_copy(update={"files": found})


def _must_read(there: KnownCopy, file: FileEntry, verify: Verify) -> bool | None:
    """Whether a known file must be read; False: if it isn't as its stamp says; None: it needn't."""
    mine = DEFAULT if file.checksum is None else algorithm_of(file.checksum)
    if there.algorithm != mine or there.state is ReplicaState.BAD:
        return True
    if there.state is ReplicaState.MISSING:
        return there.mtime_us is None
    if there.state is not ReplicaState.AVAILABLE or verify is Verify.NONE:
        return None
    return None if there.mtime_us is None else False
