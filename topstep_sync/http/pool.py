"""Connections that are watched while in use, and not used again when they have been idle for long.

A server closes what is idle (Kestrel after 130 s). A request that crosses that close may have been carried out or
not, and nobody can tell; so a connection that comes near that age is closed here first.
"""

import queue
import threading
from http.client import HTTPException
from typing import Any, Final

from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError

from topstep_sync.clock import SYSTEM_CLOCK, Clock
from topstep_sync.http.watch import Watch, Watched

WARM: Final = 4
"""Idle connections that are kept open; an order and its look-up need two."""


class Here(threading.local):
    """What this thread is waiting for."""

    watched: Watched | None = None
    sent: bool | None = None
    """Whether its request may have left; False: the connection does not stand yet. None: no pool of ours was asked."""


class Stack(queue.LifoQueue[Any]):
    """The idle connections of a pool: the queue that urllib3 uses, without its lock.

    A Ctrl-C at the wrong moment leaves the lock of a `queue` closed, and every later call hangs. Putting and taking are
    single steps here. Never waits: our pools do not block.
    """

    queue: list[Any]

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        if 0 < self.maxsize <= len(self.queue):  # two threads at once may put one more, which hurts nobody
            raise queue.Full
        self.queue.append(item)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        try:
            return self.queue.pop()
        except IndexError:
            raise queue.Empty from None

    def qsize(self) -> int:
        return len(self.queue)


class Keeper:
    """What the pools of one adapter share.

    Args:
        watch: for connections in use.
        max_idle: seconds after which an idle connection is not used again.
    """

    def __init__(self, watch: Watch, max_idle: float, clock: Clock = SYSTEM_CLOCK) -> None:
        self.watch = watch
        self.max_idle = max_idle
        self.here = Here()
        self.clock = clock
        self.now = clock.monotonic

    def classes(self) -> dict[str, Any]:
        """What urllib3's managers make their pools of."""
        return {"http": self._of(KeptPool), "https": self._of(KeptTlsPool)}

    def _of(self, cls: Any) -> Any:
        def make(*args: Any, **kwargs: Any) -> Any:
            pool = cls(*args, **kwargs)
            pool.keeper = self
            return pool

        return make


class KeptPool(HTTPConnectionPool):
    """A pool over plain TCP."""

    QueueCls = Stack
    keeper: Keeper

    def _get_conn(self, timeout: float | None = None) -> Any:
        connection: Any = super()._get_conn(timeout)
        keeper = self.keeper
        since = getattr(connection, "idle_since", None)
        if since is not None and keeper.now() - since > keeper.max_idle:
            connection.close()  # it connects anew when used
        watched = keeper.here.watched
        keeper.here.sent = False
        if watched is not None:
            watched.connection = connection
        return connection

    def _validate_conn(self, conn: Any) -> None:
        super()._validate_conn(conn)
        if conn.is_closed:
            conn.connect()  # here and not with the first bytes, so that what fails below was sent, and above was not
        watched = self.keeper.here.watched
        if watched is not None and watched.cut:  # there was nothing to cut yet, and nobody would cut it later
            raise OSError("cut before it stood")
        self.keeper.here.sent = True

    def _put_conn(self, conn: Any) -> None:
        keeper = self.keeper
        watched = keeper.here.watched
        if watched is not None and watched.connection is not None:
            keeper.watch.take_back(watched)
        if conn is not None:
            conn.idle_since = keeper.now()
        super()._put_conn(conn)

    def warm(self, path: str, headers: Any, idle: float, timeout: float) -> int:
        """Connections that have been idle for *idle* seconds have carried a GET of *path*; at least one is open.

        Returns:
            How many requests that took. Connections beyond the first few are left to grow old.
        """
        taken, open_ones = self._take_idle(idle)
        for connection in taken[:WARM]:
            self._ping(connection, path, headers, timeout)
        for connection in taken[WARM:]:
            super()._put_conn(connection)
        if taken or open_ones:
            return len(taken[:WARM])
        self.urlopen("GET", path, headers=headers, retries=False, timeout=timeout)
        return 1

    def _take_idle(self, idle: float) -> tuple[list[Any], int]:
        """The connections that have been idle for that long, newest first, taken out; and how many open ones stay."""
        taken: list[Any] = []
        kept: list[Any] = []
        while self.pool is not None:
            try:
                connection: Any = self.pool.get(block=False)
            except queue.Empty:
                break
            since = getattr(connection, "idle_since", None)
            old = since is not None and self.keeper.now() - since >= idle and not connection.is_closed
            (taken if old else kept).append(connection)
        for connection in reversed(kept):
            super()._put_conn(connection)
        return taken, sum(connection is not None and not connection.is_closed for connection in kept)

    def _ping(self, connection: Any, path: str, headers: Any, timeout: float) -> None:
        try:
            connection.timeout = timeout
            if connection.sock is not None:
                connection.sock.settimeout(timeout)
            connection.request("GET", path, headers=headers)
            connection.getresponse()
        except (OSError, HTTPError, HTTPException):
            connection.close()
        finally:
            self._put_conn(connection)


class KeptTlsPool(KeptPool, HTTPSConnectionPool):
    """A pool over TLS."""
