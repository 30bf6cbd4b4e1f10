"""The operation log: durable, fenced, chained; damage is named and never passed over."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gfsmaster import operations as op
from gfsmaster.oplog import GENESIS_HASH, Batch, Leadership, OperationLog, chain
from gfsmaster.state import State
from gfsprotocol import messages as msg
from gfsprotocol.errors import (
    ConfigurationError,
    ForeignStore,
    LogDamaged,
    LogFailed,
    LogFenced,
    LogOutdated,
    UnsupportedFormat,
)
from tests.journals import execute
from tests.master.machine import Machine


class Writer:
    """Appends rows of records as the leader does."""

    def __init__(self, log: OperationLog) -> None:
        self.log = log
        self.sequence = 0
        self.hash = GENESIS_HASH

    def append(self, epoch: int, records: int = 1, payload: bytes | None = None) -> Batch:
        record = op.encode_record(op.Record(1, (op.BeginEpoch(epoch, "n"),)))
        payload = op.join_records([record] * records) if payload is None else payload
        first, last = self.sequence + 1, self.sequence + records
        batch = Batch(first, last, epoch, chain(self.hash, first, last, epoch, payload), payload)
        self.log.append(batch, self.hash)
        self.sequence, self.hash = last, batch.hash
        return batch


@pytest.fixture
def log(journal_url: str) -> Iterator[OperationLog]:
    journal = OperationLog(journal_url, "one")
    assert journal.prepare(genesis=True)
    yield journal
    journal.close()


@pytest.fixture
def other(journal_url: str) -> Iterator[OperationLog]:
    """The same log, as another node sees it."""
    journal = OperationLog(journal_url, "two")
    yield journal
    journal.close()


def lead(log: OperationLog) -> int:
    won = log.campaign(log.leadership(), "host:1")
    assert won is not None
    return won.epoch


def test_what_was_appended_is_read_back(log: OperationLog) -> None:
    writer = Writer(log)
    epoch = lead(log)
    batches = [writer.append(epoch, records) for records in (1, 3, 600, 1)]
    assert log.read(0, GENESIS_HASH) == batches
    assert log.read(batches[1].last, batches[1].hash) == batches[2:]


def test_only_the_leader_of_the_epoch_appends(log: OperationLog, other: OperationLog) -> None:
    writer = Writer(log)
    first = lead(log)
    writer.append(first)
    second = lead(other)
    with pytest.raises(LogFenced):
        writer.append(first)
    with pytest.raises(LogFenced):
        log.renew(first)
    with pytest.raises(LogFenced):
        writer.append(second)  # the right epoch, but another node holds it
    log.resign(first)
    assert other.leadership().holder == "two"
    assert len(log.read(0, GENESIS_HASH)) == 1


def test_of_two_candidates_one_wins(log: OperationLog, other: OperationLog) -> None:
    seen = log.leadership()
    won = log.campaign(seen, "host:1")
    assert won is not None
    assert won == Leadership(1, "one", "host:1", 1, won.process) == other.leadership()
    assert won.process
    assert other.campaign(seen, "host:2") is None


def test_a_beat_defeats_a_candidate_who_looked_before_it(log: OperationLog, other: OperationLog) -> None:
    epoch = lead(log)
    seen = other.leadership()
    log.renew(epoch)
    assert other.campaign(seen, "host:2") is None


def test_a_flipped_bit_is_refused_with_the_records_named(log: OperationLog, journal_url: str) -> None:
    writer = Writer(log)
    epoch = lead(log)
    for _ in range(5):
        writer.append(epoch, 2)
    payload = bytearray(log.read(0, GENESIS_HASH)[2].payload)
    payload[len(payload) // 2] ^= 1
    execute(journal_url, "UPDATE log SET payload = :payload WHERE first = 5", payload=bytes(payload))
    with pytest.raises(LogDamaged, match="records 5 to 6"):
        log.read(0, GENESIS_HASH)


@pytest.mark.parametrize("column", ["last", "epoch", "hash"])
def test_a_changed_column_is_refused(log: OperationLog, journal_url: str, column: str) -> None:
    writer = Writer(log)
    epoch = lead(log)
    for _ in range(3):
        writer.append(epoch)
    changed = ":zeros" if column == "hash" else f"{column} + 1"
    zeros = {"zeros": bytes(32)} if column == "hash" else {}
    execute(journal_url, f"UPDATE log SET {column} = {changed} WHERE first = 2", **zeros)
    with pytest.raises(LogDamaged, match="records 2 to"):
        log.read(0, GENESIS_HASH)


def test_a_missing_row_is_refused(log: OperationLog, journal_url: str) -> None:
    writer = Writer(log)
    epoch = lead(log)
    for _ in range(3):
        writer.append(epoch)
    execute(journal_url, "DELETE FROM log WHERE first = 2")
    with pytest.raises(LogDamaged, match="do not follow record 1"):
        log.read(0, GENESIS_HASH)


def test_an_empty_database_needs_genesis(other: OperationLog) -> None:
    with pytest.raises(ForeignStore, match="genesis"):
        other.prepare(genesis=False)


def test_another_programs_database_is_refused_and_left_alone(journal_url: str, other: OperationLog) -> None:
    execute(journal_url, "CREATE TABLE customers (name TEXT)")
    with pytest.raises(ForeignStore, match="customers"):
        other.prepare(genesis=True)
    with pytest.raises(ForeignStore, match="customers"):
        other.prepare(genesis=True)


def test_masters_that_begin_at_once_make_one_log(journal_url: str) -> None:
    logs = [OperationLog(journal_url, f"node-{number}") for number in range(4)]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda log: log.prepare(genesis=True), logs)) == [True] * 4
    assert [tuple(row) for row in execute(journal_url, "SELECT id, epoch FROM leadership")] == [(1, 0)]
    for log in logs:
        log.close()


def test_a_newer_format_is_refused(log: OperationLog, journal_url: str) -> None:
    execute(journal_url, "UPDATE meta SET value = 'gfs operation log 2' WHERE name = 'format'")
    with pytest.raises(UnsupportedFormat, match="operation log 2"):
        log.prepare(genesis=False)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "garbage.sqlite"
    path.write_bytes(b"garbage " * 1000)
    journal = OperationLog(f"sqlite:///{path}", "one")
    with pytest.raises(LogFailed, match="not a database"):
        journal.prepare(genesis=True)
    journal.close()


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "postgresql+psycopg://gfs:secret@host:port/db",
        "postgresql+psycopg://gfs:sec@ret@host:port/db?password=secret",
        "postgresql+pg8000://gfs:secret@host/db",
        "mysql://gfs:secret@host/db",
    ],
)
def test_an_unusable_address_is_one_line_without_its_password(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        OperationLog(url, "one")
    assert "\n" not in caught.value.message
    assert "secret" not in caught.value.message
    assert caught.value.__cause__ is None


def test_an_append_that_fails_is_an_unknown_outcome(log: OperationLog, journal_url: str) -> None:
    writer = Writer(log)
    epoch = lead(log)
    writer.append(epoch)
    if journal_url.startswith("sqlite"):
        body = "BEGIN SELECT RAISE(ABORT, 'disk is full'); END"
    else:
        raises = "BEGIN RAISE disk_full USING MESSAGE = ''disk is full''; END"
        execute(journal_url, f"CREATE FUNCTION full() RETURNS trigger LANGUAGE plpgsql AS '{raises}'")
        body = "FOR EACH ROW EXECUTE FUNCTION full()"
    execute(journal_url, f"CREATE TRIGGER full_disk BEFORE INSERT ON log {body}")
    beat = log.leadership().beat
    with pytest.raises(LogFailed, match="disk is full"):
        writer.append(epoch)
    assert log.leadership().beat == beat
    assert len(log.read(0, GENESIS_HASH)) == 1


def test_nothing_is_appended_to_an_older_copy_of_the_log(log: OperationLog, journal_url: str) -> None:
    """The fence does not help here: the older copy has the same epoch."""
    writer = Writer(log)
    epoch = lead(log)
    for _ in range(4):
        writer.append(epoch)
    execute(journal_url, "DELETE FROM log WHERE first > 2")
    with pytest.raises(LogOutdated, match="up to record 4: that one is not in it, its last one is 2"):
        writer.append(epoch)
    assert len(log.read(0, GENESIS_HASH)) == 2


def test_a_reader_who_knows_more_than_the_log_is_told(log: OperationLog, journal_url: str) -> None:
    writer = Writer(log)
    epoch = lead(log)
    before = [writer.append(epoch) for _ in range(4)][1]
    assert log.read(writer.sequence, writer.hash) == []
    execute(journal_url, "DELETE FROM log WHERE first > 2")
    with pytest.raises(LogOutdated, match="its last one is 2"):
        log.read(writer.sequence, writer.hash)
    elsewhere = Writer(log)
    elsewhere.sequence, elsewhere.hash = before.last, before.hash
    for _ in range(3):
        elsewhere.append(epoch, payload=b"another history")
    with pytest.raises(LogOutdated, match="its last one is 5"):
        log.read(writer.sequence, writer.hash)  # it goes on, but from another record 4
    execute(journal_url, "DELETE FROM log WHERE first > 4")
    with pytest.raises(LogOutdated, match="its last one is 4"):
        log.read(writer.sequence, writer.hash)
    execute(journal_url, "DELETE FROM log")
    with pytest.raises(LogOutdated, match="its last one is 0"):
        log.read(writer.sequence, writer.hash)


def test_two_runs_of_the_same_log_give_the_same_digest() -> None:
    machine = Machine()
    for number in range(50):
        machine.do(msg.Create(b"/file-%d" % number))
        machine.do(msg.Mkdir(b"/directory-%d" % number))
    runs = []
    for _ in range(2):
        state = State()
        for record in op.decode_records(op.join_records(machine.records)):
            state.apply(record)
        runs.append(state.digest())
    assert runs[0] == runs[1] == machine.state.digest()
