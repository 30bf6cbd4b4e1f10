"""What the kernel may keep: only what is fresh, only so much, and all of it can be dropped."""

import msgspec
import pytest

from gfsclient.mount import caching
from gfsclient.mount.caching import KEPT_SECONDS, KernelCache
from gfsprotocol.messages import Attributes, Invalidate
from tests.mount.scene import NotedKernel


class Told:
    """Who watches, as the test says."""

    def __init__(self) -> None:
        self.clock = 1
        self.is_current = True
        self.changed: set[object] = set()

    def changed_since(self, inode: int, mark: int) -> bool:
        return inode in self.changed

    def name_changed_since(self, directory: int, name: bytes, mark: int) -> bool:
        return (directory, name) in self.changed


@pytest.fixture
def scene() -> tuple[KernelCache, NotedKernel, Told]:
    kernel, told = NotedKernel(), Told()
    cache = KernelCache(kernel)
    cache.freshness = told
    return cache, kernel, told


Scene = tuple[KernelCache, NotedKernel, Told]


def attributes(inode: int, size: int = 0, modified_ns: int = 0) -> Attributes:
    return Attributes(inode, 0o100644, 1, 0, 0, size, 0, modified_ns, modified_ns, 3, 1 << 26, 0)


def test_nothing_is_kept_before_anyone_watches() -> None:
    cache = KernelCache(NotedKernel())
    assert cache.keeps_inode(attributes(5), cache.mark()) == 0
    assert cache.keeps_entry(1, b"name", attributes(5), cache.mark()) == 0


def test_an_answer_that_was_overtaken_is_not_kept(scene: Scene) -> None:
    cache, _, told = scene
    told.changed |= {5, (1, b"name")}
    assert cache.keeps_inode(attributes(5), 1) == 0
    assert cache.keeps_entry(1, b"name", attributes(5), 1) == 0
    assert cache.keeps_inode(attributes(6), 1) == cache.keeps_entry(1, b"other", attributes(6), 1) == KEPT_SECONDS
    told.is_current = False
    assert cache.keeps_inode(attributes(6), 1) == cache.keeps_entry(1, b"other", attributes(6), 1) == 0


def test_what_is_given_beyond_the_bound_is_dropped_first(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, kernel, _ = scene
    monkeypatch.setattr(caching, "INODES_MAX", 2)
    monkeypatch.setattr(caching, "ENTRIES_MAX", 2)
    for inode in (5, 6, 5, 7):
        cache.keeps_inode(attributes(inode), 1)
        cache.keeps_entry(1, b"%d" % inode, attributes(inode), 1)
    assert kernel.inodes == [6]
    assert kernel.entries == [(1, b"6")]
    cache.drop_everything()
    assert set(kernel.inodes) == {5, 6, 7}
    assert set(kernel.entries) == {(1, b"5"), (1, b"6"), (1, b"7")}


def test_a_file_that_others_change_is_looked_up_anew_by_each_of_its_names(scene: Scene) -> None:
    cache, kernel, _ = scene
    directory = msgspec.structs.replace(attributes(6), mode=0o40755)
    for name, found in [(b"a", attributes(5)), (b"b", attributes(5)), (b"c", directory), (b"d", attributes(7))]:
        cache.keeps_entry(1, name, found, 1)
    cache.removed(1, b"b")
    cache.keeps_entry(1, b"e", attributes(5), 1)
    cache.keeps_entry(1, b"d", directory, 1)
    cache.invalidate(Invalidate((5, 6, 7), (), ()))
    assert sorted(kernel.entries) == [(1, b"a"), (1, b"e")]
    assert sorted(kernel.inodes) == [5, 6, 7]


@pytest.mark.parametrize("exchange", [False, True])
def test_what_is_renamed_here_is_kept_by_its_new_name(scene: Scene, exchange: bool) -> None:
    cache, kernel, _ = scene
    cache.keeps_entry(1, b"old", attributes(5), 1)
    cache.keeps_entry(1, b"new", attributes(6), 1)
    cache.renamed((1, b"old"), (2, b"new"), exchange)
    cache.renamed((3, b"unknown"), (3, b"also"), exchange)
    assert cache.inode_at(2, b"new") == 5
    assert cache.inode_at(3, b"also") is None
    cache.invalidate(Invalidate((5,), (), ()))
    assert kernel.entries == [(2, b"new")]
    cache.drop_everything()
    assert (3, b"also") in kernel.entries


def test_pages_are_good_until_someone_else_changes_the_file(scene: Scene) -> None:
    cache, kernel, _ = scene
    assert not cache.pages_are_good(attributes(5, 10, 1))
    assert cache.pages_are_good(attributes(5, 10, 1))
    assert not cache.pages_are_good(attributes(5, 10, 2))
    cache.pages_stay(attributes(5, 10, 3), 1)
    assert cache.pages_are_good(attributes(5, 10, 3))
    cache.invalidate(Invalidate((5,), ((1, b"name"),), ()))
    assert not cache.pages_are_good(attributes(5, 10, 3))
    assert kernel.inodes == [5]
    assert kernel.entries == [(1, b"name")]


def test_an_open_has_the_kernel_ask_if_it_was_given_other_attributes(scene: Scene) -> None:
    cache, kernel, _ = scene
    cache.keeps_inode(attributes(5, size=1), 1)
    cache.pages_are_good(attributes(5, size=1))
    assert kernel.expired == []
    cache.pages_are_good(attributes(5, size=0))
    assert kernel.expired == [5]
    cache.keeps_inode(attributes(5, size=0), 1)
    cache.invalidate(Invalidate((5,)))
    cache.pages_are_good(attributes(5, size=0))
    assert kernel.expired == [5, 5], "the notice may not have reached the kernel"
