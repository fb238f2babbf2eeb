"""Work that goes on for longer than a transaction: which it is, and how it has ended."""

from typing import Any

from sqlmodel import Session

from catalog import datasets, uploads
from catalog.datasets import DatasetInfo
from catalog.refs import RequestKind as Kind
from catalog.requests.queue import RequestInfo
from catalog.states import DatasetState, RequestState, UploadState, is_final

_LONG = frozenset({Kind.DATASET_DELETE, Kind.DATASET_UPLOAD})


def is_long(kind: str) -> bool:
    """Whether a request of that kind is answered only when others have done its work."""
    return kind in _LONG


def outcome(session: Session, info: RequestInfo) -> tuple[RequestState, dict[str, Any]] | None:
    """The answer to a request whose work was begun; None while it goes on."""
    reference = info.payload["datasetId"]
    dataset = (
        datasets.get(session, reference)
        if isinstance(reference, int)
        else datasets.by_name(session, reference)
    )
    if info.kind == Kind.DATASET_DELETE:
        gone = dataset.state is DatasetState.DELETED
        return (RequestState.DONE, {"dataset": dataset.name}) if gone else None
    return _uploaded(session, dataset, info.payload["storageId"])


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
    return None
