"""``gfs log``: a look into the operation log, beside the running masters or without them."""

import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from gfsclient.cli.output import json_line, line, shown, table
from gfscluster import current, options
from gfscluster.layout import read_shape
from gfsmaster.databases import Access
from gfsmaster.operations import AnyOperation, Record
from gfsmaster.oplog import OperationLog, decode_batch
from gfsmaster.verification import verify as verify_log
from gfsprotocol.errors import ConfigurationError

_Command = TypeVar("_Command", bound=Callable[..., Any])
_TEXTS: Final = frozenset({"name", "new_name", "path", "target", "node"})
"""Fields of operations that are text for people; other bytes are shown in hexadecimal."""


@click.group("log")
def command() -> None:
    """The operation log: all metadata, as it came to be. Both commands only read, also while the cluster runs."""


def _journal_options(function: _Command) -> _Command:
    directory = click.option(
        "--dir",
        "directory",
        type=options.DIRECTORY,
        help="The directory of gfs up.  [default: the cluster that was started last]",
    )
    journal = click.option("--journal", help="The log's database, as the masters' setting has it.")
    return directory(journal(function))


@command.command("verify")
@_journal_options
def verify(directory: Path | None, journal: str | None) -> int:
    """Walks the hash chain, verifies all checkpoints, and replays the log from the oldest of them.

    Exit code 0: everything is as it was committed. 56: the log or a checkpoint is damaged. 59: the log leads to
    another state than the leader had.
    """
    with _opened(directory, journal) as log:
        findings = verify_log(log)
    rows = [(finding.what, finding.detail, "damaged" if finding.error else "good") for finding in findings]
    table(rows, ("WHAT", "EXTENT", "RESULT"))
    line()
    errors = [finding.error for finding in findings if finding.error is not None]
    if not errors:
        line("The log is good: every record is as it was committed, and leads to the state that the leader had.")
        return 0
    line(f"The log is NOT good: {errors[0].message}")
    return errors[0].exit_code


@command.command("dump")
@click.option("--from", "first", type=click.IntRange(min=1), default=1, show_default=True, help="The first record.")
@click.option("--to", "last", type=click.IntRange(min=1), help="The last record.  [default: the end of the log]")
@click.option("--json", "json", is_flag=True, help="One JSON object per record.")
@_journal_options
def dump(first: int, last: int | None, json: bool, directory: Path | None, journal: str | None) -> int:
    """Prints records, one per line. What was trimmed behind two checkpoints is not there any more."""
    with _opened(directory, journal) as log:
        for sequence, epoch, record in _records(log, first, last):
            if json:
                json_line(_as_json(sequence, epoch, record))
            else:
                line(_as_text(sequence, epoch, record))
    return 0


@contextmanager
def _opened(directory: Path | None, journal: str | None) -> Iterator[OperationLog]:
    log = OperationLog(_chosen_journal(directory, journal), "reader", Access.READ)
    try:
        log.check()
        yield log
    finally:
        log.close()


def _chosen_journal(directory: Path | None, journal: str | None) -> str:
    if directory is not None and journal is not None:
        raise click.UsageError("--dir and --journal exclude each other")
    if journal is not None:
        return journal
    if directory is None:
        file = current.client_file()
        if file is None:
            raise ConfigurationError("no cluster was started on this account: say which one with --dir or --journal")
        directory = file.parent
    place = options.existing(directory)
    file = place.config_file(read_shape(place).master_names[0])
    try:
        return str(tomllib.loads(file.read_text())["journal"])
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError) as error:
        raise ConfigurationError(f"{file} does not say where the journal is: {error}") from error


def _records(log: OperationLog, first: int, last: int | None) -> Iterator[tuple[int, int, Record]]:
    """Sequence, epoch and record, from the row that holds ``first`` on; a few rows at a time."""
    after, previous = max(0, log.row_of(first) - 1), None
    while batches := log.read(after, previous):
        for batch in batches:
            for sequence, record in enumerate(decode_batch(batch), start=batch.first):
                if last is not None and sequence > last:
                    return
                if sequence >= first:
                    yield sequence, batch.epoch, record
            after, previous = batch.last, batch.hash


def _as_text(sequence: int, epoch: int, record: Record) -> str:
    caller = f" client={record.client.hex()} call={record.call}" if record.client else ""
    operations = "; ".join(_operation_text(operation) for operation in record.operations)
    return f"{sequence} {_time_text(record.time_ns)} epoch={epoch}{caller}  {operations}"


def _operation_text(operation: AnyOperation) -> str:
    fields = " ".join(f"{name}={_field_text(value)}" for name, value in _fields(operation).items())
    return f"{type(operation).__name__} {fields}".rstrip()


def _field_text(value: object) -> str:
    return f"'{shown(value, always=True)}'" if isinstance(value, str) else str(value)


def _as_json(sequence: int, epoch: int, record: Record) -> dict[str, object]:
    operations = [{"operation": type(operation).__name__, **_fields(operation)} for operation in record.operations]
    return {
        "sequence": sequence,
        "time": _time_text(record.time_ns),
        "time_ns": record.time_ns,
        "epoch": epoch,
        "client": record.client.hex(),
        "call": record.call,
        "floor": record.floor,
        "operations": operations,
    }


def _fields(operation: AnyOperation) -> dict[str, Any]:
    """Names and values for people; what an operation leaves as it is is left out."""
    found: dict[str, Any] = {}
    for name in operation.__struct_fields__:
        value = getattr(operation, name)
        if isinstance(value, bytes):
            value = value.decode("utf-8", "surrogateescape") if name in _TEXTS else value.hex()
        elif name == "chunks":
            value = [dict(zip(item.__struct_fields__, _values(item), strict=True)) for item in value]
        elif isinstance(value, tuple):
            value = list(value)
        if value is not None:
            found[name] = value
    return found


def _values(item: Any) -> list[object]:
    return [getattr(item, name) for name in item.__struct_fields__]


def _time_text(time_ns: int) -> str:
    seconds, rest = divmod(time_ns, 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"
