"""Asks single masters, for status and start-up: unlike a client it wants to know about each, not about the leader."""

import asyncio
import contextlib
import secrets

import aiohttp

from gfsprotocol import network, rpc
from gfsprotocol.errors import ConnectionLost, GfsError, RemoteProtocolError, Unreachable
from gfsprotocol.messages import ClusterStatus, ReplyBody, RequestBody, Status

ROOT = (0, 0)
"""The operator's command speaks as root: whoever holds the cluster's key could."""


async def ask(address: str, key: bytes, body: RequestBody, deadline_seconds: float) -> ReplyBody:
    """One request to one master. Raises what it answers, or ConnectionLost or AuthenticationFailed."""
    async with aiohttp.ClientSession() as session:
        channel = await network.dial(session, address, deadline_seconds)
        peer = await rpc.connect(channel, "client", secrets.token_bytes(16), key)
        runner = asyncio.create_task(peer.run())
        try:
            return (await peer.call(body, deadline_seconds, ROOT)).body
        finally:
            await peer.channel.close()
            runner.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await runner


async def statuses(addresses: list[str], key: bytes, deadline_seconds: float) -> dict[str, Status | GfsError]:
    """What each master says of itself, or why it says nothing."""

    async def one(address: str) -> Status | GfsError:
        try:
            async with asyncio.timeout(deadline_seconds):
                answer = await ask(address, key, ClusterStatus(), deadline_seconds)
        except TimeoutError:
            return ConnectionLost(f"{address} does not answer")
        except GfsError as error:
            return error
        return answer if isinstance(answer, Status) else RemoteProtocolError(f"{address} answers without a status")

    return dict(zip(addresses, await asyncio.gather(*map(one, addresses)), strict=True))


async def ask_leader(addresses: list[str], key: bytes, body: RequestBody, deadline_seconds: float) -> ReplyBody:
    """One request to whichever master leads. Unreachable if none does, naming each with its answer."""
    answers = await statuses(addresses, key, deadline_seconds)
    leader = find_leader(answers)
    if leader is None:
        raise Unreachable(f"no master leads: {complaints(answers)}")
    return await ask(leader, key, body, deadline_seconds)


def find_leader(answers: dict[str, Status | GfsError]) -> str | None:
    """The address of the master that leads with the highest epoch."""
    leaders = [
        (answer.epoch, address)
        for address, answer in answers.items()
        if isinstance(answer, Status) and answer.role == "leader"
    ]
    return max(leaders)[1] if leaders else None


def complaints(answers: dict[str, Status | GfsError]) -> str:
    """Why none of the masters leads, in one line."""
    return "; ".join(
        answer.message if isinstance(answer, GfsError) else f"{address} is {answer.role}"
        for address, answer in answers.items()
    )
