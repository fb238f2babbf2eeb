"""Files that stay the same for all jobs (a calibration table): stored and known to the catalog."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from catalog import files, storages
from catalog.checksums import SHA256, file_checksum
from catalog.db import Catalog
from catalog.drivers import driver_for
from catalog.errors import BadInput, Conflict, ErrorCode, StorageError
from catalog.files import NewFileRow
from catalog.inspection.settle import is_whole
from catalog.models import StorageRole
from workers.cwl.files import is_plain_name, local_path, sha1_of

SCOPE = "fixed"
"""Scope of the files that were stored for templates and inputs, named by their content."""


def store_files(catalog: Catalog, value: Any) -> Any:
    """A CWL value in which every local File is stored, and named by its `file_id`.

    Raises `BadInput` for a File that can't be read or isn't what its `size` or `checksum` say, and
    for a Directory.
    """
    if isinstance(value, Mapping):
        if value.get("class") == "Directory":
            raise BadInput("a Directory can't be a fixed input; pack it into one file (tar).")
        if value.get("class") == "File" and not {"file_id", "contents"} & value.keys():
            return _store(catalog, value)
        return {key: store_files(catalog, item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [store_files(catalog, item) for item in value]
    return value


def _store(catalog: Catalog, value: Mapping[str, Any]) -> dict[str, Any]:
    if value.get("secondaryFiles"):
        raise BadInput("a fixed File can't have secondaryFiles; pack them into one file (tar).")
    path = _local_path(value)
    _check(value, path)
    name = path.name if value.get("basename") is None else value["basename"]
    if not is_plain_name(name):
        raise BadInput(f"the basename {name!r} of file {str(path)!r} is no file name; correct it.")
    extra = {key: item for key, item in value.items() if key in ("format", "metadata")}
    file_id = store_file(catalog, path, name)
    return {"class": "File", "file_id": file_id, "basename": name, **extra}


def _check(value: Mapping[str, Any], path: Path) -> None:
    """Compare a file with what its File object says of it."""
    stated, found = value.get("checksum"), None
    if stated is not None and (found := sha1_of(str(path))) != str(stated).lower():
        raise BadInput(
            f"file {str(path)!r} has checksum {found}, and its File says {stated!r}; CWL writes "
            "sha1$ and the digest of the file that is meant. Correct it, or give that file."
        )
    size_bytes = path.stat().st_size
    if value.get("size") is not None and value["size"] != size_bytes:
        raise BadInput(
            f"file {str(path)!r} has {size_bytes} bytes, and its File says {value['size']!r}; "
            "correct the `size`, or give the file that is meant."
        )


def _local_path(value: Mapping[str, Any]) -> Path:
    text = value.get("path") or value.get("location") or ""
    found = local_path(text)
    if found is None:
        raise BadInput(f"file {text!r} can't be fetched from there; give a local path.")
    path = Path(found)
    if not path.is_file():
        raise BadInput(f"there is no file {str(path)!r}; give the path of one that exists.")
    return path.absolute()


def store_file(catalog: Catalog, path: Path, basename: str | None = None) -> int:
    """Put a local file on the internal storage, by its content, once; gives its id.

    Jobs see it under its own name, or under `basename`.

    Raises `Conflict` where other bytes lie at its place.
    """
    digest = file_checksum(path, SHA256)
    name = f"{digest.partition(':')[2]}/{basename or path.name}"
    with catalog.read() as session:
        storage = storages.default_for(session, StorageRole.INTERNAL)
    driver = driver_for(storage)
    row = NewFileRow(SCOPE, name, f"{SCOPE}/{name}", path.stat().st_size, digest)
    try:
        driver.put(path, row.path)
    except StorageError as error:
        if error.code is not ErrorCode.OUTPUT_EXISTS:
            raise
        if not is_whole(driver, row.path, row.size_bytes, digest):
            raise Conflict(
                f"storage {storage.name!r} has other bytes under {row.path!r}, where {path} would "
                "go; move them away from there."
            ) from error
    with catalog.write() as session:
        return files.register(session, storage.id, [row])[0]
