"""The upload: a dataset's files to another storage, verified there, with its progress shown."""

import logging

import prefect
from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed, Failed

from catalog import schema, singletons, transfers, uploads
from catalog.counts import count_of
from catalog.db import get_catalog
from catalog.settings import get_settings
from catalog.states import UploadState, is_final
from catalog.uploads import UploadInfo
from flows.board import Board
from flows.roles import holding

log = logging.getLogger(__name__)

UPLOAD = "upload"
"""Name of the flow and its deployment; each upload has a lease of its own."""


@flow(name=UPLOAD, flow_run_name="upload-{upload}")
def run_upload(upload: int) -> State[str]:
    """Do an upload that was asked for, or go on with one whose run died."""
    catalog, settings = get_catalog(), get_settings()
    schema.require(catalog)
    assert settings.work_dir is not None
    board = Board(f"{UPLOAD}-{upload}")
    with holding(catalog, role_name(upload)) as role:
        if role is None:
            return Completed(message="another run does it")
        run_id = prefect.runtime.flow_run.id
        if run_id:
            with catalog.write() as session:
                uploads.set_flow_run(session, upload, str(run_id))
        info = transfers.transfer(
            catalog,
            upload,
            settings.work_dir / "uploads",
            progress=lambda info: board.show(percent(info), words(info)),
            threads=settings.upload_streams,
            until=lambda: role.lost,
        )
        board.show(percent(info), words(info), force=True)
    if is_final(info.state):
        with catalog.write() as session:
            singletons.forget(session, role_name(upload))
    if info.state is UploadState.DONE:
        return Completed(message=words(info))
    if info.state is UploadState.CANCELLED:
        return Cancelled(message=words(info))
    return Failed(message=words(info))


def role_name(upload: int) -> str:
    """Name of the lease that the one run of an upload has."""
    return f"{UPLOAD}:{upload}"


def percent(info: UploadInfo) -> float:
    """How much of an upload is done."""
    if info.state is UploadState.DONE or not info.size_bytes:
        return 100.0 if info.state is UploadState.DONE else 0.0
    return round(100.0 * info.bytes_done / info.size_bytes, 1)


def words(info: UploadInfo) -> str:
    """An upload in a sentence."""
    done = f"{info.files_done} of {count_of(info.files, 'file')}, "
    done += f"{info.bytes_done} of {info.size_bytes} bytes"
    why = f": {info.reason}" if info.reason else ""
    return f"{info.dataset} to {info.storage} is {info.state}, {done}{why}"
