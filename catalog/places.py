"""Addresses of storages."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from catalog.errors import BadInput


@dataclass(frozen=True)
class Place:
    """A storage's place on a server: `prefix` ends with `/` unless it is empty."""

    host: str
    secure: bool
    bucket: str
    prefix: str


def place_of(url: str) -> Place:
    """The parts of `http(s)://host[:port]/bucket[/prefix]`; raises `BadInput`."""
    parts = urlsplit(url)
    bucket, _, prefix = parts.path.strip("/").partition("/")
    if "@" in parts.netloc:
        raise BadInput(
            "the address of an S3 storage holds a login; leave it out, and give the login in "
            "SPDF_S3_ACCESS_KEY and SPDF_S3_SECRET_KEY."
        )
    if parts.scheme not in ("http", "https") or not parts.hostname or not bucket:
        raise BadInput(f"{url!r} is no S3 storage; write https://host:port/bucket or …/prefix.")
    if parts.query or parts.fragment or ".." in prefix.split("/"):
        raise BadInput(f"{url!r} has more than host, bucket and prefix; leave the rest out.")
    return Place(parts.netloc, parts.scheme == "https", bucket, f"{prefix}/" if prefix else "")
