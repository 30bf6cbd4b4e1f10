"""The operation log: durable, fenced, chained; damage is named and never passed over."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from gfsmaster import operations as op
from gfsmaster.oplog import GENESIS_HASH, Batch, Leadership, OperationLog, chain
from gfsmaster.processes import own_identity
from gfsmaster.state import State
from gfsprotocol import messages as msg
from gfsprotocol.errors import ConfigurationError, ForeignStore, LogDamaged, LogFailed, LogFenced, UnsupportedFormat
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
        self.log.append(batch)
        self.sequence, self.hash = last, batch.hash
        return batch


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


@pytest.fixture
def log(path: Path) -> Iterator[OperationLog]:
    journal = OperationLog(f"sqlite:///{path}", "one")
    assert journal.prepare(genesis=True)
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


def test_only_the_leader_of_the_epoch_appends(log: OperationLog, path: Path) -> None:
    writer = Writer(log)
    first = lead(log)
    writer.append(first)
    other = OperationLog(f"sqlite:///{path}", "two")
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
    other.close()


def test_of_two_candidates_one_wins(log: OperationLog, path: Path) -> None:
    other = OperationLog(f"sqlite:///{path}", "two")
    seen = log.leadership()
    assert log.campaign(seen, "host:1") == Leadership(1, "one", "host:1", 1, own_identity())
    assert other.campaign(seen, "host:2") is None
    other.close()


def test_a_beat_defeats_a_candidate_who_looked_before_it(log: OperationLog, path: Path) -> None:
    other = OperationLog(f"sqlite:///{path}", "two")
    epoch = lead(log)
    seen = other.leadership()
    log.renew(epoch)
    assert other.campaign(seen, "host:2") is None
    other.close()


def test_a_flipped_bit_is_refused_with_the_records_named(log: OperationLog, path: Path) -> None:
    writer = Writer(log)
    epoch = lead(log)
    for _ in range(5):
        writer.append(epoch, 2)
    payload = bytearray(log.read(0, GENESIS_HASH)[2].payload)
    payload[len(payload) // 2] ^= 1
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE log SET payload = ? WHERE first = 5", (bytes(payload),))
    with pytest.raises(LogDamaged, match="records 5 to 6"):
        log.read(0, GENESIS_HASH)


@pytest.mark.parametrize("column", ["last", "epoch", "hash"])
def test_a_changed_column_is_refused(log: OperationLog, path: Path, column: str) -> None:
    writer = Writer(log)
    epoch = lead(log)
    for _ in range(3):
        writer.append(epoch)
    with sqlite3.connect(path) as connection:
        value = "zeroblob(32)" if column == "hash" else f"{column} + 1"
        connection.execute(f"UPDATE log SET {column} = {value} WHERE first = 2")
    with pytest.raises(LogDamaged, match="records 2 to"):
        log.read(0, GENESIS_HASH)


def test_a_missing_row_is_refused(log: OperationLog, path: Path) -> None:
    writer = Writer(log)
    epoch = lead(log)
    for _ in range(3):
        writer.append(epoch)
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM log WHERE first = 2")
    with pytest.raises(LogDamaged, match="do not follow record 1"):
        log.read(0, GENESIS_HASH)


def test_an_empty_database_needs_genesis(tmp_path: Path) -> None:
    journal = OperationLog(f"sqlite:///{tmp_path / 'new.sqlite'}", "one")
    with pytest.raises(ForeignStore, match="genesis"):
        journal.prepare(genesis=False)
    journal.close()


def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE customers (name TEXT)")
    journal = OperationLog(f"sqlite:///{path}", "one")
    with pytest.raises(ForeignStore, match="customers"):
        journal.prepare(genesis=True)
    journal.close()


def test_a_newer_format_is_refused(log: OperationLog, path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE meta SET value = 'gfs operation log 2' WHERE name = 'format'")
    with pytest.raises(UnsupportedFormat, match="operation log 2"):
        log.prepare(genesis=False)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "garbage.sqlite"
    path.write_bytes(b"garbage " * 1000)
    journal = OperationLog(f"sqlite:///{path}", "one")
    with pytest.raises(LogFailed, match="not a database"):
        journal.prepare(genesis=True)
    journal.close()


def test_an_unusable_address_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be used"):
        OperationLog("nonsense", "one")


def test_an_append_that_fails_is_an_unknown_outcome(log: OperationLog, path: Path) -> None:
    writer = Writer(log)
    epoch = lead(log)
    writer.append(epoch)
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TRIGGER full BEFORE INSERT ON log BEGIN SELECT RAISE(ABORT, 'disk is full'); END")
    beat = log.leadership().beat
    with pytest.raises(LogFailed, match="disk is full"):
        writer.append(epoch)
    assert log.leadership().beat == beat
    assert len(log.read(0, GENESIS_HASH)) == 1


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
