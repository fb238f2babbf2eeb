"""What each kind of request does, inside the transaction that answers it."""

from collections.abc import Sequence
from typing import Any

from sqlmodel import Session

from catalog import (
    closing,
    datasets,
    deletion,
    durations,
    files,
    leave,
    manifests,
    sources,
    storages,
    uploads,
)
from catalog.counts import count_of
from catalog.datasets import DatasetInfo, Member
from catalog.errors import Conflict, NotFound
from catalog.refs import Originals
from catalog.requests import work
from catalog.requests.kinds import (
    DatasetClose,
    DatasetDelete,
    DatasetInput,
    DatasetUpload,
    FileInput,
    FileProcess,
    RequestDocument,
)
from catalog.requests.looks import Look
from catalog.settings import get_settings
from catalog.states import DatasetState

Reply = dict[str, Any]


class Actions:
    """Does requests in order; files gather, and are registered together where nothing else is due.

    `documents` are those that are to be done: their datasets are looked up at once. `flush` must be
    called at the end.
    """

    def __init__(self, session: Session, documents: Sequence[RequestDocument] = ()) -> None:
        self._session = session
        about = {d.dataset for d in documents if not isinstance(d, DatasetInput)}
        self._known = datasets.known(session, about)
        self._absent = about - self._known.keys()
        self._gathered: dict[int, list[Look]] = {}
        self._filled: dict[str, int] = {}

    def check(self, document: RequestDocument) -> None:
        """Raise `NotFound`, before anything is done, for a dataset that was not there."""
        if not isinstance(document, DatasetInput) and document.dataset in self._absent:
            raise NotFound("dataset", document.dataset)

    def prepare(self, document: RequestDocument) -> None:
        """Register what was gathered for the dataset of a request that is about no files."""
        if isinstance(document, FileInput | FileProcess):
            return
        about = document.dataset
        dataset_id = about if isinstance(about, int) else self._filled.get(about)
        if dataset_id in self._gathered:
            self._register([dataset_id])

    def do(self, document: RequestDocument, looks: Sequence[Look]) -> Reply | None:
        """Do one; gives the reply, None where its work only begins here.

        Raises `SpdfError` where it can't be done; then the transaction must not be committed.
        """
        match document:
            case FileInput() | FileProcess():
                return self._gather(document, looks)
            case DatasetInput():
                return self._create(document)
            case DatasetClose():
                return self._close(document)
            case DatasetUpload():
                return self._upload(document)
            case DatasetDelete():
                return self._delete(document)
            case _:
                raise TypeError(f"{type(document).__name__} is no kind of request")

    def flush(self) -> None:
        """Register what was gathered."""
        self._register(list(self._gathered))

    def _gather(self, document: FileInput | FileProcess, looks: Sequence[Look]) -> Reply:
        info = self._dataset(document.dataset_id)
        self._filled[info.name] = info.id
        self._gathered.setdefault(info.id, []).extend(looks)
        return {"dataset": info.name, "files": len(looks)}

    def _register(self, dataset_ids: Sequence[int]) -> None:
        gathered = {i: self._gathered.pop(i) for i in dataset_ids if i in self._gathered}
        ids: dict[tuple[int, str], int] = {}
        everything = [look for looks in gathered.values() for look in looks]
        for storage_id in sorted({look.storage_id for look in everything}):
            rows = [look.row for look in everything if look.storage_id == storage_id]
            new = files.register(self._session, storage_id, rows)
            ids.update(
                ((storage_id, row.path), file_id) for row, file_id in zip(rows, new, strict=True)
            )
        for dataset_id, looks in sorted(gathered.items()):
            members = [Member(ids[look.storage_id, look.row.path], look.member) for look in looks]
            datasets.attach(self._session, dataset_id, members)

    def _create(self, document: DatasetInput) -> Reply:
        lifetime_s = durations.seconds(document.lifetime) if document.lifetime else None
        dataset_id = datasets.create(self._session, document.name, lifetime_s=lifetime_s)
        if document.hold:
            sources.hold(self._session, dataset_id, document.sender or sources.ANYBODY)
        self._known.pop(document.name, None)
        self._absent.discard(document.name)
        return {"dataset": document.name, "datasetId": dataset_id}

    def _close(self, document: DatasetClose) -> Reply:
        info = self._ours(document.dataset_id)
        sender = document.sender or sources.ANYBODY
        wanted = document.file_count_expected
        if info.state is DatasetState.OPEN and wanted is not None:
            within_s = durations.seconds(document.within) if document.within else None
            sources.hold(self._session, info.id, sender, expects=wanted, within_s=within_s)
            closing.count_announced(self._session, closing.announced(self._session, info.id))
        elif info.state is DatasetState.OPEN and document.own:
            sources.end_sender(self._session, info.id, sender)
        if wanted is None and not document.own and not _is_of_rule(document):
            closed = datasets.close(self._session, info.id)
        else:
            waits = closing.close_ended(self._session, info.id)
            closed = datasets.get(self._session, info.id)
            if closed.state is DatasetState.OPEN:
                return self._waiting(closed, wanted, waits)
        _check_count(closed, wanted)
        return {
            "dataset": info.name,
            "files": closed.file_count,
            "size": closed.size_bytes,
            "digest": closed.digest,
        }

    def _waiting(self, info: DatasetInfo, wanted: int | None, waits: list[str]) -> Reply:
        """The answer to an end that doesn't close the dataset yet."""
        reply: Reply = {"dataset": info.name, "state": info.state, "waits": waits}
        if wanted is not None:
            reply |= {"waitsFor": wanted, "have": manifests.count(self._session, info.id)}
        return reply

    def _upload(self, document: DatasetUpload) -> Reply | None:
        info = self._dataset(document.dataset_id)
        self._register([info.id])
        if isinstance(document.storage_id, int):
            storage = storages.get(self._session, document.storage_id)
        else:
            storage = storages.by_name(self._session, document.storage_id)
        uploads.ask(self._session, info.id, storage.id)
        return None

    def _delete(self, document: DatasetDelete) -> Reply | None:
        info = self._dataset(document.dataset_id)
        self._register([info.id])
        by = None
        if document.remove_originals:
            if not get_settings().requests_remove_originals:
                raise Conflict(
                    f"requests may not remove the originals of dataset {info.name!r} here: "
                    "SPDF_REQUESTS_REMOVE_ORIGINALS is off. Without `removeOriginals` it is "
                    f"deleted and they stay; `spdf dataset delete {info.name} --remove-originals` "
                    "removes them."
                )
            by = Originals.BY_WORD
        if (old := leave.too_old(self._session, document.key)) is not None:
            raise Conflict(
                f"dataset {info.name!r} is not deleted for a request of before that: {old}. "
                f"`spdf request retry {document.key}` has it done after that."
            )
        why = f"asked for by request {document.key}"
        if not deletion.mark(self._session, info.id, why, by=by):
            # Whoever deleted it decides: a request neither hastens nor widens that.
            before = datasets.get(self._session, info.id)
            if before.state is DatasetState.DELETING and by not in (None, before.originals):
                raise Conflict(
                    f"dataset {info.name!r} is being deleted already, by a word that its originals "
                    f"stay; `spdf dataset delete {info.name} --remove-originals` removes them, "
                    "while there is grace left."
                )
            work.check_grace(self._session, before)
        return None

    def _ours(self, reference: int | str) -> DatasetInfo:
        """A dataset that is filled from outside, with what was gathered for it."""
        info = self._dataset(reference)
        self._register([info.id])
        datasets.check_from_outside(self._session, info.id)
        return info

    def _dataset(self, reference: int | str) -> DatasetInfo:
        if reference not in self._known:
            if isinstance(reference, int):
                self._known[reference] = datasets.get(self._session, reference)
            else:
                self._known[reference] = datasets.by_name(self._session, reference)
        return self._known[reference]


def _is_of_rule(document: DatasetClose) -> bool:
    """Whether a rule of a program asked that knew no sources."""
    return document.key.startswith("intake:")


def _check_count(closed: DatasetInfo, wanted: int | None) -> None:
    if wanted is not None and closed.file_count != wanted:
        raise Conflict(
            f"dataset {closed.name!r} is {closed.state} with "
            f"{count_of(closed.file_count or 0, 'file')}, not the {wanted} announced; "
            f"`spdf dataset why {closed.name}` shows who closed it."
        )
