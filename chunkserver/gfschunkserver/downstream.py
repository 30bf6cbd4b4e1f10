"""The next member of a chain: a connection to it, and what its failures mean to the writer."""

import logging
from collections.abc import Sequence
from typing import Final, TypeVar

from gfschunkserver.engine import Engine
from gfsprotocol import bulk
from gfsprotocol.bulk import Ack, CloseWrite, OpenWrite, ReplyHeader, RequestHeader, WriteClosed, WriteOpened
from gfsprotocol.bulksocket import BulkConnection, expect
from gfsprotocol.errors import (
    AlreadyExists,
    ConnectionLost,
    DeadlineExceeded,
    GfsError,
    LeaseLost,
    NoSpace,
    RemoteProtocolError,
    ReplicaFailed,
)
from gfsprotocol.messages import ServerAddress

log = logging.getLogger(__name__)

LAST_WORDS_SECONDS: Final = 1.0
_PASSED_ON: Final = (LeaseLost, NoSpace, ReplicaFailed, AlreadyExists)
"""Errors that say all there is to say; any other from a member means that the member failed."""

_Reply = TypeVar("_Reply", bound=ReplyHeader)


class Downstream:
    """A connection to a member of a grant. Every method raises an error that names the member that failed."""

    def __init__(self, engine: Engine, member: ServerAddress) -> None:
        self.member = member
        self._engine = engine
        self.connection: BulkConnection
        self.length = 0
        """Of the chunk there, or behind it, when the session was opened."""
        self._pieces: Sequence[bytes | memoryview] = ()
        """The first request, while it may have to be sent again."""
        self._seconds = 0.0
        self._is_fresh = False
        """Whether the connection was made for this request."""

    def call(self, request: RequestHeader, kind: type[_Reply], seconds: float) -> tuple[_Reply, int]:
        """The first request and its reply."""
        self.begin(seconds, bulk.encode(request))
        return self.end(kind)

    def begin(self, seconds: float, *pieces: bytes | memoryview) -> None:
        """Sends the first request, whose reply is for :meth:`end` to take.

        On an idle connection that turns out dead, now or then, it is sent again on a new one.
        """
        self._pieces, self._seconds = pieces, seconds
        self._is_fresh = False
        try:
            self._send_first()
        except ConnectionLost:
            self._send_again()
        except DeadlineExceeded as error:
            raise self.failed(error.message) from error

    def end(self, kind: type[_Reply]) -> tuple[_Reply, int]:
        """The reply to the first request, and how many bytes of payload follow it."""
        try:
            try:
                return self._receive(kind)
            except ConnectionLost as error:
                self.abandon()
                if self._is_fresh:
                    raise self.failed(error.message) from error
                self._send_again()
                return self._receive(kind)
        except ConnectionLost as error:
            self.abandon()
            raise self.failed(error.message) from error
        except GfsError as error:
            self.abandon()
            raise self._meaning(error) from error
        finally:
            self._pieces = ()

    def _send_first(self) -> None:
        try:
            self.connection = self._engine.peers.take(self.member.host, self.member.port, self._is_fresh, self._seconds)
        except GfsError as error:
            raise self.failed(error.message) from error
        try:
            self.connection.send_bytes(self._pieces)
        except GfsError:
            self.abandon()
            raise

    def _send_again(self) -> None:
        self._is_fresh = True
        try:
            self._send_first()
        except (ConnectionLost, DeadlineExceeded) as error:
            raise self.failed(error.message) from error

    def _receive(self, kind: type[_Reply]) -> tuple[_Reply, int]:
        reply, payload_bytes = self.connection.receive_reply()
        return expect(reply, kind, self.connection.peer), payload_bytes

    def send(self, seconds: float, *pieces: bytes | memoryview) -> None:
        """A frame, or a part of one."""
        try:
            self.connection.set_timeout(seconds)
            self.connection.send_bytes(pieces)
        except GfsError as error:
            raise self._last_words(error) from error

    def receive(self, kind: type[_Reply]) -> tuple[_Reply, int]:
        """The next reply and how many bytes of payload follow it."""
        try:
            reply, payload_bytes = self.connection.receive_reply()
            return expect(reply, kind, self.connection.peer), payload_bytes
        except GfsError as error:
            raise self._meaning(error) from error

    def receive_ack(self) -> Ack:
        return self.receive(Ack)[0]

    def finish(self, seconds: float) -> None:
        """Ends the write session and keeps the connection for another one."""
        self.send(seconds, bulk.encode(CloseWrite()))
        self.receive(WriteClosed)
        self.give_back()

    def give_back(self) -> None:
        self._engine.peers.give_back(self.member.host, self.member.port, self.connection)

    def abandon(self) -> None:
        self.connection.close()

    def failed(self, reason: str) -> ReplicaFailed:
        """The error that makes the master drop the member."""
        return ReplicaFailed(f"server {self.member.server:016x} failed: {reason}", str(self.member.server))

    def _meaning(self, error: GfsError) -> GfsError:
        if isinstance(error, _PASSED_ON):
            return error
        return self.failed(error.message)

    def _last_words(self, error: GfsError) -> GfsError:
        """A member that ends a session says why before it closes: that is better than "the connection broke"."""
        if not isinstance(error, ConnectionLost | DeadlineExceeded):
            return self._meaning(error)
        try:
            self.connection.set_timeout(LAST_WORDS_SECONDS)
            while True:
                self.connection.receive_reply()
        except (ConnectionLost, DeadlineExceeded, RemoteProtocolError) as silence:
            log.debug("no last words from %s: %s", self.connection.peer, silence.message)
            return self.failed(error.message)
        except GfsError as last_words:
            return self._meaning(last_words)


def open_downstream(engine: Engine, member: ServerAddress, request: OpenWrite, seconds: float) -> Downstream:
    """A write session with the next member."""
    downstream = Downstream(engine, member)
    opened, _ = downstream.call(request, WriteOpened, seconds)
    downstream.length = opened.length
    return downstream
