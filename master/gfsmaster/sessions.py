"""Exactly-once: the results of each client's last calls, and which files it has open.

A mutation carries (client id, call number, floor). The result is kept until the client says, by a higher floor, that it
has it (RIFL, SOSP'15 §3), so a retry after a lost reply or a takeover returns the first result (HDFS's retry cache).
Bounded: by the calls that a client may have unanswered, and by expiry in logged time.
"""

from collections.abc import Iterator
from typing import Final

from gfsprotocol.errors import CallForgotten
from gfsprotocol.messages import ReplyBody

SESSION_SECONDS: Final = 4 * 3600
"""A client that made no call for so long in logged time is forgotten.

Clients rely on an hour, which no call's deadline exceeds. Logged time is that of the leaders' wall clocks: the rest is
for clocks that jump, or differ from one leader to the next, by up to three hours.
"""
FRESH_SECONDS: Final = 3600
RESULTS_MAX: Final = 8192
"""Results kept per client, whatever its floor says."""


class Session:
    __slots__ = ("floor", "last_ns", "results")

    def __init__(self) -> None:
        self.floor = 0
        self.last_ns = 0
        self.results: dict[int, ReplyBody] = {}


class Sessions:
    """All clients' sessions, least recently used first."""

    def __init__(self) -> None:
        self.by_client: dict[bytes, Session] = {}

    def result(self, client: bytes, call: int, retry: bool) -> ReplyBody | None:
        """The result of a call that was made before; None if it is new. CallForgotten if that cannot be told."""
        session = self.by_client.get(client)
        if session is None:
            if retry and call > 1:
                raise CallForgotten("the call is a retry, but this client's calls are no longer known")
            return None
        if call < session.floor:
            raise CallForgotten(f"call {call} was already answered")
        return session.results.get(call)

    def is_fresh(self, client: bytes, time_ns: int) -> bool:
        """Whether the client will be known for far longer than it relies on."""
        session = self.by_client.get(client)
        return session is not None and session.last_ns >= time_ns - FRESH_SECONDS * 10**9

    def remember(self, client: bytes, call: int, floor: int, time_ns: int, result: ReplyBody) -> None:
        """Keeps a result, forgets what lies below the floor, and forgets clients that are long gone."""
        session = self.by_client.pop(client, None) or Session()
        self.by_client[client] = session
        session.last_ns = time_ns
        session.results[call] = result
        if floor > session.floor:
            for number in self._below(session, floor):
                del session.results[number]
            session.floor = floor
        while len(session.results) > RESULTS_MAX:
            oldest = next(iter(session.results))
            session.floor = max(session.floor, oldest + 1)
            del session.results[oldest]
        self._expire(time_ns)

    @staticmethod
    def _below(session: Session, floor: int) -> list[int]:
        """Calls are made in rising order, nearly: the old ones stand first."""
        if floor - session.floor > len(session.results):
            return [number for number in session.results if number < floor]
        return [number for number in range(session.floor, floor) if number in session.results]

    def _expire(self, time_ns: int) -> None:
        while self.by_client:
            client = next(iter(self.by_client))
            if self.by_client[client].last_ns >= time_ns - SESSION_SECONDS * 10**9:
                return
            del self.by_client[client]


class Writers:
    """Which client has which file open for writing, how often; by inode slot."""

    def __init__(self) -> None:
        self._by_inode: dict[int, dict[bytes, int]] = {}
        self._by_client: dict[bytes, set[int]] = {}

    def __len__(self) -> int:
        return len(self._by_inode)

    def count(self, inode: int) -> int:
        """How many clients have the file open for writing."""
        clients = self._by_inode.get(inode)
        return len(clients) if clients else 0

    def has(self, inode: int, client: bytes) -> bool:
        return client in self._by_inode.get(inode, ())

    def others(self, inode: int, client: bytes) -> bool:
        """Whether anyone else has it open: another client, or this one a second time."""
        return any(other != client or times > 1 for other, times in self._by_inode.get(inode, {}).items())

    def clients(self) -> list[bytes]:
        return list(self._by_client)

    def open(self, inode: int, client: bytes) -> None:
        clients = self._by_inode.setdefault(inode, {})
        clients[client] = clients.get(client, 0) + 1
        self._by_client.setdefault(client, set()).add(inode)

    def restore(self, inode: int, client: bytes, registrations: int) -> None:
        """What :meth:`items` gave of another one."""
        self.open(inode, client)
        self._by_inode[inode][client] = registrations

    def close(self, inode: int, client: bytes) -> None:
        """Ends one registration."""
        clients = self._by_inode[inode]
        clients[client] -= 1
        if clients[client]:
            return
        del clients[client]
        if not clients:
            del self._by_inode[inode]
        self._by_client[client].discard(inode)
        if not self._by_client[client]:
            del self._by_client[client]

    def files_of(self, client: bytes) -> list[int]:
        return sorted(self._by_client.get(client, ()))

    def forget_file(self, inode: int) -> None:
        """The file is gone."""
        for client in self._by_inode.pop(inode, {}):
            self._by_client[client].discard(inode)
            if not self._by_client[client]:
                del self._by_client[client]

    def inodes_after(self, inode: int) -> list[int]:
        return sorted(slot for slot in self._by_inode if slot > inode)

    def items(self) -> Iterator[tuple[int, bytes, int]]:
        """(inode slot, client, registrations), in a fixed order."""
        for inode in sorted(self._by_inode):
            for client in sorted(self._by_inode[inode]):
                yield inode, client, self._by_inode[inode][client]
