"""Addresses: of storages, of databases that are files, and paths as people give them."""

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes, urlsplit

from catalog.errors import BadInput
from catalog.names import shown

_URI = "file:"


@dataclass(frozen=True)
class Place:
    """A storage's place on a server: `prefix` ends with `/` unless it is empty."""

    host: str
    secure: bool
    bucket: str
    prefix: str


def place_of(url: str) -> Place:
    """The parts of `http(s)://host[:port]/bucket[/prefix]`; raises `BadInput`."""
    wrong = BadInput(f"{url!r} is no S3 storage; write https://host:port/bucket or …/prefix.")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise wrong from None
    bucket, _, prefix = parts.path.strip("/").partition("/")
    if "@" in parts.netloc:
        raise BadInput(
            "the address of an S3 storage holds a login; leave it out, and give the login in "
            "SPDF_S3_ACCESS_KEY and SPDF_S3_SECRET_KEY."
        )
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or not bucket:
        raise wrong
    if parts.query or parts.fragment or ".." in prefix.split("/"):
        raise BadInput(f"{url!r} has more than host, bucket and prefix; leave the rest out.")
    return Place(parts.netloc, parts.scheme == "https", bucket, f"{prefix}/" if prefix else "")


def given_path(path: str | Path) -> Path:
    """A path as a person gave it, made absolute; raises `BadInput` for `~name` of nobody."""
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError as error:
        raise BadInput(f"{str(path)!r} begins with nobody's home directory; correct it.") from error


def kept_path(path: str | Path) -> Path:
    """A path that will be written down, made absolute; `BadInput` also for one that is no UTF-8."""
    found = given_path(path)
    try:
        str(found).encode()
    except UnicodeEncodeError as error:
        raise BadInput(
            f"the path {shown(str(found))} is no UTF-8, and can't be kept; "
            "rename it, or give another."
        ) from error
    return found


def sqlite_url(path: Path, scheme: str = "sqlite") -> str:
    """The SQLAlchemy URL of an SQLite file, whatever characters its path has.

    SQLAlchemy takes all but `?` as it stands, and has no way to quote that; SQLite's own URIs have.
    """
    if "?" not in str(path):
        return f"{scheme}:///{path}"
    return f"{scheme}:///{_URI}{quote(os.fsencode(path))}?uri=true"


def sqlite_path(database: str) -> Path:
    """The file that the `database` of an SQLAlchemy URL of SQLite means; see `sqlite_url`."""
    if not database.startswith(_URI):
        return Path(database)
    plain = database.removeprefix(_URI).removeprefix("//").partition("?")[0]
    return Path(os.fsdecode(unquote_to_bytes(plain)))
