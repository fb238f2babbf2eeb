"""The client of an S3 server: its address, its login, and what its errors mean for a storage."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from xml.etree.ElementTree import ParseError

import urllib3
from minio import Minio
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError
from pydantic import SecretStr

from catalog.drivers.s3pool import ConditionalPool, GaveUp
from catalog.errors import ErrorCode, StorageError
from catalog.places import Place
from catalog.settings import Settings

DENIED = frozenset(
    {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "AccountProblem",
     "InvalidSecurity", "ExpiredToken", "InvalidToken", "RequestTimeTooSkewed"}
)  # fmt: skip
_ABSENT = frozenset({"NoSuchKey", "NoSuchObject", "ResourceNotFound", "MethodNotAllowed"})
_TAKEN = frozenset({"PreconditionFailed", "ConditionalRequestConflict"})
_FULL = frozenset(
    {"QuotaExceeded", "XMinioStorageFull", "InsufficientStorage", "XMinioAdminBucketQuotaExceeded",
     "ServiceQuotaExceededException"}
)  # fmt: skip


@dataclass(frozen=True)
class Login:
    """Who an S3 server is to take us for."""

    access_key: str
    secret_key: SecretStr


def login_of(settings: Settings, storage: str) -> Login:
    """The login for a storage: its own, or the one for all; raises `StorageError`."""
    own = settings.s3_logins.get(storage)
    if own is not None:
        access_key, _, secret_key = own.get_secret_value().partition(":")
        login = Login(access_key, SecretStr(secret_key))
    else:
        login = Login(settings.s3_access_key.get_secret_value(), settings.s3_secret_key)
    if not login.access_key or not login.secret_key.get_secret_value():
        raise StorageError(
            ErrorCode.STORAGE_DENIED,
            f"storage {storage!r} is on S3, and there is no login for it; set SPDF_S3_ACCESS_KEY "
            "and SPDF_S3_SECRET_KEY, or its own in SPDF_S3_LOGINS.",
        )
    return login


def connect(place: Place, login: Login, settings: Settings) -> Minio:
    """A client whose writes never replace an object; it makes no request yet."""
    return Minio(
        place.host,
        access_key=login.access_key,
        secret_key=login.secret_key.get_secret_value(),
        secure=place.secure,
        region=settings.s3_region,
        http_client=ConditionalPool(settings),
    )


@contextmanager
def explained(storage: str, place: Place, path: str, *, client: Minio) -> Iterator[None]:
    """Give every error of the client its code. No message holds anything of the login."""
    try:
        yield
    except S3Error as error:
        raise _of_answer(storage, place, path, error, client) from None
    except GaveUp as error:
        hint = "look after it if that lasts" if error.met.answers else "check that it runs"
        raise _unavailable(storage, place, f"{error}; {hint}") from None
    except ServerError as error:
        raise _unavailable(storage, place, f"answered {error.status_code}") from None
    except (InvalidResponseError, ParseError) as error:
        status = f"{error._code} " if isinstance(error, InvalidResponseError) else ""
        told = f"answered {status}what is no S3 server's; check its address"
        raise _unavailable(storage, place, told) from None
    except (urllib3.exceptions.HTTPError, MinioException) as error:
        raise _unavailable(storage, place, f"can't be asked ({error})") from None


def _unavailable(storage: str, place: Place, what: str) -> StorageError:
    return StorageError(
        ErrorCode.STORAGE_UNAVAILABLE, f"storage {storage!r}: the S3 server {place.host} {what}."
    )


def _of_answer(
    storage: str, place: Place, path: str, error: S3Error, client: Minio
) -> StorageError:
    what = f"storage {storage!r}: {path!r} in bucket {place.bucket!r} of {place.host}"
    code, status = error.code or "", getattr(error.response, "status", 0)
    if code == "NoSuchBucket" or (code in _ABSENT and not _has_bucket(client, place)):
        return StorageError(
            ErrorCode.STORAGE_GONE,
            f"storage {storage!r}: its bucket {place.bucket!r} is not on {place.host} any more; "
            "bring it back.",
        )
    # A quota is told with the status of a refused login.
    if code == "EntityTooLarge":
        return StorageError(
            ErrorCode.OUTPUT_INVALID, f"{what}: larger than an object may be there."
        )
    if code in _FULL or status == 507:
        return StorageError(ErrorCode.STORAGE_FULL, f"{what}: {code}; free some space there.")
    if code in DENIED or status in (401, 403):
        return StorageError(
            ErrorCode.STORAGE_DENIED,
            f"{what}: it refuses the login ({code}); correct SPDF_S3_ACCESS_KEY and "
            "SPDF_S3_SECRET_KEY, or what the login may do.",
            of_path=True,
        )
    if code in _TAKEN or status == 412:
        return StorageError(
            ErrorCode.OUTPUT_EXISTS, f"{what} is there already; nothing is ever overwritten."
        )
    if code in _ABSENT or status == 404:
        return StorageError(ErrorCode.INPUT_MISSING, f"{what}: the bytes are not there.")
    return StorageError(
        ErrorCode.STORAGE_UNAVAILABLE,
        f"{what}: the server answered {code or status}.",
        of_path=status < 500,
    )


def _has_bucket(client: Minio, place: Place) -> bool:
    """Whether the bucket is there, as far as the server says so: a HEAD's 404 doesn't tell."""
    try:
        return bool(client.bucket_exists(place.bucket))
    except (MinioException, urllib3.exceptions.HTTPError):
        return True


def is_full(error: OSError) -> bool:
    """Whether a disk of this machine has no space left."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
