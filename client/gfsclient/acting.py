"""One client's masters, asked in the names of many users: for a gateway, which acts as whoever it speaks for."""

from gfsclient.masters import Masters
from gfsclient.user import Acting, User
from gfsprotocol.messages import ReplyBody, RequestBody


class ActingMasters(Masters):
    """Another client's masters in somebody's name: connections, call numbers and the leader are the other's.

    Nothing of it need be closed.
    """

    def __init__(self, shared: Masters, acting: Acting) -> None:
        # Not Masters.__init__: but for the user, there is nothing of our own.
        self._shared = shared
        self.user = acting.user
        self._confined = acting.confined
        self.client = shared.client
        self.deadline_seconds = shared.deadline_seconds

    async def call(
        self,
        body: RequestBody,
        deadline_seconds: float | None = None,
        at_leader: bool = False,
        user: User | None = None,
        confined: tuple[bytes, ...] = (),
    ) -> ReplyBody:
        acting = self.user if user is None else user
        return await self._shared.call(body, deadline_seconds, at_leader, acting, confined or self._confined)

    def count_writer(self, change: int) -> None:
        self._shared.count_writer(change)

    async def connect(self, deadline_seconds: float | None = None) -> None:
        await self._shared.connect(deadline_seconds)

    async def close(self) -> None:
        """Does nothing: the connections are another's."""
