"""One client's masters, asked in the names of many users: for a gateway, which acts as whoever it speaks for."""

from gfsclient.masters import Masters
from gfsclient.user import User
from gfsprotocol.messages import ReplyBody, RequestBody


class ActingMasters(Masters):
    """Another client's masters in the name of ``user``: connections, call numbers and the leader are the other's.

    Nothing of it need be closed.
    """

    def __init__(self, shared: Masters, user: User) -> None:
        # Not Masters.__init__: but for the user, there is nothing of our own.
        self._shared = shared
        self.user = user
        self.client = shared.client
        self.deadline_seconds = shared.deadline_seconds

    async def call(
        self,
        body: RequestBody,
        deadline_seconds: float | None = None,
        at_leader: bool = False,
        user: User | None = None,
    ) -> ReplyBody:
        return await self._shared.call(body, deadline_seconds, at_leader, self.user if user is None else user)

    def count_writer(self, change: int) -> None:
        self._shared.count_writer(change)

    async def connect(self, deadline_seconds: float | None = None) -> None:
        await self._shared.connect(deadline_seconds)

    async def close(self) -> None:
        """Does nothing: the connections are another's."""
