"""Planning: a request becomes operations, or an answer, or a deterministic error. Pure.

The planner checks everything that can be checked and chooses everything that can be chosen, so that applying the
operations can neither fail nor depend on anything but the state (HDFS's FSDir*Op and MooseFS's fs_univ_* separate the
same two steps). One method per request, in the module for its kind.
"""

from collections.abc import Callable
from typing import Any, Final

from gfsmaster.attributes import IDS, AttributePlanner
from gfsmaster.creation import CreationPlanner
from gfsmaster.namespace import Namespace, User
from gfsmaster.places import Places, Plan
from gfsmaster.removal import RemovalPlanner
from gfsmaster.state import State
from gfsmaster.writing import WritingPlanner
from gfsprotocol import messages as msg
from gfsprotocol.errors import InvalidArgument

GROUPS_MAX: Final = 1024


def check_user(user: User) -> None:
    """InvalidArgument unless it is a uid, a gid and a bounded number of further groups."""
    if not 2 <= len(user) <= GROUPS_MAX or any(number not in IDS for number in user):
        raise InvalidArgument("a request's user is a uid, a gid and supplementary groups, all of them 32-bit numbers")


class Planner:
    """Plans namespace changes for requests of clients. ``now_ns`` is the leader's clock."""

    def __init__(self, state: State) -> None:
        self.namespace = Namespace(state)
        places = Places(state, self.namespace)
        attributes = AttributePlanner(state, self.namespace)
        writing = WritingPlanner(state, self.namespace, places, attributes)
        creation = CreationPlanner(state, self.namespace, places, writing)
        removal = RemovalPlanner(state, self.namespace, places)
        self._planners: dict[type, Callable[[Any, User, bytes, int], Plan]] = {
            msg.Mkdir: creation.mkdir,
            msg.MakeNode: creation.make_node,
            msg.Create: creation.create,
            msg.Symlink: creation.symlink,
            msg.Link: creation.link,
            msg.OpenForWrite: writing.open_for_write,
            msg.Hold: writing.hold,
            msg.Close: writing.close,
            msg.RecordLength: writing.record_length,
            msg.Publish: writing.publish,
            msg.Rename: removal.rename,
            msg.Unlink: removal.unlink,
            msg.Rmdir: removal.rmdir,
            msg.RemoveTree: removal.remove_tree,
            msg.MoveToTrash: removal.move_to_trash,
            msg.RestoreTrash: removal.restore_trash,
            msg.EmptyTrash: removal.empty_trash,
            msg.SetAttributes: attributes.set_attributes,
            msg.SetReplication: attributes.set_replication,
            msg.SetXattr: attributes.set_xattr,
            msg.RemoveXattr: attributes.remove_xattr,
        }

    def plans(self, body: msg.RequestBody) -> bool:
        """Whether a request is a namespace change."""
        return type(body) in self._planners

    def plan(self, body: msg.RequestBody, user: User, client: bytes, now_ns: int) -> Plan:
        """The plan for a request. A NamespaceError is its deterministic answer."""
        return self._planners[type(body)](body, user, client, now_ns)
