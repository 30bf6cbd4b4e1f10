"""Requests and responses over a channel: batched, matched, bounded, and ended cleanly by whatever goes wrong."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from gfsprotocol import codec, rpc
from gfsprotocol import messages as msg
from gfsprotocol.channel import MemoryChannel, memory_pair
from gfsprotocol.errors import (
    AuthenticationFailed,
    Busy,
    ConnectionLost,
    DeadlineExceeded,
    InvalidArgument,
    LocalProtocolError,
    NotFound,
    RemoteProtocolError,
    VersionMismatch,
)
from tests.conftest import ExpectedLogs

KEY = b"k" * 32


class Echo:
    """Answers Stat with its path; keeps what it is told to keep."""

    def __init__(self) -> None:
        self.kept: list[tuple[rpc.Peer, msg.Request]] = []
        self.notices: list[msg.NoticeBody] = []

    def handle(self, peer: rpc.Peer, request: msg.Request) -> None:
        assert isinstance(request.body, msg.Stat)
        if request.body.path == b"keep":
            self.kept.append((peer, request))
        elif request.body.path == b"missing":
            raise NotFound("no such file")
        elif request.body.path == b"large":
            peer.respond(request.id, msg.Data(bytes(codec.FRAME_BYTES_MAX)))
        elif request.body.path == b"surrogate":
            peer.respond(request.id, msg.ErrorReply(1, "\udcff"))
        else:
            peer.respond(request.id, msg.Data(request.body.path), sequence=7)

    def notice(self, peer: rpc.Peer, body: msg.NoticeBody) -> None:
        self.notices.append(body)


class Pair:
    def __init__(self, near: rpc.Peer, far: rpc.Peer, echo: Echo, frames: list[int]) -> None:
        self.near, self.far, self.echo, self.frames = near, far, echo, frames


@contextlib.asynccontextmanager
async def connected() -> AsyncIterator[Pair]:
    left, right = memory_pair("client", "server")
    frames: list[int] = []
    send = left.send

    async def counted(frame: bytes) -> None:
        frames.append(len(codec.decode_frame(frame)))
        await send(frame)

    echo = Echo()
    accepting = asyncio.create_task(rpc.accept(right, "master", b"m", lambda _: KEY, echo))
    near = await rpc.connect(left, "client", b"c" * 16, KEY)
    far = await accepting
    left.send = counted  # type: ignore[method-assign]
    tasks = [asyncio.create_task(near.run()), asyncio.create_task(far.run())]
    try:
        yield Pair(near, far, echo, frames)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_calls_are_answered_each_with_its_own_reply() -> None:
    async with connected() as pair:
        replies = await asyncio.gather(*(pair.near.call(msg.Stat(b"%d" % n), 5) for n in range(1000)))
        assert [reply.body for reply in replies] == [msg.Data(b"%d" % n) for n in range(1000)]
        assert {reply.sequence for reply in replies} == {7}


async def test_what_is_queued_in_one_turn_leaves_as_one_frame() -> None:
    async with connected() as pair:
        await asyncio.gather(*(pair.near.call(msg.Stat(b"x"), 5) for _ in range(rpc.MESSAGES_PER_FRAME)))
        assert pair.frames == [rpc.MESSAGES_PER_FRAME]


async def test_an_error_is_raised_as_itself() -> None:
    async with connected() as pair:
        with pytest.raises(NotFound, match="no such file"):
            await pair.near.call(msg.Stat(b"missing"), 5)


async def test_a_call_ends_at_its_deadline_and_the_late_reply_hurts_no_one() -> None:
    async with connected() as pair:
        with pytest.raises(DeadlineExceeded):
            await pair.near.call(msg.Stat(b"keep"), 0.05)
        [(peer, request)] = pair.echo.kept
        peer.respond(request.id, msg.Data(b"late"))
        assert (await pair.near.call(msg.Stat(b"next"), 5)).body == msg.Data(b"next")


async def test_a_reply_larger_than_a_frame_fails_alone() -> None:
    async with connected() as pair:
        large = pair.near.call(msg.Stat(b"large"), 5)
        small = pair.near.call(msg.Stat(b"small"), 5)
        results = await asyncio.gather(large, small, return_exceptions=True)
        assert isinstance(results[0], LocalProtocolError)
        assert isinstance(results[1], msg.Response)


async def test_a_request_larger_than_a_frame_fails_alone() -> None:
    async with connected() as pair:
        with pytest.raises(LocalProtocolError):
            await pair.near.call(msg.Stat(bytes(codec.FRAME_BYTES_MAX)), 5)
        await pair.near.call(msg.Stat(b"x"), 5)


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1])
async def test_a_number_that_no_frame_can_hold_fails_alone(number: int) -> None:
    async with connected() as pair:
        before = pair.near.call(msg.Stat(b"x"), 5)
        bad = pair.near.call(msg.SetAttributes(b"/", size=number), 5)
        results = await asyncio.gather(before, bad, pair.near.call(msg.Stat(b"y"), 5), return_exceptions=True)
        assert [type(result) for result in results] == [msg.Response, InvalidArgument, msg.Response]


async def test_an_answer_that_no_frame_can_hold_is_an_error_for_who_asked() -> None:
    async with connected() as pair:
        with pytest.raises(InvalidArgument):
            await pair.near.call(msg.Stat(b"surrogate"), 5)
        await pair.near.call(msg.Stat(b"x"), 5)


async def test_unanswered_requests_are_bounded_on_both_sides() -> None:
    async with connected() as pair:
        waiting = [pair.near.submit(msg.Stat(b"keep"), 30) for _ in range(rpc.UNANSWERED_MAX)]
        with pytest.raises(Busy):
            await pair.near.submit(msg.Stat(b"x"), 5)
        while len(pair.echo.kept) < rpc.UNANSWERED_MAX:  # noqa: ASYNC110
            await asyncio.sleep(0)
        for peer, request in pair.echo.kept:
            peer.respond(request.id, msg.Done())
        await asyncio.gather(*waiting)
        await pair.near.call(msg.Stat(b"x"), 5)


async def test_a_broken_connection_fails_what_waits_and_what_comes() -> None:
    async with connected() as pair:
        waiting = pair.near.submit(msg.Stat(b"keep"), 30)
        while not pair.echo.kept:  # noqa: ASYNC110
            await asyncio.sleep(0)
        await pair.far.channel.close()
        with pytest.raises(ConnectionLost):
            await waiting
        with pytest.raises(ConnectionLost):
            await pair.near.call(msg.Stat(b"x"), 5)


async def test_garbage_ends_that_connection_with_a_log_line(expected_logs: ExpectedLogs) -> None:
    expected_logs("closing the connection to .*: a frame of 7 bytes cannot be read")
    async with connected() as pair:
        assert isinstance(pair.near.channel, MemoryChannel)
        await MemoryChannel.send(pair.near.channel, b"garbage")
        with pytest.raises(ConnectionLost):
            await pair.near.call(msg.Stat(b"x"), 5)


async def test_both_sides_may_call_and_notify() -> None:
    async with connected() as pair:
        with pytest.raises(RemoteProtocolError):
            await pair.far.call(msg.Stat(b"x"), 5)
        pair.near.notify(msg.Done())
        await pair.near.call(msg.Stat(b"x"), 5)
        assert pair.echo.notices == [msg.Done()]


async def handshake(near_key: bytes, far_key: bytes, role: str = "client") -> list[object]:
    left, right = memory_pair("client", "server")

    def key_of_role(role: str) -> bytes:
        if role != "client":
            raise AuthenticationFailed(f"no business here: {role}")
        return far_key

    return await asyncio.gather(
        rpc.connect(left, role, b"c" * 16, near_key),
        rpc.accept(right, "master", b"m", key_of_role, Echo()),
        return_exceptions=True,
    )


async def test_a_wrong_key_is_refused_on_both_sides() -> None:
    assert [type(result) for result in await handshake(KEY, b"other")] == [AuthenticationFailed, AuthenticationFailed]


async def test_a_peer_that_dies_in_the_handshake_has_not_refused_our_key() -> None:
    """Found by simulation seed 69: a client never asked a master again that had crashed at this moment."""
    left, right = memory_pair("client", "server")
    connecting = asyncio.create_task(rpc.connect(left, "client", b"c" * 16, KEY))
    await right.receive()
    await right.send(codec.encode_frame([msg.Hello(msg.PROTOCOL_VERSION, "master", b"m", b"n" * 16)]))
    await right.receive()
    await right.close()
    with pytest.raises(ConnectionLost):
        await connecting


async def test_a_role_without_business_is_refused() -> None:
    results = await handshake(KEY, KEY, role="stranger")
    assert isinstance(results[1], AuthenticationFailed)
    assert isinstance(results[0], ConnectionLost)


async def test_another_protocol_version_is_refused_by_name() -> None:
    left, right = memory_pair("client", "server")
    accepting = asyncio.create_task(rpc.accept(right, "master", b"m", lambda _: KEY, Echo()))
    await left.send(codec.encode_frame([msg.Hello(99, "client", b"c", b"n" * 16)]))
    with pytest.raises(VersionMismatch, match="version 99, this side speaks 1"):
        await accepting


async def test_a_request_before_the_handshake_is_refused() -> None:
    left, right = memory_pair("client", "server")
    accepting = asyncio.create_task(rpc.accept(right, "master", b"m", lambda _: KEY, Echo()))
    await left.send(codec.encode_frame([msg.Request(1, msg.Stat(b"/"), 5)]))
    with pytest.raises(RemoteProtocolError):
        await accepting
