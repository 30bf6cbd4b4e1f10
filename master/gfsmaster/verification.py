"""Does the operation log say what the masters know? Reads all of it, changes nothing, and may run beside them.

Three independent proofs: the hash chain (every row is what was committed, in its place), the state digests in the log
(applying it gives what the leader had), and the checkpoints (their bytes, the digest recomputed from every object in
them, and that the log leads to the same state).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from gfsmaster import operations as op
from gfsmaster.checkpoints import Checkpoint
from gfsmaster.oplog import GENESIS_HASH, OperationLog, decode_batch
from gfsmaster.state import State
from gfsprotocol.errors import GfsError, LogDamaged, StateDiverged, UnsupportedFormat

PASSES_MAX: Final = 3
"""The masters may publish a checkpoint and trim the log meanwhile: what seems damaged then is looked at again."""


@dataclass(slots=True)
class Finding:
    """What was looked at, and what was found wrong with it, if anything."""

    what: str
    detail: str
    error: GfsError | None = None


def verify(log: OperationLog) -> list[Finding]:
    """All of it, in order. LogFailed if the database cannot be reached."""
    for _ in range(PASSES_MAX):
        before = log.checkpoints.published(), log.first()
        findings = _Pass(log).run(*before)
        if not any(finding.error for finding in findings) or before == (log.checkpoints.published(), log.first()):
            break
    return findings


class _Pass:
    def __init__(self, log: OperationLog) -> None:
        self._log = log
        self._findings: list[Finding] = []
        self._state: State | None = None
        """Where the replay stands."""
        self._log_hash = GENESIS_HASH
        self._digests = 0

    def run(self, published: list[Checkpoint], first: int) -> list[Finding]:
        if first <= 1:
            self._state = State()
        for checkpoint in reversed(published):
            self._check(
                f"checkpoint at record {checkpoint.sequence}",
                f"{checkpoint.parts} parts, {checkpoint.size_bytes:,} bytes, epoch {checkpoint.epoch}",
                partial(self._load, checkpoint),
            )
        state = self._state
        if state is None:
            damage = LogDamaged(f"it begins with record {first}, and no intact checkpoint has what was before")
            self._findings.append(Finding("log", f"from record {first}", damage))
            return self._findings
        begun = state.sequence
        marks = {checkpoint.sequence: checkpoint for checkpoint in published if checkpoint.sequence > begun}
        finding = self._check("log", "", partial(self._replay, state, marks))
        finding.detail = f"records {begun + 1} to {state.sequence}, epoch {state.epoch}, {self._digests} digests"
        return self._findings

    def _check(self, what: str, detail: str, look: Callable[[], None]) -> Finding:
        finding = Finding(what, detail)
        self._findings.append(finding)
        try:
            look()
        except (LogDamaged, StateDiverged, UnsupportedFormat) as error:
            finding.error = error
        return finding

    def _load(self, checkpoint: Checkpoint) -> None:
        """Verifies it; the oldest one that is good is where the replay begins, unless the log has its beginning."""
        state = self._log.checkpoints.load(checkpoint)
        if state.recomputed_digest() != checkpoint.digest:
            raise LogDamaged(f"the objects in the checkpoint at record {checkpoint.sequence} have another digest")
        if self._state is None:
            self._state, self._log_hash = state, checkpoint.log_hash

    def _replay(self, state: State, marks: dict[int, Checkpoint]) -> None:
        """To the end of the log, which leads to the checkpoints in ``marks`` on the way."""
        while batches := self._log.read(state.sequence, self._log_hash):
            for batch in batches:
                for record in decode_batch(batch):
                    state.apply(record)
                    self._digests += any(isinstance(operation, op.StateDigest) for operation in record.operations)
                state.freed.clear()
                state.revised.clear()
                self._log_hash = batch.hash
                if batch.last in marks:
                    self._compare(state, marks.pop(batch.last))
        if marks:
            raise LogDamaged(f"no row of the log ends with record {min(marks)}, where there is a checkpoint")

    def _compare(self, state: State, checkpoint: Checkpoint) -> None:
        if (state.digest(), self._log_hash) != (checkpoint.digest, checkpoint.log_hash):
            raise StateDiverged(
                f"the log leads to another state than the checkpoint at record {checkpoint.sequence} has"
            )
