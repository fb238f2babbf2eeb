"""Whether a storage is the one that the catalog means: what its marker must say."""

from dataclasses import dataclass

from catalog.drivers import marker
from catalog.errors import ErrorCode, StorageError
from catalog.names import MARKER


@dataclass(frozen=True)
class Identity:
    """The id that the catalog has of a storage; once `marked` its marker was seen there."""

    id: str
    marked: bool


def require(
    storage: str, where: str, identity: Identity | None, found: bytes | None, *, marked: bool
) -> None:
    """Raise `StorageError` where a storage isn't itself, by the marker `found` there (None: none).

    Without `marked` one that never had a marker passes, too.
    """
    if found is None:
        if identity is not None and identity.marked:
            raise _away(
                f"storage {storage!r}: {where} is not what it was: its marker {MARKER} is not "
                "there (an empty mount point, another disk, a bucket made anew?); bring back what "
                f"was there, or say that this is it: `spdf storage mark {storage} --yes`."
            )
        if marked:
            raise _away(
                f"storage {storage!r} has no marker {MARKER} yet, so nobody knows whether {where} "
                f"is all of it; `spdf storage mark {storage}` makes it, or tells why it can't be."
            )
        return
    if identity is None:
        if marked:
            raise _away(
                f"storage {storage!r}: the catalog has not taken up the marker {MARKER} of {where} "
                f"yet; `spdf storage mark {storage}` does."
            )
        return
    try:
        there = marker.read(found).storage
    except ValueError as error:
        raise _away(
            f"storage {storage!r}: the marker {MARKER} of {where} is damaged ({error}); bring it "
            f"back from a copy, or have a new one: `spdf storage mark {storage} --yes`."
        ) from error
    if there != identity.id:
        raise _away(
            f"storage {storage!r}: {where} is another storage, by its marker {MARKER} ({there}, "
            f"not {identity.id}); mount or bring back the one that was there."
        )


def _away(message: str) -> StorageError:
    return StorageError(ErrorCode.STORAGE_UNAVAILABLE, message)
