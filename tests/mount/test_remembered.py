"""What the mount keeps of names and attributes: only what is fresh, and nothing that it has changed itself."""

import pytest

from gfsclient.masters import MUTATIONS
from gfsclient.mount import remembered
from gfsclient.mount.caching import KernelCache
from gfsclient.mount.remembered import Remembered, touched
from gfsprotocol import messages as msg
from gfsprotocol.messages import Attributes, Invalidate
from tests.mount.scene import NotedKernel
from tests.mount.test_caching import Told

DIRECTORY = 7


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def kept(told: Told) -> Remembered:
    cache = KernelCache(NotedKernel())
    cache.freshness = told
    return Remembered(cache)


def attributes(inode: int, links: int = 1, mode: int = 0o100644) -> Attributes:
    return Attributes(inode, mode, links, 0, 0, 0, 0, 0, 0, 3, 1 << 26, 0)


def learn(kept: Remembered, *names: bytes) -> None:
    for number, name in enumerate(names):
        kept.learn(DIRECTORY, name, attributes(10 + number), kept.mark())


def test_it_is_shown_while_someone_would_tell_of_changes(kept: Remembered, told: Told) -> None:
    learn(kept, b"a")
    assert kept.find(DIRECTORY, b"a") == kept.attributes(10) == attributes(10)
    assert kept.find(DIRECTORY, b"b") is None
    told.is_current = False
    assert kept.find(DIRECTORY, b"a") is None
    assert kept.attributes(10) is None


def test_notices_drop_what_others_have_changed(kept: Remembered) -> None:
    learn(kept, b"a", b"b", b"c", b"d")
    kept.invalidate(Invalidate((10,), ((DIRECTORY, b"b"),), (12,)))
    assert [kept.find(DIRECTORY, name) for name in (b"a", b"b", b"c")] == [None] * 3
    assert kept.attributes(11) is None
    assert kept.find(DIRECTORY, b"d") is not None
    kept.drop_everything()
    assert kept.find(DIRECTORY, b"d") is None


def test_an_answer_that_was_overtaken_is_not_kept(kept: Remembered, told: Told) -> None:
    told.changed |= {10, (DIRECTORY, b"b")}
    learn(kept, b"a", b"b")
    assert kept.find(DIRECTORY, b"a") is None
    assert kept.find(DIRECTORY, b"b") is None


@pytest.mark.parametrize(
    "change",
    [
        msg.Unlink(b"a", DIRECTORY),
        msg.Rename(b"a", DIRECTORY, b"x", 8),
        msg.Rename(b"x", 8, b"a", DIRECTORY),
        msg.Create(b"a", DIRECTORY, truncate=True),
        msg.SetAttributes(b"", 10, mode=0o600),
        msg.SetXattr(b"", 10, b"user.x", b""),
        msg.Link(b"", 10, b"second", DIRECTORY),
        msg.OpenForWrite(b"", 10, truncate=True),
        msg.Close(10),
        msg.RecordLength(10, ()),
        msg.RemoveTree(b"a", DIRECTORY),
    ],
)
def test_a_change_of_our_own_drops_it_and_all_answers_from_before(kept: Remembered, change: msg.RequestBody) -> None:
    learn(kept, b"a")
    before = kept.mark()
    kept.sent(change)
    assert kept.find(DIRECTORY, b"a") is None
    kept.learn(DIRECTORY, b"a", attributes(10), before)
    assert kept.find(DIRECTORY, b"a") is None, "it was asked for before"
    meanwhile = kept.mark()
    kept.learn(DIRECTORY, b"a", attributes(10), meanwhile)
    kept.answered(change)
    assert kept.find(DIRECTORY, b"a") is None, "it may be from before the change"
    kept.learn(DIRECTORY, b"a", attributes(10), meanwhile)
    assert kept.find(DIRECTORY, b"a") is None, "it was asked for before the change was made"
    kept.learn(DIRECTORY, b"a", attributes(10), kept.mark())
    assert kept.find(DIRECTORY, b"a") is not None


def test_directories_are_dropped_when_names_in_them_change(kept: Remembered) -> None:
    for change in (msg.Mkdir(b"new", 10), msg.Unlink(b"old", 10), msg.Rename(b"x", 8, b"y", 10)):
        kept.learn(DIRECTORY, b"a", attributes(10, links=3, mode=0o040755), kept.mark())
        assert kept.attributes(10) is not None
        kept.sent(change)
        assert kept.attributes(10) is None


def test_every_change_drops_something() -> None:
    """A message that is added has to say what it changes, else all is dropped."""
    of_one_inode = {msg.Close: (10,), msg.RecordLength: (10, ()), msg.AllocateChunk: (10, 0), msg.Hold: (10,)}
    for kind in MUTATIONS:
        body = kind(*of_one_inode[kind]) if kind in of_one_inode else None
        if body is None and issubclass(kind, msg.PathRequest):
            body = kind(b"a", DIRECTORY)
        keys = touched(body) if body is not None else None
        assert keys is None or keys[0], kind
    assert touched(msg.Unlink(b"a/b", DIRECTORY)) is None


def test_files_with_several_names_are_not_kept(kept: Remembered) -> None:
    kept.learn(DIRECTORY, b"a", attributes(10, links=2), kept.mark())
    assert kept.find(DIRECTORY, b"a") is None
    learn(kept, b"a")
    kept.learn(8, b"b", attributes(10, links=2), kept.mark())
    assert kept.find(DIRECTORY, b"a") is None


def test_an_inode_is_kept_with_its_only_name(kept: Remembered) -> None:
    learn(kept, b"a")
    kept.learn(8, b"moved", attributes(10), kept.mark())
    assert kept.place(10) == (8, b"moved")
    assert kept.find(DIRECTORY, b"a") is None
    kept.learn(8, b"moved", attributes(11), kept.mark())
    assert kept.attributes(10) is None
    assert kept.attributes(11) is not None


def test_the_oldest_is_forgotten_beyond_the_bound(kept: Remembered, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "NAMES_MAX", 2)
    learn(kept, b"a", b"b", b"c")
    assert kept.find(DIRECTORY, b"a") is None
    assert kept.attributes(10) is None
    assert kept.find(DIRECTORY, b"c") is not None
