"""A client that keeps answers: it is told of others' changes, and knows when it would not be told."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from gfsclient import watcher as watching
from gfsclient.masters import Masters
from gfsclient.watcher import Watcher
from gfsprotocol import messages as msg
from gfsprotocol import rpc
from gfsprotocol.errors import AuthenticationFailed
from tests.client.smallcluster import SmallCluster
from tests.client.test_masters import Network, Scripted
from tests.master.leading import KEY, until


class Keeper:
    """What a mount would do with a watcher, counted."""

    def __init__(self, masters: Masters, **options: float) -> None:
        self.told: list[msg.Invalidate] = []
        self.drops = 0
        self.watcher = Watcher(masters, self.told.append, self._drop, **options)

    def _drop(self) -> None:
        self.drops += 1

    def inodes(self) -> set[int]:
        return {inode for notice in self.told for inode in notice.inodes}


@pytest.fixture
async def keep() -> AsyncIterator[Callable[..., Keeper]]:
    """Makes keepers, and closes them."""
    made: list[Keeper] = []

    def make(masters: Masters, **options: float) -> Keeper:
        made.append(Keeper(masters, **options))
        return made[-1]

    yield make
    for keeper in made:
        await keeper.watcher.close()


@pytest.fixture
async def network() -> AsyncIterator[Network]:
    """Two masters; the first leads."""
    made = Network("a:1", "b:1")
    made.masters["b:1"].leads = False
    yield made
    await made.close()


@pytest.fixture
async def masters(network: Network) -> AsyncIterator[Masters]:
    made = Masters(["a:1", "b:1"], KEY, (0, 0), 5.0, dial=network.dial)
    yield made
    await made.close()


async def test_a_change_by_another_client_is_told(
    small_cluster: Callable[..., Awaitable[SmallCluster]], keep: Callable[..., Keeper]
) -> None:
    cluster = await small_cluster()
    await cluster.files.mkdir("/d")
    ours = cluster.connect()
    keeper = keep(ours._masters)
    watcher = keeper.watcher
    await until(lambda: watcher.is_current)
    inode = (await ours.stat("/d")).inode
    mark = watcher.clock
    await cluster.files.chmod("/d", 0o700)
    await until(lambda: keeper.inodes() == {inode})
    assert watcher.changed_since(inode, mark)
    assert not watcher.changed_since(inode, watcher.clock)
    assert not watcher.changed_since(1, mark)
    mark = watcher.clock
    await cluster.files.write_bytes("/f", b"x")
    await until(lambda: (1, b"f") in keeper.told[-1].names)
    assert watcher.name_changed_since(1, b"f", mark)
    assert not watcher.name_changed_since(1, b"g", mark)
    assert (await ours.stat("/f")).size == 1
    told = len(keeper.told)
    await ours.remove("/f")
    await ours.stat("/d")
    await cluster.files.rmdir("/d")
    await until(lambda: len(keeper.told) > told)
    assert keeper.told[-1].names == ((1, b"d"),)  # and nothing of our own doing
    assert keeper.drops == 1


@pytest.mark.slow
async def test_when_the_connection_is_lost_all_is_dropped_and_watched_anew(
    small_cluster: Callable[..., Awaitable[SmallCluster]], keep: Callable[..., Keeper]
) -> None:
    cluster = await small_cluster()
    ours = cluster.connect()
    keeper = keep(ours._masters)
    watcher = keeper.watcher
    await until(lambda: watcher.is_current)
    root = (await ours.stat("/")).inode
    mark, drops = watcher.clock, keeper.drops
    leader = ours._masters._links.leader
    assert leader is not None
    await leader.channel.close()
    await until(lambda: not watcher.is_current)
    await until(lambda: watcher.is_current)  # though nobody asks for anything
    assert keeper.drops > drops
    assert watcher.changed_since(root, mark)
    assert watcher.name_changed_since(root, b"anything", mark)
    assert not keeper.told
    await ours.stat("/")
    await cluster.files.mkdir("/new")
    await until(lambda: root in keeper.inodes())


async def test_the_leader_watches_before_it_is_asked_anything(
    network: Network, masters: Masters, keep: Callable[..., Keeper]
) -> None:
    a, b = network.masters["a:1"], network.masters["b:1"]
    await masters.call(msg.Stat(b"/"))
    keeper = keep(masters)
    await masters.call(msg.Stat(b"/"))
    kinds = [type(request.body) for request in a.requests if not isinstance(request.body, msg.KeepAlive)]
    assert kinds == [msg.Stat, msg.Watch, msg.Stat]
    drops = keeper.drops
    a.leads, b.leads = False, True
    await masters.call(msg.Stat(b"/"))
    assert keeper.watcher.is_current
    assert keeper.drops >= drops + 1
    answered = [type(request.body) for request in b.requests]
    assert msg.Watch in answered[: answered.index(msg.Stat)]


@pytest.mark.slow
async def test_a_leader_that_steps_down_is_noticed_though_nothing_is_asked(
    network: Network, masters: Masters, keep: Callable[..., Keeper]
) -> None:
    keeper = keep(masters)
    await until(lambda: keeper.watcher.is_current)
    drops = keeper.drops
    network.masters["a:1"].leads, network.masters["b:1"].leads = False, True
    await until(lambda: keeper.drops > drops)
    await until(lambda: keeper.watcher.is_current)
    assert any(isinstance(request.body, msg.Watch) for request in network.masters["b:1"].requests)


class Hanging(Scripted):
    """Answers late, when it hangs."""

    def __init__(self) -> None:
        super().__init__()
        self.hangs = False
        self.waiting: list[tuple[rpc.Peer, msg.Request]] = []

    def handle(self, peer: rpc.Peer, request: msg.Request) -> None:
        if self.hangs:
            self.waiting.append((peer, request))
        else:
            super().handle(peer, request)

    def go_on(self) -> None:
        self.hangs = False
        waiting, self.waiting = self.waiting, []
        for peer, request in waiting:
            super().handle(peer, request)


@pytest.mark.slow
async def test_a_leader_that_hangs_is_not_trusted_until_it_answers_again(
    network: Network, masters: Masters, keep: Callable[..., Keeper], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gfsclient.masters.SILENT_SECONDS", 60.0)
    network.masters["a:1"] = leader = Hanging()
    keeper = keep(masters)
    await until(lambda: keeper.watcher.is_current)
    peer, drops = masters._links.leader, keeper.drops
    leader.hangs = True
    await until(lambda: keeper.drops > drops)
    assert not keeper.watcher.is_current
    mark = keeper.watcher.clock
    leader.go_on()
    await until(lambda: keeper.watcher.is_current)
    assert masters._links.leader is peer
    assert not keeper.watcher.changed_since(1, mark)
    assert leader.requests[-1].body == msg.KeepAlive()


@pytest.mark.slow
async def test_a_leader_that_hangs_for_long_is_left_for_the_next(
    network: Network, masters: Masters, keep: Callable[..., Keeper], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gfsclient.masters.SILENT_SECONDS", 0.3)
    network.masters["a:1"] = leader = Hanging()
    keeper = keep(masters, trust_seconds=0.2)
    await until(lambda: keeper.watcher.is_current)
    leader.hangs, network.masters["b:1"].leads = True, True
    peer = masters._links.leader
    await until(lambda: masters._links.leader not in (None, peer) and keeper.watcher.is_current)
    assert keeper.drops >= 2


async def test_a_watching_client_asks_no_standby(network: Network, keep: Callable[..., Keeper]) -> None:
    masters = Masters(["a:1", "b:1"], KEY, (0, 0), 5.0, dial=network.dial, read_from_standby=True)
    try:
        await masters.call(msg.Stat(b"/"))
        await until(lambda: masters._links.standby() is not None)
        keep(masters)
        for _ in range(5):
            await masters.call(msg.Stat(b"/"))
        assert not any(request.at_standby for request in network.masters["b:1"].requests)
    finally:
        await masters.close()


async def test_a_notice_to_drop_everything_is_heeded(
    network: Network, masters: Masters, keep: Callable[..., Keeper]
) -> None:
    keeper = keep(masters)
    await until(lambda: keeper.watcher.is_current)
    mark, drops = keeper.watcher.clock, keeper.drops
    keeper.watcher.told(msg.Invalidate(everything=True))
    assert keeper.drops == drops + 1
    assert keeper.watcher.changed_since(7, mark)
    assert not keeper.told
    assert keeper.watcher.is_current
    keeper.watcher.told(msg.Done())
    assert not keeper.watcher.changed_since(7, keeper.watcher.clock)


async def test_what_was_changed_long_ago_may_have_been_changed_since(
    masters: Masters, keep: Callable[..., Keeper], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "CHANGES_MAX", 3)
    watcher = keep(masters).watcher
    marks = []
    for inode in range(1, 6):
        marks.append(watcher.clock)
        watcher.told(msg.Invalidate(inodes=(inode,), names=((inode, b"n"),), removed=(inode + 10,)))
    # Of the last three inodes (5, 15 and 14) it is known when, of all else only that it was no later than 4.
    assert watcher.changed_since(99, marks[0])
    assert not watcher.changed_since(99, marks[4])
    assert watcher.changed_since(5, marks[4])
    assert watcher.changed_since(15, marks[4])
    assert len(watcher._inodes._at) == 3
    assert watcher.name_changed_since(99, b"n", marks[0])
    assert not watcher.name_changed_since(99, b"n", marks[2])
    assert watcher.name_changed_since(4, b"n", marks[3])


async def test_a_watcher_that_is_closed_keeps_nothing(
    network: Network, masters: Masters, keep: Callable[..., Keeper]
) -> None:
    keeper = keep(masters)
    await until(lambda: keeper.watcher.is_current)
    drops = keeper.drops
    await keeper.watcher.close()
    assert keeper.drops > drops
    assert not keeper.watcher.is_current
    await masters.call(msg.Stat(b"/"))
    await keeper.watcher.close()


@pytest.mark.slow
async def test_masters_that_refuse_us_are_not_asked_without_a_pause(
    network: Network, keep: Callable[..., Keeper], monkeypatch: pytest.MonkeyPatch
) -> None:
    masters = Masters(["a:1"], b"w" * 32, (0, 0), 5.0, dial=network.dial)
    try:
        keeper = keep(masters)
        with pytest.raises(AuthenticationFailed):
            await masters.call(msg.Stat(b"/"))
        await until(lambda: len(network.dialled) >= 2)
        dialled = len(network.dialled)
        await asyncio.sleep(2 * watching.TICK_SECONDS)  # nothing is to happen, so there is nothing to poll for
        assert len(network.dialled) <= dialled + 1
        assert not keeper.watcher.is_current
    finally:
        await masters.close()
