"""Where the sealed token lies between machines, and the lease that lets one process of them refresh. Extra: ``redis``.

Redis sees what a disk would see: the sealed bytes, and the generation, which it needs to turn away old answers.
"""

import contextlib
import logging
import secrets
from collections.abc import Iterator
from typing import Any, Final

from topstep_sync.clock import Clock, Deadline, Waitable
from topstep_sync.errors import MissingExtra

log = logging.getLogger("topstep_sync.auth")

POLL: Final = 0.05  # seconds between looks at a lease that somebody else holds
TIMEOUT: Final = 5.0  # seconds for a connection, and for an answer
LEASE_MS: Final = 60_000  # as long as a refresh may take at most; its holder may have died
KEEP: Final = 86_400.0  # seconds that an expired token stays, so that generations go on counting

# KEYS: the token. ARGV: generation, sealed token, milliseconds to keep it.
_WRITE: Final = """
local held = redis.call('HGET', KEYS[1], 'generation')
if held and tonumber(held) > tonumber(ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 'generation', ARGV[1], 'sealed', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
"""

# KEYS: the lease. ARGV: who we are. A lease that ran out and went to somebody else is not ours to end.
_RELEASE: Final = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"

# KEYS: the token, the place aside. ARGV: the bytes that are to go there.
_ASIDE: Final = """
if redis.call('HGET', KEYS[1], 'sealed') ~= ARGV[1] then return 0 end
redis.call('RENAME', KEYS[1], KEYS[2])
return 1
"""


class RedisShelf:
    """One hash and one lease key per user and gateway.

    Args:
        url: a ``redis://`` or ``rediss://`` address.
        name: tells users and gateways apart.
        clock: for waiting; stored times are on Redis' own clock, so that machines need not agree.
    """

    def __init__(self, url: str, name: str, clock: Clock) -> None:
        self._key = f"topstep_sync:token:{name}"  # first: a crash reporter asks a half-made object for its repr
        try:
            import redis
        except ImportError:
            raise MissingExtra("sharing tokens over Redis needs an extra: pip install 'topstep-sync[redis]'") from None
        self._redis: Any = redis.Redis.from_url(url, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT)
        self._error: type[Exception] = redis.RedisError
        self._clock = clock

    def ahead(self) -> float:
        """Stored times are on Redis' clock, which is this many seconds ahead of ours."""
        seconds, microseconds = self._redis.time()
        return float(seconds + microseconds / 1e6) - self._clock.epoch()

    def read(self) -> bytes | None:
        found: bytes | None = self._redis.hget(self._key, "sealed")
        return found

    def write(self, blob: bytes, generation: int, life: float) -> bool:
        keep = int((max(0.0, life) + KEEP) * 1000)
        return bool(self._redis.eval(_WRITE, 1, self._key, generation, blob, keep))

    def remove(self) -> None:
        self._redis.delete(self._key)

    def set_aside(self, blob: bytes) -> str | None:
        """Where *blob* lies now, if it was still what the key held."""
        aside = f"{self._key}:unreadable"
        return aside if self._redis.eval(_ASIDE, 2, self._key, aside, blob) else None

    @contextlib.contextmanager
    def lease(self, timeout: float, cancelled: Waitable) -> Iterator[bool]:
        """Whether this thread alone may refresh; False after *timeout* seconds, or when *cancelled* was set."""
        me = secrets.token_hex(16)
        alone = self._acquire(me, Deadline(timeout, self._clock), cancelled)
        try:
            yield alone
        finally:
            if alone:
                with contextlib.suppress(self._error):  # it runs out by itself
                    self._redis.eval(_RELEASE, 1, f"{self._key}:lease", me)

    def _acquire(self, me: str, deadline: Deadline, cancelled: Waitable) -> bool:
        try:
            while not self._redis.set(f"{self._key}:lease", me, nx=True, px=LEASE_MS):
                if deadline.expired or self._clock.wait(cancelled, deadline.bound(POLL)):
                    return False
        except self._error as error:
            log.warning("! Redis gives no lease: %s", error)
            return False
        return True

    def __repr__(self) -> str:
        return f"RedisShelf({self._key!r})"
