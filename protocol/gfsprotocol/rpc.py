"""Requests and responses over a channel, batched: what is queued in one turn of the event loop leaves as one frame.

Both ends are the same :class:`Peer`; either may call. A service is a plain function that answers at once or keeps the
request and answers later (the master holds replies until the log has them), so no task is made per request.

Atomic between awaits: queueing, dispatch of a whole frame, and matching of responses. Bounded: requests that a peer may
have unanswered (beyond them we stop reading), calls of our own (``Busy``), frame sizes (codec).
"""

import asyncio
import hmac
import logging
import secrets
from collections.abc import Callable
from typing import Final, Protocol

from gfsprotocol import codec
from gfsprotocol.channel import Channel
from gfsprotocol.errors import (
    AuthenticationFailed,
    Busy,
    ConnectionLost,
    DeadlineExceeded,
    GfsError,
    InvalidArgument,
    LocalProtocolError,
    RemoteProtocolError,
    VersionMismatch,
    from_wire,
)
from gfsprotocol.messages import (
    PROTOCOL_VERSION,
    Call,
    ErrorReply,
    Hello,
    Message,
    Notice,
    NoticeBody,
    Proof,
    ReplyBody,
    Request,
    RequestBody,
    Response,
)

log = logging.getLogger(__name__)

UNANSWERED_MAX: Final = 4096
MESSAGES_PER_FRAME: Final = 512
HANDSHAKE_SECONDS: Final = 10.0
DEADLINE_SECONDS_MAX: Final = 3600.0
REFUSAL: Final = b""
"""The mac of an acceptor that does not accept the initiator's."""


class Service(Protocol):
    """Who answers a peer's requests."""

    def handle(self, peer: "Peer", request: Request) -> None:
        """Answers through ``peer.respond``, now or later, exactly once. A GfsError raised is the answer."""

    def notice(self, peer: "Peer", body: NoticeBody) -> None:
        """Takes a message that wants no answer."""


class NoService:
    """For a peer that only calls."""

    def handle(self, peer: "Peer", request: Request) -> None:  # noqa: ARG002
        raise RemoteProtocolError(f"this side answers no requests: {type(request.body).__name__}")

    def notice(self, peer: "Peer", body: NoticeBody) -> None:
        """Nothing is expected; newer peers may tell more."""


class Peer:
    """The other end of a channel after the handshake. ``run`` must be running for anything to move."""

    def __init__(self, channel: Channel, hello: Hello, service: Service) -> None:
        """``hello`` is what the other side said of itself."""
        self.channel = channel
        self.hello = hello
        self._service = service
        self._outbox: list[Message] = []
        self._outbox_filled = asyncio.Event()
        self._answered = asyncio.Event()
        self._pending: dict[int, tuple[asyncio.Future[Response], float]] = {}
        self._next_id = 1
        self._unanswered = 0
        self._lost: ConnectionLost | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._heard_at = 0.0
        self._waiting_since = 0.0
        self.queued = 0
        """Messages that were to be sent so far."""
        self.sent = 0
        """How many of them the channel has taken: it does not while the peer does not read."""
        self.state: object = None
        """For the service: what it knows about this peer."""

    @property
    def name(self) -> str:
        return f"{self.hello.role} at {self.channel.peer}"

    @property
    def is_lost(self) -> bool:
        return self._lost is not None

    @property
    def quiet_seconds(self) -> float:
        """For how long an answer has been waited for without hearing anything; 0 if none is waited for."""
        if not self._pending:
            return 0.0
        return asyncio.get_running_loop().time() - max(self._heard_at, self._waiting_since)

    def submit(
        self,
        body: RequestBody,
        deadline_seconds: float,
        user: tuple[int, ...] = (),
        call: Call | None = None,
        minimum_sequence: int = 0,
        at_standby: bool = False,
        confined: tuple[bytes, ...] = (),
    ) -> "asyncio.Future[Response]":
        """Queues a request; the future gets its response, or ConnectionLost, or DeadlineExceeded."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Response] = loop.create_future()
        if self._lost is not None:
            future.set_exception(self._lost)
            return future
        if len(self._pending) >= UNANSWERED_MAX:
            future.set_exception(Busy(f"{UNANSWERED_MAX} requests to {self.name} wait for an answer"))
            return future
        deadline_seconds = min(deadline_seconds, DEADLINE_SECONDS_MAX)
        deadline = loop.time() + deadline_seconds
        request_id = self._next_id
        self._next_id += 1
        if not self._pending:
            self._waiting_since = loop.time()
        self._pending[request_id] = (future, deadline)
        if self._sweeper is None or self._sweeper.when() > deadline:
            self._schedule_sweep(deadline)
        milliseconds = int(deadline_seconds * 1000)
        self._queue(Request(request_id, body, milliseconds, user, call, minimum_sequence, at_standby, confined))
        return future

    async def call(
        self,
        body: RequestBody,
        deadline_seconds: float,
        user: tuple[int, ...] = (),
        call: Call | None = None,
        minimum_sequence: int = 0,
    ) -> Response:
        """The response to a request; an error that the peer answers is raised as itself."""
        response = await self.submit(body, deadline_seconds, user, call, minimum_sequence)
        if isinstance(response.body, ErrorReply):
            raise from_wire(response.body.code, response.body.message, response.body.hint)
        return response

    def respond(self, request_id: int, body: ReplyBody, sequence: int = 0) -> None:
        """Answers a request. If the peer has gone, the answer goes nowhere: it will ask again elsewhere."""
        self._unanswered -= 1
        self._answered.set()
        self._queue(Response(request_id, body, sequence))

    def respond_error(self, request_id: int, error: GfsError, sequence: int = 0) -> None:
        self.respond(request_id, ErrorReply(error.code, error.message, error.hint), sequence)

    def notify(self, body: NoticeBody) -> None:
        """Sends a message that wants no answer."""
        self._queue(Notice(body))

    async def run(self) -> None:
        """Moves messages until the connection ends; returns then, and fails what still waits for an answer."""
        writer = asyncio.create_task(self._write())
        try:
            await self._read()
        except ConnectionLost as error:
            self._fail(error)
        except RemoteProtocolError as error:
            log.warning("closing the connection to %s: %s", self.name, error)
            self._fail(ConnectionLost(f"the connection to {self.name} was closed: {error}"))
        finally:
            self._fail(ConnectionLost(f"the connection to {self.name} was closed"))
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
            await self.channel.close()

    async def _read(self) -> None:
        while True:
            frame = await self.channel.receive()
            self._heard_at = asyncio.get_running_loop().time()
            for message in codec.decode_frame(frame):
                self._dispatch(message)
            while self._unanswered >= UNANSWERED_MAX:
                self._answered.clear()
                await self._answered.wait()

    def _dispatch(self, message: Message) -> None:
        match message:
            case Request():
                self._unanswered += 1
                try:
                    self._service.handle(self, message)
                except GfsError as error:
                    self.respond_error(message.id, error)
            case Response():
                waiting = self._pending.pop(message.id, None)
                if waiting is not None and not waiting[0].done():
                    waiting[0].set_result(message)
            case Notice():
                self._service.notice(self, message.body)
            case _:
                raise RemoteProtocolError(f"a {type(message).__name__} after the handshake")

    def _queue(self, message: Message) -> None:
        if self._lost is None:
            self._outbox.append(message)
            self.queued += 1
            self._outbox_filled.set()

    async def _write(self) -> None:
        try:
            while True:
                await self._outbox_filled.wait()
                self._outbox_filled.clear()
                batches, self._outbox = self._outbox, []
                for start in range(0, len(batches), MESSAGES_PER_FRAME):
                    batch = batches[start : start + MESSAGES_PER_FRAME]
                    for frame in self._frames(batch):
                        await self.channel.send(frame)
                    self.sent += len(batch)
        except ConnectionLost as error:
            self._fail(error)
            await self.channel.close()

    def _frames(self, messages: list[Message]) -> list[bytes]:
        """The messages as frames within the size limit; one that fits into none fails alone."""
        try:
            return [codec.encode_frame(messages)]
        except (LocalProtocolError, InvalidArgument) as error:
            if len(messages) > 1:
                middle = len(messages) // 2
                return self._frames(messages[:middle]) + self._frames(messages[middle:])
            message = messages[0]
            if isinstance(message, Response):
                return self._frames([Response(message.id, ErrorReply(error.code, error.message), message.sequence)])
            if isinstance(message, Request):
                waiting = self._pending.pop(message.id, None)
                if waiting is not None and not waiting[0].done():
                    waiting[0].set_exception(error)
                return []
            raise

    def _fail(self, error: ConnectionLost) -> None:
        if self._lost is not None:
            return
        self._lost = error
        if self._sweeper is not None:
            self._sweeper.cancel()
        for future, _ in self._pending.values():
            if not future.done():
                future.set_exception(error)
        self._pending.clear()
        self._answered.set()

    def _schedule_sweep(self, when: float) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._sweeper = asyncio.get_running_loop().call_at(when, self._sweep)

    def _sweep(self) -> None:
        """Fails the calls whose deadline has passed, and comes back for the next one."""
        self._sweeper = None
        now = asyncio.get_running_loop().time()
        for request_id, (future, deadline) in list(self._pending.items()):
            if future.done():
                del self._pending[request_id]
            elif deadline <= now:
                del self._pending[request_id]
                future.set_exception(DeadlineExceeded(f"{self.name} did not answer in time"))
        if self._pending:
            self._schedule_sweep(min(deadline for _, deadline in self._pending.values()))


# ------------------------------------------------------------------------------------------------------- handshake


def _proof(key: bytes, side: bytes, role: str, ours: bytes, theirs: bytes) -> bytes:
    return hmac.digest(key, b"gfs proof" + side + role.encode() + ours + theirs, "sha256")


async def connect(channel: Channel, role: str, name: bytes, key: bytes, service: Service | None = None) -> Peer:
    """The initiator's handshake: who we are, in exchange for proof of the same key. See docs/formats.md.

    Raises AuthenticationFailed, VersionMismatch, ConnectionLost or RemoteProtocolError, and closes the channel then.
    """
    try:
        async with asyncio.timeout(HANDSHAKE_SECONDS):
            nonce = secrets.token_bytes(16)
            await channel.send(codec.encode_frame([Hello(PROTOCOL_VERSION, role, name, nonce)]))
            hello = await _receive_hello(channel)
            await channel.send(codec.encode_frame([Proof(_proof(key, b"i", role, nonce, hello.nonce))]))
            await _receive_proof(channel, _proof(key, b"a", role, hello.nonce, nonce))
    except TimeoutError as error:
        await channel.close()
        raise ConnectionLost(f"{channel.peer} did not answer the hello") from error
    except GfsError:
        await channel.close()
        raise
    return Peer(channel, hello, service or NoService())


async def accept(
    channel: Channel, role: str, name: bytes, key_of_role: Callable[[str], bytes], service: Service
) -> Peer:
    """The acceptor's handshake; ``key_of_role`` raises AuthenticationFailed for a role that has no business here."""
    try:
        async with asyncio.timeout(HANDSHAKE_SECONDS):
            hello = await _receive_hello(channel)
            key = key_of_role(hello.role)
            nonce = secrets.token_bytes(16)
            await channel.send(codec.encode_frame([Hello(PROTOCOL_VERSION, role, name, nonce)]))
            try:
                await _receive_proof(channel, _proof(key, b"i", hello.role, hello.nonce, nonce))
            except AuthenticationFailed:
                # Said aloud: a connection that just ends is no refusal, its other end may have died.
                await channel.send(codec.encode_frame([Proof(REFUSAL)]))
                raise
            await channel.send(codec.encode_frame([Proof(_proof(key, b"a", hello.role, nonce, hello.nonce))]))
    except TimeoutError as error:
        await channel.close()
        raise ConnectionLost(f"{channel.peer} did not finish the hello") from error
    except GfsError:
        await channel.close()
        raise
    return Peer(channel, hello, service)


async def _receive_one(channel: Channel) -> Message:
    messages = codec.decode_frame(await channel.receive())
    if len(messages) != 1:
        raise RemoteProtocolError(f"a handshake frame holds {len(messages)} messages")
    return messages[0]


async def _receive_hello(channel: Channel) -> Hello:
    message = await _receive_one(channel)
    if not isinstance(message, Hello):
        raise RemoteProtocolError(f"a {type(message).__name__} instead of a hello")
    if message.protocol_version != PROTOCOL_VERSION:
        raise VersionMismatch(
            f"{channel.peer} speaks protocol version {message.protocol_version}, this side speaks {PROTOCOL_VERSION}"
        )
    if not 8 <= len(message.nonce) <= 64:
        raise RemoteProtocolError("the hello's nonce has a wrong size")
    return message


async def _receive_proof(channel: Channel, expected: bytes) -> None:
    message = await _receive_one(channel)
    if isinstance(message, Proof) and message.mac == REFUSAL:
        raise AuthenticationFailed(f"{channel.peer} refused our key: is it another cluster's?")
    if not isinstance(message, Proof) or not hmac.compare_digest(message.mac, expected):
        raise AuthenticationFailed(f"{channel.peer} does not know this cluster's key")
