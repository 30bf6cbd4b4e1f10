"""Who may do what: tokens and grants checked against the cluster's key, the leader's clock and the epoch fence."""

import functools
import threading
import time
from typing import Final

from gfschunkserver.store import Store
from gfsprotocol import tokens
from gfsprotocol.errors import InvalidArgument, LeaseLost, TokenRefused
from gfsprotocol.ids import CHUNK_BYTES_MAX, REPLICATION_MAX
from gfsprotocol.messages import Grant

RENEWALS_UNSEEN: Final = 2
"""A session renews its lease once before the end, and may have nothing to send any more; one more for slow clients."""
TOKENS_KEPT_MAX: Final = 1024


class Access:
    """Checks what clients and peers bring along. Safe for threads."""

    def __init__(self, secret: bytes, store: Store) -> None:
        self._key = tokens.token_key(secret)
        # A token is read with again and again; what does not change is whether it is genuine, and what it says.
        self._open_read = functools.lru_cache(TOKENS_KEPT_MAX)(functools.partial(tokens.open_read, self._key))
        self._store = store
        self._clock = tokens.TokenClock()
        self._lock = threading.Lock()

    def heard(self, epoch: int, token_clock_ms: int) -> None:
        """A leader said what its token clock shows."""
        with self._lock:
            self._clock.heard(epoch, token_clock_ms, time.monotonic())

    def check_read(self, blob: bytes, chunk: int) -> None:
        """TokenRefused unless ``blob`` allows reading the chunk now."""
        token = self._open_read(blob)
        if token.chunk != chunk:
            raise TokenRefused(f"the read token is for chunk {token.chunk:x}, not for {chunk:x}")
        with self._lock:
            self._clock.check(token.epoch, token.issued_ms, token.expires_ms, time.monotonic())

    def open_grant(self, blob: bytes, position: int) -> Grant:
        """The grant, if it makes this server the member at ``position`` and holds now.

        TokenRefused if it is not genuine, LeaseLost if its time is over, InvalidArgument if it makes no sense.
        """
        grant = tokens.open_grant(self._key, blob)
        members = grant.members
        if not 1 <= len(members) <= REPLICATION_MAX or len({member.server for member in members}) != len(members):
            raise InvalidArgument(f"a grant with {len(members)} members makes no sense")
        if not 0 <= position < len(members) or members[position].server != self._store.server:
            raise TokenRefused(f"this server, {self._store.server:016x}, is not member {position} of the grant")
        if not 0 < grant.chunk_bytes <= CHUNK_BYTES_MAX or grant.version < 1 or grant.base_version > grant.version:
            raise InvalidArgument(f"the grant for chunk {grant.chunk:x} makes no sense")
        if not self._store.cluster:
            raise LeaseLost("this server does not know its cluster yet")
        self.check_lease(grant)
        if grant.epoch > self._store.highest_epoch:
            self._store.obey(grant.epoch)
        return grant

    def check_lease(self, grant: Grant) -> None:
        """LeaseLost if the grant's time is over."""
        with self._lock:
            try:
                self._clock.check(grant.epoch, grant.issued_ms, grant.expires_ms, time.monotonic())
            except TokenRefused as error:
                raise LeaseLost(f"the lease on chunk {grant.chunk:x} has ended: {error.message}") from error

    def is_over(self, grant: Grant) -> bool:
        """Whether the lease has ended as far as the grant that we have seen says."""
        try:
            self.check_lease(grant)
        except LeaseLost:
            return True
        return False

    def is_long_over(self, grant: Grant) -> bool:
        """Whether the lease has ended even if it was renewed by somebody who has not shown us the new grant yet."""
        until = grant.expires_ms + RENEWALS_UNSEEN * (grant.expires_ms - grant.issued_ms)
        with self._lock:
            try:
                self._clock.check(grant.epoch, grant.issued_ms, until, time.monotonic())
            except TokenRefused:
                return True
        return False

    def sign_read(self, grant: Grant) -> bytes:
        """A token by which a member of the grant may read from another one."""
        token = tokens.ReadToken(grant.chunk, grant.base_version, grant.epoch, grant.issued_ms, grant.expires_ms)
        return tokens.sign_read(self._key, token)
