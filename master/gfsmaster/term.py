"""One epoch as its leader lives it: its number, its clock, and the tokens that are signed in it."""

from typing import Final

from gfsprotocol.channel import Clock
from gfsprotocol.messages import Grant
from gfsprotocol.tokens import ReadToken, sign_grant, sign_read

READ_TOKEN_SECONDS: Final = 600


class Term:
    """Tokens expire on the clock of the leader that signed them; chunk servers hear it with each heartbeat."""

    def __init__(self, epoch: int, clock: Clock, token_key: bytes, started: float) -> None:
        """``started`` is in monotonic seconds of this node."""
        self.epoch = epoch
        self._clock = clock
        self._token_key = token_key
        self.started = started

    @property
    def clock_ms(self) -> int:
        """Milliseconds since the term began."""
        return int((self._clock.monotonic() - self.started) * 1000)

    def sign_read(self, chunk: int, version: int) -> bytes:
        """A token to read a chunk at this version or a newer one."""
        now_ms = self.clock_ms
        token = ReadToken(chunk, version, self.epoch, now_ms, now_ms + READ_TOKEN_SECONDS * 1000)
        return sign_read(self._token_key, token)

    def sign_grant(self, grant: Grant) -> bytes:
        """A token to write a chunk."""
        return sign_grant(self._token_key, grant)
