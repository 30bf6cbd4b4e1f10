"""Tells the clients that watch, over their connections, what :mod:`gfsmaster.watches` has found.

Atomic between awaits: nothing here awaits, so a notice is queued in the turn in which its record became durable, behind
the answers that waited for the same record, and before anything that is answered later.
"""

import logging
from typing import Final

from gfsmaster.commits import Committer
from gfsmaster.watches import Watches
from gfsprotocol import messages as msg
from gfsprotocol.rpc import Peer

log = logging.getLogger(__name__)

UNTAKEN_MAX: Final = 65_536
"""Inodes and names in notices that a client has not read yet; one that is slower has to drop everything."""


class _Untaken:
    """What was queued for a client and has not left yet."""

    __slots__ = ("items", "queued")

    def __init__(self) -> None:
        self.items = 0
        self.queued = 0
        """The connection's count of messages up to the last of these notices."""


class Notices:
    """The connections that watch."""

    def __init__(self, watches: Watches[Peer], committer: Committer) -> None:
        self._watches = watches
        self._committer = committer
        self._untaken: dict[Peer, _Untaken] = {}
        self._is_watched = False
        """Whether the request that is being answered came over a connection that watches."""
        self._reply: msg.ReplyBody | None = None

    def watch(self, peer: Peer) -> None:
        """From now on this connection is told what others change of what it is answered."""
        self._watches.add(peer)
        self._untaken[peer] = _Untaken()

    def disconnected(self, peer: Peer) -> None:
        if self._untaken.pop(peer, None) is not None:
            self._watches.remove(peer)

    # ------------------------------------------------------------------------------------------------------ requests

    def begin(self, peer: Peer) -> None:
        """A request is being answered."""
        if self._untaken:
            self._watches.begin(peer)
            if peer in self._untaken:
                self._is_watched = True
                self._committer.on_reply = self._show

    def end(self) -> None:
        """It was answered, or will be later."""
        if self._is_watched:
            self._is_watched, self._committer.on_reply = False, None
            reply, self._reply = self._reply, None
            self._watches.end(reply)
            self.tell()

    def _show(self, reply: msg.ReplyBody) -> None:
        self._reply = reply

    # ------------------------------------------------------------------------------------------------------- notices

    def tell(self) -> None:
        """Sends what is durable by now."""
        committed = self._committer.committed
        while told := self._watches.take(committed):
            for peer, notices in told:
                self._send(peer, notices)

    def _send(self, peer: Peer, notices: list[msg.Invalidate]) -> None:
        untaken = self._untaken[peer]
        if peer.sent >= untaken.queued:
            untaken.items = 0
        untaken.items += sum(len(notice.inodes) + len(notice.names) + len(notice.removed) for notice in notices)
        if untaken.items > UNTAKEN_MAX and not notices[0].everything:
            log.warning("%s does not read its notices: it has to drop all that it keeps", peer.name)
            untaken.items = 0
            self._watches.drop(peer)
            return
        for notice in notices:
            peer.notify(notice)
        untaken.queued = peer.queued

    def farewell(self) -> None:
        """The leadership is given back: the next leader tells nobody who does not ask it to."""
        self._watches.drop_all()
        self.tell()

    def close(self) -> None:
        """The leadership is over."""
        self._untaken.clear()
        self._watches.close()
