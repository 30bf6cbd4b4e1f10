"""What clients were told, held against the log.

The log is the order of all changes. Each client makes one call at a time, so its calls must find their places in the
log one after the other: an acknowledged change at its one record, which was there when the answer came and not when the
call began, and with the very result that the client was told; a refusal or a read at a length of the log at which the
state gives the same answer. A leader's answer must fit a length between the call's beginning and its end
(linearizable); a standby's may be older, but never from before what the same client has seen.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from gfsclient.masters import MUTATIONS
from gfsmaster import operations as op
from gfsmaster.fleet import Fleet
from gfsmaster.oplog import Batch
from gfsmaster.planner import Planner
from gfsmaster.queries import Queries
from gfsmaster.state import State
from gfsprotocol import messages as msg
from gfsprotocol.errors import GfsError, NamespaceError
from gfsprotocol.messages import ReplyBody, RequestBody
from tests.simulation.registers import UNKNOWN, Operation, is_linearizable

USER: Final = (0, 0)
UNCHECKED: Final = (msg.AllocateChunk,)
"""Their answers depend on more than the log; only that they were done once is checked."""


@dataclass(slots=True)
class Entry:
    """One call of a client. ``low`` and ``high`` are the log's length when it began and when it was answered."""

    client: bytes
    body: RequestBody
    number: int
    """Of a change; 0 for a read."""
    at_standby: bool
    invoked: float
    low: int
    answered: float = UNKNOWN
    high: int = -1
    reply: ReplyBody | None = None
    error: GfsError | None = None

    @property
    def is_refused(self) -> bool:
        return isinstance(self.error, NamespaceError)

    @property
    def is_known(self) -> bool:
        return self.reply is not None or self.is_refused

    def __str__(self) -> str:
        if self.reply is not None:
            outcome = f"answered {type(self.reply).__name__}"
        else:
            outcome = f"{type(self.error).__name__}" if self.error is not None else "unanswered"
        return (
            f"call {self.number or '-'} of {self.client[:2].hex()}, {self.body}, from {self.invoked:.3f} s to "
            f"{self.answered:.3f} s, log {self.low} to {self.high}: {outcome}"
        )


class Broken(Exception):
    """An invariant does not hold."""

    def __init__(self, invariant: str, what: str) -> None:
        super().__init__(f"{invariant}: {what}")
        self.invariant = invariant
        self.what = what


class _Replay:
    """The state at each length of the log, and the answers that it gives."""

    def __init__(self) -> None:
        self.state = State()
        self._planner = Planner(self.state)
        self._queries = Queries(self.state, Fleet(self.state), self._planner.namespace, lambda _chunk, _version: b"")

    def explains(self, entry: Entry) -> bool:
        """Whether the state as it is gives the answer."""
        try:
            if self._queries.answers(entry.body):
                answer: object = self._queries.answer(entry.body, USER)
            else:
                answer = self._planner.plan(entry.body, USER, entry.client, self.state.time_ns + 1)
        except NamespaceError as error:
            return type(error) is type(entry.error)
        return entry.reply is not None and answer == entry.reply


def check(batches: Iterable[Batch], entries: Sequence[Entry]) -> State:
    """The state that the log makes. Broken if a client was told anything that it does not bear out."""
    waiting: dict[bytes, list[Entry]] = defaultdict(list)
    by_call: dict[tuple[bytes, int], Entry] = {}
    for entry in entries:
        if entry.number:
            by_call[entry.client, entry.number] = entry
        if entry.is_known and not (isinstance(entry.body, UNCHECKED)):
            waiting[entry.client].append(entry)
    for queue in waiting.values():
        queue.reverse()
    replay = _Replay()
    done: set[tuple[bytes, int]] = set()
    _place(replay, waiting)
    for batch in batches:
        for record in op.decode_records(batch.payload):
            result = replay.state.apply(record)
            replay.state.freed.clear()
            replay.state.revised.clear()
            if record.client and record.operations:
                _check_record(record, replay.state.sequence, result, done, by_call, waiting)
            _place(replay, waiting)
    for queue in waiting.values():
        if queue:
            kind = "no acknowledged write is lost" if queue[-1].reply and queue[-1].number else "reads and refusals"
            raise Broken(kind, f"nothing in the log bears out {queue[-1]}")
    return replay.state


def _check_record(
    record: op.Record,
    sequence: int,
    result: ReplyBody,
    done: set[tuple[bytes, int]],
    by_call: dict[tuple[bytes, int], Entry],
    waiting: dict[bytes, list[Entry]],
) -> None:
    key = (record.client, record.call)
    entry = by_call.get(key)
    if entry is None:
        raise Broken("only what was asked for", f"record {sequence} is of call {record.call} that no one made")
    if key in done:
        raise Broken("exactly once", f"record {sequence} is made once more for {entry}")
    done.add(key)
    if isinstance(record.operations[0], op.Answered):
        _check_answer(entry, sequence, result)
        return
    if entry.is_refused:
        raise Broken("nothing refused is applied", f"record {sequence} is made for {entry}")
    if sequence <= entry.low:
        raise Broken("only what was asked for", f"record {sequence} is older than {entry}")
    if entry.reply is None or isinstance(entry.body, UNCHECKED):
        return
    if sequence > entry.high:
        raise Broken("acknowledged is in the log", f"record {sequence} came after the answer to {entry}")
    if entry.reply != result:
        raise Broken("the first result is the answer", f"record {sequence} gave {result}, the client was told {entry}")
    queue = waiting[record.client]
    if not queue or queue[-1] is not entry:
        before = queue[-1] if queue else "nothing"
        raise Broken("reads and refusals", f"record {sequence} of {entry}: nothing before it bears out {before}")
    queue.pop()


def _check_answer(entry: Entry, sequence: int, result: ReplyBody) -> None:
    """A retry's answer that changed nothing is the one that the client got, if it got any."""
    told = entry.reply
    if entry.error is not None and entry.is_refused:
        told = msg.ErrorReply(entry.error.code, entry.error.message, entry.error.hint)
    if told is not None and told != result:
        raise Broken("the first result is the answer", f"record {sequence} remembers {result} for {entry}")


def _place(replay: _Replay, waiting: dict[bytes, list[Entry]]) -> None:
    """Finds out which answers fit the log as long as it is now."""
    sequence = replay.state.sequence
    for queue in waiting.values():
        while queue:
            entry = queue[-1]
            if sequence < entry.low and not entry.at_standby:
                break
            if replay.explains(entry):
                queue.pop()
            elif sequence >= entry.high:
                changed = entry.number and entry.reply is not None
                invariant = "no acknowledged write is lost" if changed else "reads and refusals"
                raise Broken(invariant, f"nothing in the log bears out {entry}")
            else:
                break


REGISTER_ATTRIBUTE: Final = b"user.value"


def check_registers(entries: Sequence[Entry]) -> None:
    """Broken unless the history of each register, seen through the leader, is linearizable."""
    histories: dict[bytes, list[Operation]] = defaultdict(list)
    for entry in entries:
        body = entry.body
        if isinstance(body, msg.SetXattr) and body.name == REGISTER_ATTRIBUTE and not entry.is_refused:
            answered = entry.answered if entry.is_known else UNKNOWN
            histories[body.path].append(Operation(True, body.value, entry.invoked, answered))
        elif isinstance(body, msg.GetXattr) and body.name == REGISTER_ATTRIBUTE and not entry.at_standby:
            if not entry.is_known:
                continue
            value = entry.reply.data if isinstance(entry.reply, msg.Data) else None
            histories[body.path].append(Operation(False, value, entry.invoked, entry.answered))
    for path, history in histories.items():
        if not is_linearizable(history):
            shown = "\n  ".join(str(operation) for operation in sorted(history, key=lambda known: known.invoked))
            raise Broken("registers are linearizable", f"{path.decode()}:\n  {shown}")


def is_change(body: RequestBody) -> bool:
    return type(body) in MUTATIONS
