"""What a leader changes: applied to memory at once, given to the log, and each call exactly once.

Atomic between awaits: nothing here awaits, so a change is applied and queued for the log in one step.
"""

from collections.abc import Callable
from typing import Final

from gfsmaster import operations as op
from gfsmaster.commits import Committer
from gfsmaster.fleet import Fleet
from gfsmaster.leases import Leases
from gfsmaster.repair import Repair
from gfsmaster.state import State
from gfsprotocol import messages as msg
from gfsprotocol.channel import Clock
from gfsprotocol.errors import InvalidArgument, StateDiverged

DIGEST_RECORDS: Final = 1000
"""A state digest is logged after so many records."""


class Changes:
    """Makes records of operations, and knows the calls that have been made."""

    def __init__(
        self,
        state: State,
        committer: Committer,
        clock: Clock,
        fleet: Fleet,
        leases: Leases,
        repair: Repair,
        hears: Callable[[bytes], None],
        fail: Callable[[Exception], None],
        on_applied: Callable[[], None],
    ) -> None:
        """``hears`` is told which client has made a call, ``fail`` why this memory must not be used any more.

        ``on_applied`` is called after each record.
        """
        self._state = state
        self._committer = committer
        self._clock = clock
        self._fleet = fleet
        self._leases = leases
        self._repair = repair
        self._hears = hears
        self._fail = fail
        self._on_applied = on_applied
        self._since_digest = 0

    def known_result(self, client: bytes, call: msg.Call | None) -> msg.ReplyBody | None:
        """What the log has for a call that was made before. InvalidArgument without a number, Busy without room."""
        if call is None:
            raise InvalidArgument("a change needs a call number")
        self._committer.check_room()
        self._hears(client)
        return self._state.sessions.result(client, call.number, call.retry and not call.unknown_is_new)

    def now_ns(self) -> int:
        """The machine's clock, kept from going back: each record has a time of its own."""
        return max(self._clock.time_ns(), self._state.time_ns + 1)

    def record(
        self, operations: tuple[op.AnyOperation, ...], client: bytes = b"", call: msg.Call | None = None
    ) -> msg.ReplyBody:
        """Applies and logs operations; what they give. StateDiverged ends the leadership."""
        if call is None:
            record = op.Record(self.now_ns(), operations)
        else:
            record = op.Record(self.now_ns(), operations, client, call.number, call.floor)
        try:
            result = self._state.apply(record)
        except Exception as error:
            # Half applied and not logged: this memory is of no more use, and nothing may be answered from it.
            self._fail(error)
            raise StateDiverged(f"a planned change could not be applied: {type(error).__name__}: {error}") from error
        self._committer.submit(record)
        self._on_applied()
        self._state.revised.clear()
        if self._state.freed:
            self._free_chunks()
        self._since_digest += 1
        if self._since_digest >= DIGEST_RECORDS:
            self._since_digest = 0
            self.record((op.StateDigest(self._state.digest()),))
        return result

    def _free_chunks(self) -> None:
        for freed in self._state.freed:
            self._leases.forget(freed.slot)
            self._repair.forget_chunk(freed.slot)
            servers, version = self._fleet.forget_chunk(freed.slot, freed.version)
            self._committer.when_durable(
                lambda chunk=freed.chunk, version=version, servers=servers: self._fleet.delete(chunk, version, servers)  # type: ignore[misc]
            )
        self._state.freed.clear()
