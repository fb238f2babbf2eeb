"""The six kinds of request: a model of each, which is its JSON Schema and its check."""

import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
)
from pydantic.alias_generators import to_camel

from catalog import durations
from catalog.checksums import normalise
from catalog.counts import count_of
from catalog.errors import BadInput
from catalog.names import MAX_PATH, check_name, check_path
from catalog.outage import printable
from catalog.refs import RequestKind as Kind

MOST_FILES = 10_000
"""Files that one request may name; more go in several."""
MOST_KEY = 500
MOST_NUMBER = 2**63 - 1
"""The largest number that a catalog keeps."""
_MOST_TEXT = 1000
_MOST_TOLD = 100
_CONTROL = re.compile("[\x00-\x1f\x7f]")


class Verify(StrEnum):
    """How far a file's bytes are looked at before it is registered."""

    NONE = "none"
    SIZE = "size"
    CHECKSUM = "checksum"


def _printable(text: str) -> str:
    if _CONTROL.search(text):
        raise ValueError("it holds control characters")
    return text


Count = Annotated[int, Field(ge=0, le=MOST_NUMBER)]
Id = Annotated[int, Field(ge=1, le=MOST_NUMBER)]
Text = Annotated[str, Field(min_length=1, max_length=_MOST_TEXT), AfterValidator(_printable)]
Reference = Annotated[Id | Text, Field(union_mode="left_to_right")]
"""An id of the catalog, or a name."""


class _Model(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        alias_generator=to_camel,
        validate_by_name=False,
        validate_by_alias=True,
    )


class FileEntry(_Model):
    """A file whose bytes lie on a storage already; its name is its path there."""

    storage_id: Reference = Field(description="Id or name of the storage.")
    path: str = Field(max_length=MAX_PATH, description="Relative to the storage.")
    size: Count = Field(description="Bytes.")
    checksum: Text | None = Field(
        None, description="`algorithm:hex` (md5, adler32, sha256); without one the file is read."
    )
    name: str | None = Field(
        None, max_length=MAX_PATH, description="Its name in the dataset; by default its path."
    )

    @field_validator("path")
    @classmethod
    def _path(cls, path: str) -> str:
        return _sentence(lambda: check_path("path", path))

    @field_validator("name")
    @classmethod
    def _name(cls, name: str | None) -> str | None:
        return name if name is None else _sentence(lambda: check_path("file name", name))

    @field_validator("checksum")
    @classmethod
    def _checksum(cls, checksum: str | None) -> str | None:
        return checksum if checksum is None else _sentence(lambda: normalise(checksum))


class MadeFile(FileEntry):
    """A file made by processing: who made it knows its checksum."""

    checksum: Text = Field(description="`algorithm:hex` (md5, adler32, sha256).")


class Reread(FileEntry):
    """A file that is known: it is read with the catalog's algorithm, too, if not as it was.

    `mtime_us` is its copy's stamp, with which it is believed; None: it is read in any case.
    """

    algorithm: str
    mtime_us: int | None = None


class RequestDocument(_Model):
    """What all requests have."""

    kind: str
    key: Annotated[str, AfterValidator(_printable)] = Field(
        min_length=1,
        max_length=MOST_KEY,
        description="The sender's own: the same key again is the same request.",
    )

    @property
    def dataset(self) -> int | str:
        """The dataset that it is about, by id or name."""
        raise NotImplementedError

    @property
    def file_count(self) -> int:
        """How many files it names."""
        return 0

    @property
    def payload(self) -> dict[str, Any]:
        """The document as JSON, without its kind, its key, and what it leaves as it is."""
        return self.model_dump(
            mode="json", by_alias=True, exclude={"kind", "key"}, exclude_defaults=True
        )


class _OfDataset(RequestDocument):
    dataset_id: Reference = Field(description="Id or name of the dataset.")

    @property
    def dataset(self) -> int | str:
        """See `RequestDocument`."""
        return self.dataset_id


class _OfFiles(_OfDataset):
    files: list[Any]
    verify: Verify = Field(
        Verify.SIZE,
        strict=False,
        description="What is compared with the bytes: nothing, their number, or their checksum.",
    )

    @property
    def file_count(self) -> int:
        """See `RequestDocument`."""
        return len(self.files)


class FileInput(_OfFiles):
    """New files in an input buffer: register them, and attach them to an OPEN dataset.

    All of them, or none where one can't be.
    """

    kind: Literal["file.input"]
    files: list[FileEntry] = Field(min_length=1, max_length=MOST_FILES)


class FileProcess(_OfFiles):
    """Files that were made outside: register them, and attach them to an OPEN dataset.

    All of them, or none where one can't be.
    """

    kind: Literal["file.process"]
    files: list[MadeFile] = Field(min_length=1, max_length=MOST_FILES)


class DatasetInput(RequestDocument):
    """A new OPEN dataset."""

    kind: Literal["dataset.input"]
    name: Text
    lifetime: Text | None = Field(
        None, description="It is deleted so long after its close: 90s, 30m, 12h, 7d."
    )
    hold: bool = Field(False, description="It is not closed before its sender says so.")
    sender: Text | None = Field(None, description="Who holds it, as it calls itself.")

    @property
    def dataset(self) -> int | str:
        """See `RequestDocument`."""
        return self.name

    @field_validator("name")
    @classmethod
    def _name(cls, name: str) -> str:
        return _sentence(lambda: check_name("dataset", name))

    @field_validator("lifetime")
    @classmethod
    def _lifetime(cls, lifetime: str | None) -> str | None:
        if lifetime is not None:
            _sentence(lambda: str(durations.seconds(lifetime, "lifetime")))
        return lifetime


class DatasetClose(_OfDataset):
    """Close a dataset for good, whoever else fills it.

    With `fileCount` or `own` it is closed once all others who fill it have ended, too.
    """

    kind: Literal["dataset.close"]
    file_count_expected: Count | None = Field(
        None,
        alias="fileCount",
        description="Files that it will have: it stays OPEN until these are there.",
    )
    within: Text | None = Field(
        None, description="Time in which they come, or it is told: 90s, 30m, 12h, 7d."
    )
    own: bool = Field(False, description="Only its sender has ended.")
    sender: Text | None = Field(None, description="Who has ended, as it calls itself.")

    @field_validator("within")
    @classmethod
    def _within(cls, within: str | None) -> str | None:
        if within is not None:
            _sentence(lambda: str(durations.seconds(within, "within")))
        return within


class DatasetUpload(_OfDataset):
    """Copy a CLOSED dataset to another storage; answered when all of it is there, verified."""

    kind: Literal["dataset.upload"]
    storage_id: Reference = Field(description="Id or name of the storage that it goes to.")


class DatasetDelete(_OfDataset):
    """Delete a dataset, and the bytes of files that no other dataset holds; answered when gone.

    The bytes of files that were registered where they lay stay.
    """

    kind: Literal["dataset.delete"]
    remove_originals: bool = Field(
        False, description="These go, too; only where SPDF_REQUESTS_REMOVE_ORIGINALS allows it."
    )


KINDS: Mapping[Kind, type[RequestDocument]] = {
    Kind.FILE_INPUT: FileInput,
    Kind.FILE_PROCESS: FileProcess,
    Kind.DATASET_INPUT: DatasetInput,
    Kind.DATASET_CLOSE: DatasetClose,
    Kind.DATASET_UPLOAD: DatasetUpload,
    Kind.DATASET_DELETE: DatasetDelete,
}
_ADAPTERS = {kind: TypeAdapter(model) for kind, model in KINDS.items()}


def parse(document: Any, where: str = "the request") -> RequestDocument:
    """The request that a JSON document is; raises `BadInput`, which says `where` and the field."""
    if not isinstance(document, Mapping):
        raise BadInput(f'{where} is no JSON object; write one, such as {{"kind": …}}.')
    kind = document.get("kind")
    if not isinstance(kind, str) or kind not in _ADAPTERS:
        told = printable(repr(kind)[:_MOST_TOLD])
        raise BadInput(f"{where} has the kind {told}; kinds are {', '.join(Kind)}.")
    try:
        return _ADAPTERS[Kind(kind)].validate_python(dict(document))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field, told = _place(first["loc"]), first["msg"].removeprefix("Value error, ").rstrip(".")
        others = error.error_count() - 1
        more = f" (and {count_of(others, 'more fault')})" if others else ""
        field = printable(field if len(field) <= _MOST_TOLD else f"{field[:_MOST_TOLD]}…")
        raise BadInput(
            f"{where}: {field}: {printable(told)}{more}; `spdf request schema {kind}` shows its "
            "form."
        ) from error


def schema_of(kind: Kind) -> dict[str, Any]:
    """The JSON Schema of a kind."""
    shape = KINDS[kind].model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **shape}


def _place(steps: tuple[int | str, ...]) -> str:
    text = ""
    for step in steps:
        if isinstance(step, int):
            text += f"[{step}]"
        elif not step.startswith(("constrained-", "function-after")) and step not in ("int", "str"):
            text += f".{step}" if text else step
    return text or "the document"


def _sentence(check: Callable[[], str]) -> str:
    """What a check gives; its sentence as the error that pydantic knows."""
    try:
        return check()
    except BadInput as error:
        raise ValueError(str(error)) from error
