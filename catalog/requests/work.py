"""Work that goes on for longer than a transaction: which it is, and how it has ended."""

from typing import Any

from sqlmodel import Session

from catalog import datasets, grace, uploads
from catalog.counts import count_of
from catalog.datasets import DatasetInfo
from catalog.errors import Conflict, NotFound, SpdfError, StateConflict
from catalog.refs import RequestKind as Kind
from catalog.requests import queue
from catalog.requests.kinds import parse
from catalog.requests.looking import to_be_read
from catalog.requests.queue import Answer, RequestInfo
from catalog.states import DatasetState, RequestState, UploadState, is_final

CONFLICT = "CONFLICT"
"""What the answer of one that the catalog's state didn't allow has for its `code`."""
CANCELLED = "CANCELLED"
"""What the answer of a cancelled request has for its `code`."""
_GOING = (DatasetState.DELETING, DatasetState.DELETED)
_LONG = frozenset({Kind.DATASET_DELETE, Kind.DATASET_UPLOAD})


def is_long(kind: str) -> bool:
    """Whether a request of that kind is answered only when others have done its work."""
    return kind in _LONG


def waits(info: RequestInfo) -> str | None:
    """What a QUEUED request that nothing is before in its dataset waits for, if it is for long."""
    try:
        files = to_be_read(parse(info.document))
    except SpdfError:
        return None
    if not files:
        return None
    return f"for {count_of(files, 'file')} of it to be read, in turn with those of other datasets"


def cancel(session: Session, request_id: int) -> RequestInfo:
    """Answer a request with ERROR that is not done yet; an upload that it began is cancelled, too.

    Raises `StateConflict` for one that is answered, `Conflict` for a deletion that can't be taken
    back any more.
    """
    info = queue.lock(session, request_id)
    if info.state is not RequestState.QUEUED:
        raise StateConflict("request", info.key, info.state, "cancelled", "it is answered already")
    if info.begun_at is not None:
        _stop(session, info)
    told = "it was cancelled; `spdf request retry` asks for it again"
    reply = {"error": told, "code": CANCELLED}
    queue.answer(session, [Answer(request_id, RequestState.ERROR, reply)])
    return queue.get(session, request_id)


def _stop(session: Session, info: RequestInfo) -> None:
    """End the work that a request has begun."""
    dataset = _dataset(session, info)
    if info.kind == Kind.DATASET_DELETE:
        if dataset.state in _GOING and grace.left_until(session, dataset) is None:
            raise Conflict(
                f"request {info.key!r} can't be cancelled: the deletion of dataset "
                f"{dataset.name!r} has begun; `spdf dataset why {dataset.name}` tells how far it "
                "is."
            )
        return
    storage = info.payload["storageId"]
    for upload in uploads.of_dataset(session, dataset.id):
        if storage in (upload.storage_id, upload.storage) and not is_final(upload.state):
            uploads.order(session, upload.dataset_id, upload.storage_id, cancel=True)


def outcome(session: Session, info: RequestInfo) -> tuple[RequestState, dict[str, Any]] | None:
    """The answer to a request whose work was begun; None while it goes on.

    Raises `Conflict` for a deletion that was taken back, or is another's who may take it back.
    """
    dataset = _dataset(session, info)
    if info.kind == Kind.DATASET_DELETE:
        return _deleted(session, dataset)
    return _uploaded(session, dataset, info.payload["storageId"])


def _deleted(session: Session, dataset: DatasetInfo) -> tuple[RequestState, dict[str, Any]] | None:
    if dataset.state is DatasetState.DELETED:
        return RequestState.DONE, {"dataset": dataset.name}
    if dataset.state is not DatasetState.DELETING:
        raise Conflict(
            f"the deletion of dataset {dataset.name!r} was taken back by `spdf dataset undelete`; "
            "`spdf request retry` asks for it again."
        )
    check_grace(session, dataset)
    return None


def check_grace(session: Session, dataset: DatasetInfo) -> None:
    """Raise `Conflict` where a person deletes a dataset, and has grace left: nobody waits so long.

    A deletion that a request begins has no grace.
    """
    until = grace.left_until(session, dataset)
    if until is not None:
        raise Conflict(
            f"dataset {dataset.name!r} is being deleted already by a person, who may take it back "
            f"until {until:%Y-%m-%d %H:%M:%SZ}; `spdf dataset delete {dataset.name} --grace 0s` "
            "ends that."
        )


def _dataset(session: Session, info: RequestInfo) -> DatasetInfo:
    reference = info.payload["datasetId"]
    if isinstance(reference, int):
        return datasets.get(session, reference)
    # Once it is DELETED its name may be another's, before this is answered.
    return datasets.by_name_at(session, reference, info.begun_at or info.created_at)


def _uploaded(
    session: Session, dataset: DatasetInfo, storage: int | str
) -> tuple[RequestState, dict[str, Any]] | None:
    for upload in uploads.of_dataset(session, dataset.id):
        if storage not in (upload.storage_id, upload.storage):
            continue
        reply: dict[str, Any] = {
            "dataset": dataset.name,
            "storage": upload.storage,
            "files": upload.files_done,
            "size": upload.bytes_done,
        }
        if upload.state is UploadState.DONE:
            return RequestState.DONE, reply
        if is_final(upload.state):
            return RequestState.ERROR, reply | {"error": upload.reason, "code": str(upload.state)}
        return None
    raise NotFound("upload", f"of {dataset.name} to {storage}", "ask for it again")
