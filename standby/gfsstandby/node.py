"""One master node: it follows the log, and leads when it wins an election.

    follow ──the leader has resigned, is gone, or its beat stood still for a lease; the epoch was won──▶ lead
    lead ──resigned, or cut off from everybody──▶ follow, with the state that it has
    lead ──LogFenced, LogFailed──▶ everything is dropped, follow from the log again, if it has what was committed

No wall clocks are compared: a standby watches the leader's beat counter in the log's database on its own monotonic
clock. Sockets, signals and the database are :mod:`gfsstandby.process`'s: what is here runs in a simulation as well.
"""

import asyncio
import contextlib
import logging
import os
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

from gfsmaster import operations as op
from gfsmaster.config import MasterConfig
from gfsmaster.isolation import ABSTAIN_LEASES
from gfsmaster.journal import Journal
from gfsmaster.leader import Leader, Resigned
from gfsmaster.measures import Measures
from gfsmaster.oplog import GENESIS_HASH, Leadership
from gfsprotocol import messages as msg
from gfsprotocol import rpc
from gfsprotocol.channel import Clock
from gfsprotocol.errors import (
    AuthenticationFailed,
    Busy,
    GfsError,
    LogFailed,
    LogFenced,
    LogLocked,
    NotFound,
)
from gfsprotocol.tokens import client_key, server_key, token_key
from gfsstandby.checkpointer import Checkpointer, Source
from gfsstandby.follower import Follower
from gfsstandby.service import StandbyService
from gfsstandby.tailing import Dial, Tailing

log = logging.getLogger(__name__)

ROOT_MODE: Final = 0o1777
"""The root of a new cluster, like /tmp: anyone may begin, no one may remove another's."""
NOBODY: Final = Leadership(-1, "", "", -1)

EndHolder = Callable[[Leadership], Awaitable[str]]
"""Ends what still holds the log's lock for a leader that has stopped; what was done, for people."""


def _first_of(group: ExceptionGroup) -> Exception:
    """What a node ends by: the first of our own errors, or the group if there is none.

    Not by ``except*``, which wraps what is raised in it into a group again before Python 3.11.4.
    """
    return next((error for error in group.exceptions if isinstance(error, GfsError)), group)


class Node:
    """A master node, and an rpc.Service."""

    def __init__(
        self,
        config: MasterConfig,
        clock: Clock,
        secret: bytes,
        journal: Journal,
        dial: Dial,
        end_holder: EndHolder,
        randomness: random.Random,
        checkpointer: Checkpointer | None = None,
        measures: Measures | None = None,
    ) -> None:
        """``randomness`` spreads candidates; it guards nothing. Without a ``checkpointer`` none are written here."""
        self.config = config
        self.clock = clock
        self._keys = {"client": client_key(secret), "chunkserver": server_key(secret), "master": server_key(secret)}
        self._token_key = token_key(secret)
        self._journal = journal
        self._dial = dial
        self._end_holder = end_holder
        self._random = randomness
        self._checkpointer = checkpointer
        self.measures = measures or Measures()
        self.leader: Leader | None = None
        self.follower: Follower
        self._tailing: Tailing
        self._standby: StandbyService
        self._peers: dict[rpc.Peer, None] = {}
        """In the order in which they came: what is done to all of them is done in that order."""
        self._stopping = asyncio.Event()
        self._led_epoch = 0
        """The last epoch that this process has led."""
        self._abstains_until = 0.0
        """Until then (monotonic seconds), or until somebody speaks to us, it does not stand: it was cut off."""
        self._cautious_until = 0.0
        """Until then (monotonic seconds) it leaves it to others to stand before the lease is over: it has failed."""
        self._follow_anew(0, GENESIS_HASH)

    def _follow_anew(self, committed: int, last_hash: bytes) -> None:
        """From the log's beginning, which is to have what this process has committed."""
        self.follower = Follower(self._journal, self.clock, (committed, last_hash))
        self._tailing = Tailing(
            self.follower,
            self.clock,
            self._dial,
            self._keys["master"],
            self.config.node,
            self.config.address,
            self.config.lease_seconds,
        )
        self._standby = StandbyService(
            self.config, self.clock, self._token_key, self.follower, self._tailing, self.measures
        )

    # ------------------------------------------------------------------------------------------------------- service

    def handle(self, peer: rpc.Peer, request: msg.Request) -> None:
        """rpc.Service: the leader's, or the standby's."""
        if self.leader is None:
            self._abstains_until = 0.0  # whoever speaks to us shows that we are not cut off
        kind = type(request.body)
        self.measures.requests[kind] += 1
        try:
            (self.leader or self._standby).handle(peer, request)
        except GfsError as error:
            self.measures.failures[kind, error.code] += 1
            raise

    def notice(self, peer: rpc.Peer, body: msg.NoticeBody) -> None:
        """rpc.Service: no one has notices for a master."""

    def key_of_role(self, role: str) -> bytes:
        """What proves a role. AuthenticationFailed for one that has no business here."""
        key = self._keys.get(role)
        if key is None:
            raise AuthenticationFailed(f"'{role}' is not a role that talks to a master")
        return key

    @property
    def connections(self) -> int:
        return len(self._peers)

    def roles_connected(self) -> Counter[str]:
        """How many connections there are of each role."""
        return Counter(peer.hello.role for peer in self._peers)

    async def serve(self, peer: rpc.Peer) -> None:
        """Runs a peer's connection to its end."""
        self._peers[peer] = None
        try:
            await peer.run()
        finally:
            self._peers.pop(peer, None)
            (self.leader or self._standby).disconnected(peer)

    def status(self) -> msg.Status:
        return (self.leader or self._standby).status()

    def digest(self) -> tuple[int, bytes]:
        """The state's digest, and the record up to which it is; of a leader, that may not be committed yet."""
        state = self.leader.state if self.leader is not None else self.follower.state
        return state.sequence, state.digest()

    async def _close_peers(self) -> None:
        """Clients and chunk servers come back by themselves, here or at the leader."""
        await asyncio.gather(*(peer.channel.close() for peer in list(self._peers)), return_exceptions=True)

    # ----------------------------------------------------------------------------------------------------- the roles

    def stop(self) -> None:
        """Asks :meth:`run` to end."""
        self._stopping.set()

    async def run(self) -> None:
        """Plays its role until asked to stop. A StartupError says why it cannot."""
        stopped = asyncio.create_task(self._stopping.wait())
        try:
            while not self._stopping.is_set():
                role = asyncio.create_task(self._follow_and_lead())
                try:
                    await asyncio.wait({role, stopped}, return_when=asyncio.FIRST_COMPLETED)
                    if not role.done():
                        await self._resign()
                finally:
                    role.cancel()
                    await asyncio.wait({role})
                if not role.cancelled():
                    role.result()
        finally:
            stopped.cancel()
            await self._close_peers()

    async def _follow_and_lead(self) -> None:
        won, started = await self._follow()
        if not await self._lead(won, started):
            # What failed here may fail everywhere: then each tries once a lease, as if nobody said anything.
            self._cautious_until = self.clock.monotonic() + self.config.lease_seconds
        self._standby.ended_epoch = won.epoch

    async def _follow(self) -> tuple[Leadership, float]:
        """Tails the log until an election is won: the new leadership, and when we asked for it."""
        tailing = asyncio.create_task(self._tailing.run())
        try:
            async with asyncio.TaskGroup() as tasks:
                candidate = tasks.create_task(self._stand())
                watch = tasks.create_task(self._watch(tailing))
                checkpoints = tasks.create_task(self._write_checkpoints(self.follower))
                await candidate
                watch.cancel()
                checkpoints.cancel()
            return candidate.result()
        except ExceptionGroup as group:
            raise _first_of(group) from None
        finally:
            tailing.cancel()
            await asyncio.gather(tailing, return_exceptions=True)

    async def _watch(self, tailing: "asyncio.Task[None]") -> None:
        """A record that cannot be applied ends the node, whoever met it."""
        await tailing

    async def _write_checkpoints(self, source: Source) -> None:
        if self._checkpointer is not None:
            await self._checkpointer.run(source)

    async def _stand(self) -> tuple[Leadership, float]:
        seen, still_since = NOBODY, self.clock.monotonic()
        while True:
            try:
                current = await self._look()
                now = self.clock.monotonic()
                if (current.epoch, current.beat) != (seen.epoch, seen.beat):
                    seen, still_since = current, now
                if self._may_lead(current, now - still_since):
                    won = await self._campaign(current, now - still_since)
                    if won is not None:
                        return won, now
            except LogLocked as error:
                # Nothing was changed, so what was seen of the leader counts on: after a lease the lock is seen to.
                log.warning("%s waits for the journal: %s", self.config.node, error)
                await asyncio.sleep(self.config.lease_seconds)
            except LogFailed as error:
                # Reading promises nothing to anyone, and an election of unknown outcome is one that we did not win.
                log.warning("%s waits for the journal: %s", self.config.node, error)
                seen = NOBODY
                await asyncio.sleep(self.config.lease_seconds)
            await self._rest()

    async def _rest(self) -> None:
        """Until it is time to look again; at once when the leader has resigned or is gone."""
        self._standby.tick()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.config.lease_seconds / 10 * self._random.uniform(0.5, 1.0)):
                await self._tailing.alarm.wait()
        self._tailing.alarm.clear()

    async def _look(self) -> Leadership:
        """Who leads; all that is committed so far is applied."""
        current = await self._journal.leadership()
        self._standby.epoch = current.epoch
        self._standby.leader = current.address if current.holder else ""
        self._tailing.follow(current)
        await self.follower.catch_up()
        return current

    def _may_lead(self, current: Leadership, silent: float) -> bool:
        """Whether it is time to try."""
        if not self.follower.state.sequence and not self.config.genesis:
            return False
        if self.clock.monotonic() < self._abstains_until:
            return False
        if silent >= self.config.lease_seconds:
            return True
        if not current.holder:
            return current.address in ("", self.config.node)
        if current.holder == self.config.node:
            # Our own, of a process before this one: unless it ended badly in this very process, there is no one to wait
            # for.
            return current.epoch != self._led_epoch
        if self._tailing.ended_epoch == current.epoch and self.clock.monotonic() >= self._cautious_until:
            return True
        return self.config.takeover_when_refused and self._tailing.refused_epoch == current.epoch

    async def _campaign(self, current: Leadership, silent: float) -> Leadership | None:
        try:
            return await self._journal.campaign(current, self.config.address)
        except LogLocked:
            if silent < self.config.lease_seconds:
                raise
            done = await self._end_holder(current)
            log.warning("%s is silent, and the log is locked: %s", current.holder or "who resigned", done)
            return await self._journal.campaign(current, self.config.address)

    async def _lead(self, won: Leadership, started: float) -> bool:
        """Serves one epoch to its end; whether that was a planned one."""
        self._led_epoch = won.epoch
        try:
            await self.follower.catch_up()
        except LogFailed as failure:
            log.warning("%s cannot lead: %s", self.config.node, failure)
            return False
        follower = self.follower
        if follower.state.epoch > won.epoch:
            log.warning("%s cannot lead: epoch %d is over already", self.config.node, won.epoch)
            return False
        log.info("%s leads epoch %d from record %d on", self.config.node, won.epoch, follower.state.sequence)
        leader = Leader(
            self.config,
            self.clock,
            self._token_key,
            follower.fleet,
            follower.state,
            self._journal,
            won.epoch,
            follower.last_hash,
            started,
            self.measures,
        )
        self.measures.elections_won += 1
        resigned = False
        try:
            leader.begin(self._first_operations(won.epoch))
            self._standby.end()
            self.leader = leader
            for peer in self._peers:
                if peer.hello.role == "chunkserver":
                    peer.notify(msg.Leading(won.epoch, leader.term.clock_ms))
            await leader.run(self._write_checkpoints(leader))
        except ExceptionGroup as group:
            resigned = self._took_end(leader, group)
        finally:
            self.leader = None
            leader.end()
            self._follow_anew(leader.committer.committed, leader.committer.last_hash)
            if leader.is_cut_off:
                self._abstains_until = self.clock.monotonic() + ABSTAIN_LEASES * self.config.lease_seconds
            if resigned:
                self.follower.adopt(leader.state, leader.fleet, leader.committer.last_hash, leader.epoch)
            else:
                await self._close_peers()
        return resigned

    def _took_end(self, leader: Leader, group: ExceptionGroup) -> bool:
        """Why a leadership ended: whether it resigned. What is no reason for that is raised."""
        resigned, others = group.split(Resigned)
        lost, others = others.split((LogFenced, LogFailed)) if others is not None else (None, None)
        if resigned is not None:
            self.measures.leaderships_ended["cut_off" if leader.is_cut_off else "resigned"] += 1
        for error in lost.exceptions if lost is not None else ():
            log.warning("%s leads no more: %s", self.config.node, error)
            self.measures.leaderships_ended[type(error).__name__] += 1
        if others is not None:
            raise _first_of(others) from None
        return resigned is not None

    def _first_operations(self, epoch: int) -> tuple[op.AnyOperation, ...]:
        begin = op.BeginEpoch(epoch, self.config.node)
        if self.follower.state.sequence:
            return (begin,)
        log.info("%s begins a new cluster", self.config.node)
        config = self.config
        cluster = self._random.randbytes(16)
        genesis = op.Genesis(
            cluster, op.LOG_FORMAT, ROOT_MODE, os.getuid(), os.getgid(), config.replication, config.chunk_bytes
        )
        return (genesis, begin)

    async def _resign(self) -> None:
        """Before the end of the process: what was promised is committed, and no one needs to wait for the lease."""
        leader = self.leader
        if leader is None:
            return
        try:
            try:
                await leader.hand_over("")
            except (NotFound, Busy):
                await leader.resign()
        except (LogFenced, LogFailed, TimeoutError) as error:
            log.warning("%s could not commit everything before it stopped: %s", self.config.node, error)
