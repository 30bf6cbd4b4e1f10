"""The client and its masters: finding the leader, following it, and each mutation exactly once."""

import asyncio
import time

import pytest

from gfsclient.filesystem import FileSystem
from gfsclient.masters import Masters
from gfsprotocol import codec, rpc
from gfsprotocol import messages as msg
from gfsprotocol.channel import Channel, MemoryChannel, memory_pair
from gfsprotocol.errors import (
    AlreadyExists,
    AuthenticationFailed,
    Busy,
    CallForgotten,
    ConfigurationError,
    ConnectionLost,
    NotFound,
    NotLeader,
    SafeMode,
    Unreachable,
)
from tests.client.smallcluster import SmallCluster
from tests.master.leading import KEY, leading, until


class DroppingChannel:
    """Breaks instead of delivering the first answer to each mutation number (fault 17)."""

    def __init__(self, channel: Channel, numbers: set[int], dropped: set[int]) -> None:
        self.peer = channel.peer
        self._channel = channel
        self._numbers = numbers
        self._dropped = dropped
        self._by_id: dict[int, int] = {}

    async def send(self, frame: bytes) -> None:
        for message in codec.decode_frame(frame):
            if isinstance(message, msg.Request) and message.call is not None:
                self._numbers.add(message.call.number)
                self._by_id[message.id] = message.call.number
        await self._channel.send(frame)

    async def receive(self) -> bytes:
        frame = await self._channel.receive()
        for message in codec.decode_frame(frame):
            number = self._by_id.get(message.id) if isinstance(message, msg.Response) else None
            if number is not None and number not in self._dropped:
                self._dropped.add(number)
                await self.close()
                raise ConnectionLost("the answer was dropped")
        return frame

    async def close(self) -> None:
        await self._channel.close()


async def test_fault_17_each_mutation_is_done_once_though_each_answer_is_lost_once(small_cluster):
    cluster: SmallCluster = await small_cluster()
    numbers: set[int] = set()
    dropped: set[int] = set()

    async def dial(address: str) -> Channel:
        return DroppingChannel(await cluster.dial(address), numbers, dropped)

    masters = cluster.files._masters
    masters._links.dial = dial
    await cluster.files.mkdir("/d")
    await cluster.files.write_bytes("/d/a", b"x" * 1000)
    await cluster.files.rename("/d/a", "/d/b")
    await cluster.files.truncate("/d/b", 10)
    await cluster.files.link("/d/b", "/d/c")
    await cluster.files.remove("/d/b")
    assert await cluster.files.empty_trash() == 0
    assert await cluster.files.listdir("/d") == ["c"]
    assert await cluster.files.read_bytes("/d/c") == b"x" * 10
    assert dropped == numbers
    assert len(numbers) >= 8
    assert not await cluster.files.list_open()


async def test_a_refusal_is_told_though_its_answer_was_lost(small_cluster):
    cluster: SmallCluster = await small_cluster()
    await cluster.files.mkdir("/d")

    async def dial(address: str) -> Channel:
        return DroppingChannel(await cluster.dial(address), set(), seen)

    seen: set[int] = set()
    other = cluster.connect()
    other._masters._links.dial = dial
    with pytest.raises(AlreadyExists):
        await other.mkdir("/d")
    with pytest.raises(NotFound):
        await other.remove("/missing")
    assert len(seen) == 2


async def test_the_floor_is_the_lowest_number_without_an_answer():
    masters = Masters(["a:1"], KEY, (0, 0))
    numbers = [masters._begin() for _ in range(5)]
    assert masters._lowest_open() == numbers[0]
    masters._open_numbers.discard(numbers[1])
    assert masters._lowest_open() == numbers[0]
    masters._open_numbers.discard(numbers[0])
    assert masters._lowest_open() == numbers[2]
    masters._open_numbers.clear()
    assert masters._lowest_open() == numbers[-1] + 1


async def test_a_client_that_was_idle_for_longer_than_it_is_remembered_is_served(small_cluster):
    cluster: SmallCluster = await small_cluster()
    await cluster.files.mkdir("/d")
    masters = cluster.files._masters
    cluster.harness.leader.state.sessions.by_client.clear()  # as after an hour

    async def lost(_frame: bytes) -> None:
        raise ConnectionLost("the connection was gone long ago")

    masters._links.leader.channel.send = lost
    with pytest.raises(CallForgotten):
        await cluster.files.mkdir("/e")  # an hour has not passed for us: who knows why it is forgotten
    masters._succeeded_at -= 3601
    masters._links.leader.channel.send = lost
    await cluster.files.mkdir("/e")
    assert await cluster.files.listdir("/") == ["d", "e"]


class Scripted:
    """A master that answers as told."""

    def __init__(self) -> None:
        self.answers: list[object] = []
        self.leads = True
        self.hint = ""
        self.silent = False
        self.requests: list[msg.Request] = []

    def handle(self, peer: rpc.Peer, request: msg.Request) -> None:
        self.requests.append(request)
        if self.silent:
            return
        if not self.leads:
            raise NotLeader("a standby", self.hint)
        answer = self.answers.pop(0) if self.answers and not isinstance(request.body, msg.KeepAlive) else msg.Done()
        if isinstance(answer, Exception):
            raise answer
        peer.respond(request.id, answer, 7)

    def notice(self, peer: rpc.Peer, body: object) -> None:
        raise AssertionError


class Network:
    """Scripted masters by address."""

    def __init__(self, *addresses: str) -> None:
        self.masters = {address: Scripted() for address in addresses}
        self.tasks: list[asyncio.Task[None]] = []
        self.channels: list[MemoryChannel] = []
        self.dialled: list[str] = []

    async def dial(self, address: str) -> Channel:
        self.dialled.append(address)
        if address not in self.masters:
            raise ConnectionLost(f"{address}: connection refused")
        near, far = memory_pair("client", address)
        self.channels.append(near)
        self.tasks.append(asyncio.create_task(self._serve(far, self.masters[address])))
        return near

    async def _serve(self, channel: Channel, service: Scripted) -> None:
        peer = await rpc.accept(channel, "master", b"m", lambda _: KEY, service)
        await peer.run()

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


@pytest.fixture
async def network():
    made = Network("a:1", "b:1")
    yield made
    await made.close()


@pytest.fixture
async def masters(network):
    made = Masters(["a:1", "b:1"], KEY, (0, 0), 5.0, dial=network.dial)
    yield made
    await made.close()


async def test_the_leader_is_found_among_all_masters(network, masters):
    network.masters["a:1"].leads = False
    assert await masters.call(msg.StatSpace()) == msg.Done()
    assert isinstance(network.masters["b:1"].requests[-1].body, msg.StatSpace)


async def test_a_leader_that_is_named_but_not_listed_is_found(network, masters):
    network.masters["c:1"] = Scripted()
    network.masters["a:1"].leads = network.masters["b:1"].leads = False
    network.masters["a:1"].hint = "c:1"
    await masters.call(msg.StatSpace())
    assert "c:1" in network.dialled


async def test_a_leader_that_steps_down_is_followed_with_the_same_call_number(network, masters):
    old, new = network.masters["a:1"], network.masters["b:1"]
    new.leads = False
    await masters.call(msg.Mkdir(b"/x"))
    old.leads, old.hint, new.leads = False, "b:1", True
    await masters.call(msg.Mkdir(b"/y"))
    first = next(r.call for r in old.requests if isinstance(r.body, msg.Mkdir) and r.body.path == b"/y")
    again = next(r.call for r in new.requests if isinstance(r.body, msg.Mkdir))
    assert (first.number, first.retry) == (again.number, False)
    assert not again.retry  # it was refused before anything was done


async def test_answers_are_never_older_than_what_was_seen(network, masters):
    network.masters["b:1"].leads = False
    await masters.call(msg.StatSpace())
    await masters.call(msg.StatSpace())
    sequences = [r.minimum_sequence for r in network.masters["a:1"].requests if isinstance(r.body, msg.StatSpace)]
    assert sequences == [0, 7]


@pytest.mark.parametrize("error", [SafeMode("starting"), Busy("much to do")])
async def test_a_leader_that_cannot_yet_is_asked_again(network, masters, error):
    network.masters["b:1"].leads = False
    network.masters["a:1"].answers = [error, error]
    assert await masters.call(msg.Mkdir(b"/x")) == msg.Done()
    numbers = [r.call.number for r in network.masters["a:1"].requests if r.call]
    assert len(numbers) == 3
    assert len(set(numbers)) == 1


@pytest.mark.slow
async def test_a_leader_that_cannot_until_the_deadline_says_why(network, masters):
    network.masters["b:1"].leads = False
    network.masters["a:1"].answers = [SafeMode("80 % of the chunks are reported")] * 1000
    with pytest.raises(SafeMode, match="80 %"):
        await masters.call(msg.Mkdir(b"/x"), 0.3)


async def test_no_master_at_all_names_each_with_its_reason():
    masters = Masters(["a:1", "b:1"], KEY, (0, 0), dial=Network().dial)
    with pytest.raises(Unreachable) as caught:
        await masters.call(msg.StatSpace(), 0.1)
    assert "a:1: connection refused; b:1: connection refused" in caught.value.message
    await masters.close()


@pytest.mark.slow
async def test_real_ports_where_no_one_listens_are_named():
    started = time.monotonic()
    with pytest.raises(Unreachable, match=r"127.0.0.1:1: .*[Cc]onnect"):
        await FileSystem.connect(["127.0.0.1:1"], KEY, deadline_seconds=0.3)
    assert time.monotonic() - started < 3


async def test_a_wrong_key_is_told_at_once(network):
    masters = Masters(["a:1", "b:1"], b"w" * 32, (0, 0), 60.0, dial=network.dial)
    started = time.monotonic()
    with pytest.raises(AuthenticationFailed, match="another cluster"):
        await masters.connect()
    assert time.monotonic() - started < 2
    await masters.close()


@pytest.mark.slow
async def test_a_leader_that_falls_silent_is_left_for_the_next(network, masters, monkeypatch):
    monkeypatch.setattr("gfsclient.masters.TICK_SECONDS", 0.05)
    monkeypatch.setattr("gfsclient.masters.DOUBT_SECONDS", 0.1)
    network.masters["b:1"].leads = False
    await masters.call(msg.StatSpace())
    network.masters["a:1"].silent = True
    network.masters["b:1"].leads = True
    assert await masters.call(msg.Mkdir(b"/x")) == msg.Done()
    assert any(isinstance(r.body, msg.Mkdir) for r in network.masters["b:1"].requests)


@pytest.mark.slow
async def test_the_leader_hears_of_us_while_files_are_open(network, masters, monkeypatch):
    monkeypatch.setattr("gfsclient.masters.TICK_SECONDS", 0.01)
    monkeypatch.setattr("gfsclient.masters.KEEP_ALIVE_SECONDS", 0.02)
    network.masters["b:1"].leads = False
    await masters.call(msg.StatSpace())
    requests = network.masters["a:1"].requests
    heard = len(requests)
    await asyncio.sleep(0.1)
    assert len(requests) == heard
    masters.count_writer(1)
    await until(lambda: len(requests) > heard + 2)
    masters.count_writer(-1)


@pytest.mark.slow
async def test_the_next_leader_hears_of_us_though_we_ask_nothing(network, masters, monkeypatch):
    monkeypatch.setattr("gfsclient.masters.TICK_SECONDS", 0.01)
    monkeypatch.setattr("gfsclient.masters.KEEP_ALIVE_SECONDS", 0.02)
    network.masters["b:1"].leads = False
    await masters.call(msg.StatSpace())
    masters.count_writer(1)
    network.masters["a:1"].leads, network.masters["b:1"].leads = False, True
    heard = len(network.masters["b:1"].requests)
    for channel in network.channels:
        await channel.close()
    await until(lambda: len(network.masters["b:1"].requests) > heard + 2)


async def test_a_call_that_waits_for_a_leader_is_told_when_the_client_is_closed(network, masters):
    network.masters["a:1"].leads = network.masters["b:1"].leads = False
    waiting = asyncio.create_task(masters.call(msg.StatSpace()))
    await until(lambda: masters._search is not None)
    await masters.close()
    with pytest.raises(ConnectionLost, match="closed"):
        await waiting


async def test_the_deadline_counts_from_the_first_attempt(network, masters, monkeypatch):
    await masters.connect()
    left = []

    async def lost(*_: object) -> None:
        await asyncio.sleep(0.02)
        raise ConnectionLost("cut")

    async def find(seconds: float, _error: object) -> None:
        left.append(seconds)
        raise Unreachable("nobody")

    monkeypatch.setattr(masters, "_ask", lost)
    monkeypatch.setattr(masters, "_find_leader", find)
    with pytest.raises(Unreachable):
        await masters.call(msg.StatSpace(), 1.0)
    assert left[0] <= 0.98


async def test_a_closed_client_refuses(small_cluster):
    cluster = await small_cluster()
    await cluster.files.mkdir("/d")
    await cluster.files.close()
    with pytest.raises(ConnectionLost, match="closed"):
        await cluster.files.stat("/d")
    with pytest.raises(ConnectionLost, match="closed"):
        await cluster.files.read_bytes("/d")


@pytest.mark.parametrize(
    ("masters", "key", "complaint"),
    [([], "00", "masters"), (["nowhere"], "00", "not host:port"), (["a:1"], "xyz", "not hexadecimal")],
)
async def test_wrong_settings_are_told_in_one_line(masters, key, complaint):
    with pytest.raises(ConfigurationError, match=complaint) as caught:
        await FileSystem.connect(masters, key)
    assert "\n" not in caught.value.message


async def test_a_new_leader_knows_what_the_old_one_did():
    """The answer is lost with the old leader; the new one, from the same log, gives the first result."""
    async with leading() as first:
        peer = await first.connect("client", b"c" * 16)
        body = msg.Mkdir(b"/d")
        await peer.call(body, 5, (0, 0), msg.Call(1, 1))
        state = first.leader.state
        async with leading(state=state) as second:
            again = await second.connect("client", b"c" * 16)
            reply = (await again.call(body, 5, (0, 0), msg.Call(1, 1, retry=True))).body
            assert isinstance(reply, msg.AttributesReply)
