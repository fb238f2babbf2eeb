"""Files that stay the same for all jobs (a calibration table): stored and known to the catalog."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from catalog import files, storages
from catalog.checksums import SHA256
from catalog.db import Catalog
from catalog.drivers import StorageDriver, driver_for, undo
from catalog.errors import BadInput, Conflict, ErrorCode, StorageError
from catalog.files import NewFileRow
from catalog.models import StorageRole
from catalog.stamps import Reading, read_file
from workers.cwl.files import is_plain_name, local_path, sha1_of

SCOPE = "fixed"
"""Scope of the files that were stored for templates and inputs, named by their content."""
_MOST_PLACES = 10


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

    Jobs see it under its own name, or under `basename`. What lies there already is read; other
    bytes stay, and the file gets a place of its own beside them. Raises `BadInput` for a file that
    changes meanwhile, `Conflict` where no place is free.
    """
    found = read_file(path, SHA256)
    if found.stamp is None:
        raise _changed(path)
    digest, own = found.checksum.partition(":")[2], basename or path.name
    size_bytes = found.stamp.size_bytes
    with catalog.read() as session:
        storage = storages.default_for(session, StorageRole.INTERNAL)
    driver = driver_for(storage)
    for number in range(_MOST_PLACES):
        place = f"{SCOPE}/{digest}.{number}/{own}" if number else f"{SCOPE}/{digest}/{own}"
        stored = _put(driver, path, place, size_bytes, found.checksum)
        if stored is not None:
            row = NewFileRow(
                SCOPE, f"{digest}/{own}", place, size_bytes, found.checksum, stored.stamp, read=True
            )
            with catalog.write() as session:
                return files.register(session, storage.id, [row])[0]
    raise Conflict(
        f"storage {storage.name!r} has other bytes under {place!r}, and in all places before it, "
        f"where {path} would go; move them away from there."
    )


def _put(
    driver: StorageDriver, path: Path, place: str, size_bytes: int, checksum: str
) -> Reading | None:
    """What was read of the file's bytes, at their place by now; None where others lie there."""
    try:
        stored = driver.put(path, place, checksum=SHA256)
    except StorageError as error:
        if error.code is not ErrorCode.OUTPUT_EXISTS:
            raise
        if driver.stat(place).size_bytes != size_bytes:
            return None
        there = driver.read(place, SHA256)
        return there if there.checksum == checksum else None
    if stored.checksum != checksum:
        undo(driver, [place])
        raise _changed(path)
    return Reading(checksum, stored.stamp)


def _changed(path: Path) -> BadInput:
    return BadInput(f"{path} changed while it was read; give it once it is complete.")
