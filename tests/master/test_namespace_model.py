"""The namespace against a small model: every request gives the same result, error and tree."""

import stat
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gfsmaster import operations as op
from gfsprotocol import messages as msg
from gfsprotocol.errors import GfsError
from tests.master.machine import CHUNK_BYTES, CLIENT, Machine


@dataclass(eq=False)
class Node:
    kind: str
    entries: dict[bytes, "Node"] = field(default_factory=dict)
    target: bytes = b""
    size: int = 0
    links: int = 0
    xattrs: dict[bytes, bytes] = field(default_factory=dict)


class Model:
    """What POSIX says, in a dict of dicts."""

    def __init__(self) -> None:
        self.root = Node("directory")

    def walk(self, path: bytes, follow: bool, depth: int = 0) -> tuple[Node, bytes, Node | None]:
        """(parent, name, node); raises the name of the error."""
        if depth > 40:
            raise KeyError("SymlinkLoop")
        parts = [part for part in path.split(b"/") if part]
        node, parent, name = self.root, self.root, b""
        for index, part in enumerate(parts):
            if node.kind != "directory":
                raise KeyError("NotADirectory")
            found = node.entries.get(part)
            last = index == len(parts) - 1
            if found is None:
                if last:
                    return node, part, None
                raise KeyError("NotFound")
            if found.kind == "symlink" and (not last or follow):
                rest = b"/".join([found.target, *parts[index + 1 :]])
                return self.walk(rest, follow, depth + 1)
            parent, name, node = node, part, found
        return parent, name, node

    def find(self, path: bytes, follow: bool = True) -> Node:
        node = self.walk(path, follow)[2]
        if node is None:
            raise KeyError("NotFound")
        return node

    def place(self, path: bytes) -> tuple[Node, bytes]:
        parent, name, node = self.walk(path, follow=False)
        if node is not None:
            raise KeyError("AlreadyExists")
        return parent, name

    def within(self, ancestor: Node, node: Node) -> bool:
        return ancestor is node or any(self.within(child, node) for child in ancestor.entries.values())

    def tree(self, node: Node) -> object:
        if node.kind == "directory":
            return {name: self.tree(child) for name, child in sorted(node.entries.items())}
        return (node.kind, node.target, node.size, node.links, sorted(node.xattrs.items()))


components = st.sampled_from([b"a", b"b", b"c", b"long-name"])
paths = st.lists(components, min_size=1, max_size=3).map(lambda parts: b"/" + b"/".join(parts))
sizes = st.sampled_from([0, 1, 5, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES])


class NamespaceAgainstModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.machine = Machine()
        self.model = Model()
        self.trash: dict[int, Node] = {}

    def both(self, body: msg.RequestBody, expected: str) -> msg.ReplyBody | None:
        try:
            reply = self.machine.do(body)
        except GfsError as error:
            assert type(error).__name__ == expected, f"{body}: {error!r}"
            assert "\n" not in error.message
            return None
        assert expected == "", body
        return reply

    def expect(self, action: object) -> str:
        try:
            action()  # type: ignore[operator]
        except KeyError as error:
            return str(error.args[0])
        return ""

    @rule(path=paths)
    def mkdir(self, path: bytes) -> None:
        def change() -> None:
            parent, name = self.model.place(path)
            parent.entries[name] = Node("directory")

        self.both(msg.Mkdir(path), self.expect(change))

    @rule(path=paths)
    def make_parents(self, path: bytes) -> None:
        def change() -> None:
            node = self.model.root
            parts = path.split(b"/")[1:]
            for index in range(1, len(parts) + 1):
                parent, name, entry = self.model.walk(b"/".join(parts[:index]), follow=False)
                try:
                    found = self.model.walk(b"/".join(parts[:index]), follow=True)[2]
                except KeyError as error:
                    raise KeyError("AlreadyExists" if error.args[0] == "NotFound" else error.args[0]) from error
                if found is None and entry is not None:
                    raise KeyError("AlreadyExists")
                if found is None:
                    rest = parts[index:]
                    node = parent.entries[name] = Node("directory")
                    for part in rest:
                        node.entries[part] = Node("directory")
                        node = node.entries[part]
                    return
                if found.kind != "directory":
                    raise KeyError("AlreadyExists" if index == len(parts) else "NotADirectory")

        self.both(msg.Mkdir(path, parents=True), self.expect(change))

    @rule(path=paths, exclusive=st.booleans())
    def create(self, path: bytes, exclusive: bool) -> None:
        def change() -> None:
            parent, name, node = self.model.walk(path, follow=not exclusive)
            if node is None:
                parent.entries[name] = Node("file", links=1)
            elif exclusive:
                raise KeyError("AlreadyExists")
            elif node.kind == "directory":
                raise KeyError("IsADirectory")

        self.both(msg.Create(path, exclusive=exclusive, open=False), self.expect(change))

    @rule(path=paths, to=paths)
    def symlink(self, path: bytes, to: bytes) -> None:
        def change() -> None:
            parent, name = self.model.place(path)
            parent.entries[name] = Node("symlink", target=to, size=len(to), links=1)

        self.both(msg.Symlink(path, target=to), self.expect(change))

    @rule(path=paths, to=paths)
    def link(self, path: bytes, to: bytes) -> None:
        def change() -> None:
            node = self.model.find(path, follow=False)
            parent, name = self.model.place(to)
            if node.kind == "directory":
                raise KeyError("NotPermitted")
            parent.entries[name] = node
            node.links += 1

        self.both(msg.Link(path, target=to), self.expect(change))

    @rule(path=paths)
    def unlink(self, path: bytes) -> None:
        def change() -> None:
            parent, name, node = self.model.walk(path, follow=False)
            if node is None:
                raise KeyError("NotFound")
            if node.kind == "directory":
                raise KeyError("IsADirectory")
            del parent.entries[name]
            node.links -= 1

        self.both(msg.Unlink(path), self.expect(change))

    @rule(path=paths, whole_tree=st.booleans())
    def rmdir(self, path: bytes, whole_tree: bool) -> None:
        def change() -> None:
            parent, name, node = self.model.walk(path, follow=False)
            if node is None:
                raise KeyError("NotFound")
            if not whole_tree and node.kind != "directory":
                raise KeyError("NotADirectory")
            if not whole_tree and node.entries:
                raise KeyError("DirectoryNotEmpty")
            del parent.entries[name]
            self.drop(node)

        self.both(msg.RemoveTree(path) if whole_tree else msg.Rmdir(path), self.expect(change))
        self.machine.reclaim()

    def drop(self, node: Node) -> None:
        node.links -= 1
        for child in node.entries.values():
            self.drop(child)

    @rule(path=paths, to=paths, no_replace=st.booleans(), exchange=st.booleans())
    def rename(self, path: bytes, to: bytes, no_replace: bool, exchange: bool) -> None:
        def change() -> None:
            parent, name, node = self.model.walk(path, follow=False)
            if node is None:
                raise KeyError("NotFound")
            new_parent, new_name, replaced = self.model.walk(to, follow=False)
            if no_replace and replaced is not None:
                raise KeyError("AlreadyExists")
            if exchange and replaced is None:
                raise KeyError("NotFound")
            if node.kind == "directory" and self.model.within(node, new_parent):
                raise KeyError("InvalidArgument")
            if replaced is not None and replaced.kind == "directory" and self.model.within(replaced, parent):
                raise KeyError("InvalidArgument" if exchange else "DirectoryNotEmpty")
            if exchange and replaced is not None:
                parent.entries[name], new_parent.entries[new_name] = replaced, node
                return
            if replaced is not None:
                if replaced is node:
                    return
                if node.kind == "directory" and replaced.kind != "directory":
                    raise KeyError("NotADirectory")
                if replaced.kind == "directory" and node.kind != "directory":
                    raise KeyError("IsADirectory")
                if replaced.entries:
                    raise KeyError("DirectoryNotEmpty")
                replaced.links -= 1
            del parent.entries[name]
            new_parent.entries[new_name] = node

        self.both(msg.Rename(path, target=to, no_replace=no_replace, exchange=exchange), self.expect(change))

    @rule(path=paths, size=sizes)
    def resize(self, path: bytes, size: int) -> None:
        def change() -> None:
            node = self.model.find(path)
            if node.kind == "directory":
                raise KeyError("IsADirectory")
            node.size = size

        self.both(msg.SetAttributes(path, size=size), self.expect(change))

    @rule(path=paths, index=st.integers(0, 2), length=st.integers(1, CHUNK_BYTES))
    def write_chunk(self, path: bytes, index: int, length: int) -> None:
        try:
            node = self.model.find(path)
        except KeyError:
            return
        if node.kind != "file":
            return
        attributes = self.machine.stat(path)
        slot = self.machine.state.inodes.slot_of(attributes.inode)
        present = self.machine.state.inodes.chunk_at(slot, index)
        chunk = self.machine.state.chunks.ids[present] if present else self.machine.add_chunk(attributes.inode, index)
        self.machine.do(msg.OpenForWrite(path))
        self.machine.do(msg.Close(attributes.inode, (msg.ChunkLength(index, chunk, length),)))
        node.size = max(node.size, index * CHUNK_BYTES + length)

    @rule(path=paths, name=st.sampled_from([b"user.x", b"user.y"]), value=st.binary(max_size=4), remove=st.booleans())
    def xattr(self, path: bytes, name: bytes, value: bytes, remove: bool) -> None:
        def change() -> None:
            node = self.model.find(path)
            if not remove:
                node.xattrs[name] = value
            elif name not in node.xattrs:
                raise KeyError("NoSuchAttribute")
            else:
                del node.xattrs[name]

        body = msg.RemoveXattr(path, name=name) if remove else msg.SetXattr(path, name=name, value=value)
        self.both(body, self.expect(change))

    @rule(path=paths)
    def move_to_trash(self, path: bytes) -> None:
        moved: list[Node] = []

        def change() -> None:
            parent, name, node = self.model.walk(path, follow=False)
            if node is None:
                raise KeyError("NotFound")
            if node in self.trash.values():
                raise KeyError("NotPermitted")
            moved.append(parent.entries.pop(name))

        reply = self.both(msg.MoveToTrash(path), self.expect(change))
        if isinstance(reply, msg.TrashReply):
            self.trash[reply.entry.inode] = moved[0]

    @rule(path=paths, restore=st.booleans())
    def from_trash(self, path: bytes, restore: bool) -> None:
        if not self.trash:
            return
        inode, node = next(iter(self.trash.items()))
        if not restore:
            self.both(msg.EmptyTrash((inode,)), "")
            self.drop(node)
            del self.trash[inode]
            self.machine.reclaim()
            return

        def change() -> None:
            parent, name = self.model.place(path)
            parent.entries[name] = node

        expected = self.expect(change)
        self.both(msg.RestoreTrash(path, inode=inode), expected)
        if not expected:
            del self.trash[inode]

    @rule(path=paths)
    def open_and_unlink(self, path: bytes) -> None:
        """A file that a writer has open lives on without a name, until the writer closes it."""
        try:
            parent, name, node = self.model.walk(path, follow=False)
        except KeyError:
            return
        if node is None or node.kind != "file":
            return
        inode = self.machine.stat(path, follow=False).inode
        self.machine.do(msg.OpenForWrite(path, follow=False))
        self.machine.do(msg.Unlink(path))
        del parent.entries[name]
        node.links -= 1
        assert self.machine.state.inodes.slot_of(inode)
        self.machine.log((op.CloseClient(CLIENT),))
        assert bool(self.machine.state.inodes.slot_of(inode)) == (node.links > 0)

    def tree(self, slot: int) -> object:
        inodes = self.machine.state.inodes
        directory = inodes.directories.get(slot)
        if directory is not None:
            subdirectories = sum(child in inodes.directories for _, child in directory)
            assert inodes.links[slot] == 2 + subdirectories
            for name, child in directory:
                if child in inodes.directories:
                    assert inodes.parent[child] == slot
                    assert inodes.directories[child].name == name
            return {name: self.tree(child) for name, child in directory}
        kind = "symlink" if stat.S_ISLNK(inodes.mode[slot]) else "file"
        xattrs = sorted(inodes.xattrs.get(slot, {}).items())
        return (kind, inodes.targets.get(slot, b""), inodes.size[slot], inodes.links[slot], xattrs)

    @invariant()
    def trees_are_equal(self) -> None:
        assert self.tree(1) == self.model.tree(self.model.root)

    @invariant()
    def replay_and_digest_are_equal(self) -> None:
        self.machine.check()

    @invariant()
    def nothing_is_lost_or_left_over(self) -> None:
        state = self.machine.state
        reachable: set[int] = set()
        waiting = [1, *state.trash]
        while waiting:
            slot = waiting.pop()
            reachable.add(slot)
            waiting += [child for _, child in state.inodes.directories.get(slot, ())]
        assert {slot for slot, inode in enumerate(state.inodes.ids) if inode} == reachable
        chunks = {chunk for slot in reachable for chunk in state.inodes.chunk_slots(slot) if chunk}
        assert {slot for slot, chunk in enumerate(state.chunks.ids) if chunk} == chunks


TestNamespaceAgainstModel = pytest.mark.slow(NamespaceAgainstModel.TestCase)
TestNamespaceAgainstModel.settings = settings(
    max_examples=200, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
