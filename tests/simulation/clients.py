"""Clients of a simulation: the real :class:`gfsclient.masters.Masters`, few names to fight about, and a ledger."""

import asyncio
import random
from typing import TYPE_CHECKING, Final

from gfsclient.masters import Masters
from gfsprotocol import messages as msg
from gfsprotocol.errors import AvailabilityError, CallForgotten, GfsError, NamespaceError, TooFewServers
from gfsprotocol.ids import ClientId
from gfsprotocol.messages import ReplyBody, RequestBody
from tests.simulation.history import REGISTER_ATTRIBUTE, USER, Entry, is_change
from tests.simulation.loop import Process

if TYPE_CHECKING:
    from tests.simulation.world import World

REGISTERS: Final = (b"/r0", b"/r1", b"/r2")
NAMES: Final = (b"a", b"b", b"c")
DEADLINE_SECONDS: Final = 60.0
THINK_SECONDS: Final = 0.08
STORED_BYTES: Final = 100


class Client:
    """Makes one call at a time."""

    def __init__(self, world: "World", number: int) -> None:
        self.world = world
        self.process = Process(f"client-{number}")
        self.id = ClientId(number.to_bytes(2, "big") * 8)
        self.reads_from_standby = number % 2 == 1
        self._random = random.Random(f"{world.seed} client {number}")
        self._marks = 0
        self._calls = 0
        self._stored: list[bytes] = []
        self.entries: list[Entry] = []
        self.masters: Masters

    async def run(self, seconds: float) -> None:
        """Works for so long. Returns when the last call is answered."""
        loop = asyncio.get_running_loop()
        self.masters = Masters(
            self.world.addresses,
            self.world.client_key,
            USER,
            DEADLINE_SECONDS,
            self.id,
            lambda address: self.world.network.dial(self.process, address),
            self.reads_from_standby,
            self._random,
        )
        try:
            if self is self.world.clients[0]:
                for path in REGISTERS:
                    await self.call(msg.Create(path, open=False, exclusive=True))
            while loop.time() < seconds:
                if self._random.random() < 0.12:
                    await self._store()
                else:
                    await self.call(self._choose())
                await asyncio.sleep(self._random.expovariate(1 / THINK_SECONDS))
        finally:
            await self.masters.close()

    async def call(self, body: RequestBody) -> ReplyBody | None:
        """One call into the ledger; None unless it was answered with success."""
        world, loop = self.world, asyncio.get_running_loop()
        number = 0
        if is_change(body):
            self._calls += 1
            number = self._calls
        at_standby = self.reads_from_standby and not number
        deadline = self._random.uniform(0.3, 2.0) if self._random.random() < 0.1 else DEADLINE_SECONDS
        entry = Entry(self.id, body, number, at_standby, loop.time(), world.log.sequence)
        self.entries.append(entry)
        try:
            entry.reply = await self.masters.call(body, deadline)
        except CallForgotten as error:
            world.violate("no call is forgotten", f"{entry} got {error}")
        except (NamespaceError, AvailabilityError) as error:
            entry.error = error
            unanswered = isinstance(error, AvailabilityError) and not isinstance(error, TooFewServers)
            if deadline == DEADLINE_SECONDS and unanswered:
                world.violate("all calls are answered", f"{entry} got {error}")
        except GfsError as error:
            world.violate("all calls are answered", f"{entry} got {error}")
        entry.answered, entry.high = loop.time(), world.log.sequence
        world.note("call", self.process, entry)
        return entry.reply

    # ------------------------------------------------------------------------------------------------ what to call

    def _mark(self) -> bytes:
        self._marks += 1
        return b"%d-%d" % (self.id[1], self._marks)

    def _path(self) -> bytes:
        name = b"/" + self._random.choice(NAMES)
        return name + b"/" + self._random.choice(NAMES) if self._random.random() < 0.6 else name

    def _choose(self) -> RequestBody:
        roll, path = self._random.random(), self._path()
        register = self._random.choice(REGISTERS)
        if roll < 0.22:
            return msg.SetXattr(register, name=REGISTER_ATTRIBUTE, value=self._mark())
        if roll < 0.42:
            return msg.GetXattr(register, name=REGISTER_ATTRIBUTE)
        if roll < 0.50:
            return msg.Mkdir(path)
        if roll < 0.60:
            return msg.Create(path, open=False, exclusive=True)
        if roll < 0.70:
            return msg.Rename(path, target=self._path(), no_replace=self._random.random() < 0.3)
        if roll < 0.78:
            return msg.Unlink(path)
        if roll < 0.82:
            return msg.Rmdir(path)
        if roll < 0.86:
            return msg.SetAttributes(path, modified_ns=self._random.randrange(10**9))
        if roll < 0.88:
            return msg.MoveToTrash(path)
        if roll < 0.95:
            return msg.Stat(path)
        return msg.List(b"/")

    # -------------------------------------------------------------------------------------------------------- data

    async def _store(self) -> None:
        """Writes some bytes more to a file of its own, new or old, as far as the masters see it."""
        if self._stored and self._random.random() < 0.5:
            path = self._random.choice(self._stored)
            opened = await self.call(msg.OpenForWrite(path))
        else:
            path = b"/stored-" + self._mark()
            opened = await self.call(msg.Create(path, open=True, exclusive=True))
            self._stored.append(path)
        if not isinstance(opened, msg.AttributesReply):
            return
        inode = opened.attributes.inode
        lease = await self.call(msg.AllocateChunk(inode, 0))
        chunks: tuple[msg.ChunkLength, ...] = ()
        if isinstance(lease, msg.Lease):
            length = await self._write(lease)
            if length:
                chunks = (msg.ChunkLength(0, lease.grant.chunk, length, lease.grant.version),)
        await self.call(msg.Close(inode, chunks))
        if self._random.random() < 0.3:
            await self.call(msg.Unlink(path))
            self._stored.remove(path)

    async def _write(self, lease: msg.Lease) -> int:
        """The chain of a grant, without bytes: its members get the version, the primary confirms it."""
        grant = lease.grant
        members = [self.world.servers[address.server] for address in grant.members]
        await asyncio.sleep(self._random.uniform(0.001, 0.05))
        if not all(member.process.is_running for member in members):
            return 0
        base = max(lease.length, 0)
        for member in members:
            if not member.prepare(grant, base):
                return 0
        if not grant.is_first and not await members[0].confirm(grant, base):
            return 0
        length = base + STORED_BYTES
        if not all(member.write(grant, length) for member in members):
            return 0
        return length
