"""The buckets of a site's default storages."""

import logging
from urllib.parse import urlsplit

import urllib3
from minio import Minio
from minio.error import MinioException, S3Error

from catalog.errors import Unavailable
from catalog.settings import Settings

log = logging.getLogger(__name__)

PREFIX = "spdf-"
_OWN = frozenset({"BucketAlreadyOwnedByYou", "BucketAlreadyExists"})


def bucket_url(settings: Settings, name: str) -> str:
    """Address of the bucket of a default storage."""
    return f"{settings.s3_url.rstrip('/')}/{PREFIX}{name}"


def ensure_bucket(settings: Settings, name: str) -> str:
    """Make the bucket of a default storage where there is none; gives its address.

    Raises `Unavailable` where the server can't be reached or refuses the login.
    """
    address = urlsplit(settings.s3_url)
    client = Minio(
        address.netloc,
        access_key=settings.s3_access_key.get_secret_value(),
        secret_key=settings.s3_secret_key.get_secret_value(),
        secure=address.scheme == "https",
        region=settings.s3_region,
        http_client=urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=5.0, read=30.0),
            retries=urllib3.Retry(total=1),
            ca_certs=str(settings.s3_ca_file) if settings.s3_ca_file else None,
        ),
    )
    try:
        if not client.bucket_exists(PREFIX + name):
            client.make_bucket(PREFIX + name)
            log.info("bucket made", extra={"bucket": PREFIX + name})
    except S3Error as error:
        if error.code not in _OWN:
            raise Unavailable(
                f"the S3 server {settings.s3_url} answered {error.code} for the bucket "
                f"{PREFIX}{name}; check SPDF_S3_ACCESS_KEY and SPDF_S3_SECRET_KEY."
            ) from error
    except (urllib3.exceptions.HTTPError, MinioException, OSError) as error:
        raise Unavailable(
            f"the S3 server {settings.s3_url} can't be reached; check SPDF_S3_URL and that it runs."
        ) from error
    return bucket_url(settings, name)
