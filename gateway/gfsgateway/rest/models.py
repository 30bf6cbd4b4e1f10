"""The JSON of the plain REST interface: what goes in is checked by these, what comes out is described by them."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema

from gfsprotocol.ids import NAME_BYTES_MAX, PATH_BYTES_MAX, REPLICATION_MAX, XATTR_VALUE_BYTES_MAX


def _absolute_path(value: object) -> str:
    """A path as we show it: bytes that are no UTF-8 are lone surrogates, which pydantic's own strings cannot hold."""
    if not isinstance(value, str) or not value.startswith("/"):
        raise ValueError("it should be an absolute path")
    if len(value) > PATH_BYTES_MAX:
        raise ValueError(f"it should have at most {PATH_BYTES_MAX} characters")
    return value


AbsolutePath = Annotated[
    str,
    PlainValidator(_absolute_path),
    WithJsonSchema(
        {"type": "string", "maxLength": PATH_BYTES_MAX, "pattern": "^/", "description": "An absolute path."}
    ),
]
UserNumber = Annotated[int, Field(ge=0, lt=2**32, description="A number, as the file system has users and groups.")]
Mode = Annotated[str, Field(pattern="^[0-7]{1,4}$", description="Permission bits, octal.")]
TimeNs = Annotated[int, Field(ge=-(2**62), le=2**62, description="Nanoseconds since the epoch.")]
Base64 = Annotated[str, Field(max_length=XATTR_VALUE_BYTES_MAX * 2, pattern="^[A-Za-z0-9+/]*={0,2}$")]
_XattrName = Annotated[str, Field(min_length=1, max_length=NAME_BYTES_MAX)]


class Answer(BaseModel):
    """Base of what we send."""


class Input(BaseModel):
    """Base of what we are sent."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Attributes(Answer):
    """What is known of a file, a directory or a link."""

    path: str = Field(description="Where it is. Bytes that are no UTF-8 are lone surrogates (PEP 383).")
    type: str = Field(description="file, directory, link, or other.")
    inode: int
    size: int = Field(description="Bytes.")
    mode: str = Field(description="Permission bits, octal.")
    uid: int
    gid: int
    links: int
    modified: str = Field(description="When the content was changed last, as RFC 3339 has times.")
    accessed_ns: int
    modified_ns: int
    changed_ns: int
    replication: int = Field(description="Copies of each chunk.")
    chunk_bytes: int
    open_writers: int = Field(description="How many clients have it open for writing.")
    etag: str = Field(description="As in the ETag header of the file.")


class AttributesWithXattrs(Attributes):
    """With extended attributes."""

    xattrs: dict[str, str] | None = Field(None, description="Their values in base64.")


class Entry(Attributes):
    """A line of a listing."""

    name: str


class Listing(Answer):
    """A page of a directory."""

    path: str
    entries: list[Entry]
    next: str | None = Field(description="The cursor of the next page; null at the end.")


class Appended(Answer):
    """Where appended bytes are."""

    offset: int = Field(description="Of the first byte that was appended.")
    size: int = Field(description="How many were.")


class RenameBody(Input):
    """A new name for a file or a directory."""

    source: AbsolutePath
    target: AbsolutePath
    replace: bool = Field(True, description="Whether a file, or an empty directory, at the target is replaced.")
    exchange: bool = Field(False, description="Source and target take each other's place.")


class CopyBody(Input):
    """A copy of a file."""

    source: AbsolutePath
    target: AbsolutePath
    replace: bool = Field(True, description="Whether a file at the target is replaced.")
    replication: int = Field(0, ge=0, le=REPLICATION_MAX, description="Copies of each chunk; 0: as usual there.")


class AttributesBody(Input):
    """What is to be changed; what is not there stays."""

    mode: Mode | None = None
    uid: UserNumber | None = None
    gid: UserNumber | None = None
    accessed_ns: TimeNs | None = None
    modified_ns: TimeNs | None = None
    replication: int | None = Field(None, ge=1, le=REPLICATION_MAX, description="Copies of each chunk.")
    xattrs: dict[_XattrName, Base64 | None] = Field(
        {}, max_length=100, description="Extended attributes to set, in base64, or, with null, to remove."
    )


class TrashEntry(Answer):
    """Something that can be brought back."""

    inode: int = Field(description="What it is called in the trash.")
    path: str = Field(description="Where it was.")
    type: str
    size: int
    uid: int
    deleted_ns: int
    expires_ns: int = Field(description="When it is removed for good.")


class Trash(Answer):
    """The trash."""

    entries: list[TrashEntry]


class RestoreBody(Input):
    """Where to put it."""

    path: AbsolutePath | None = Field(None, description="Where; by default where it was.")


class Removed(Answer):
    """How many were removed for good."""

    count: int


class Upload(Answer):
    """A resumable upload."""

    id: str
    path: str = Field(description="Where the file will be.")
    offset: int = Field(description="How many bytes have come: the next one's offset.")
    length: int | None = Field(description="How many are to come in all, if that was said.")
    href: str


class Server(Answer):
    """A chunk server."""

    id: str
    address: str
    alive: bool
    last_heartbeat_seconds: float
    chunks: int
    disks: list[dict[str, Any]]


class Status(Answer):
    """How the cluster is, as the leading master sees it."""

    leader: str
    epoch: int
    safe_mode: bool
    brake: str
    replication: int
    inodes: int
    chunks: int
    under_replicated: int
    missing: int
    corrupt_replicas: int
    total_bytes: int
    used_bytes: int
    free_bytes: int
    chunkservers: list[Server]


class Problem(Answer):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    code: int = Field(description="The wire code, as docs/errors.md lists them.")
    instance: str | None = Field(None, description="This occurrence, as in the gateway's logs.")
