"""Connections that are watched while in use, and not used again when they have been idle for long.

A server closes what is idle (Kestrel after 130 s). A request that crosses that close may have been carried out or
not, and nobody can tell; so a connection that comes near that age is closed here first.
"""

import threading
from typing import Any

from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from topstep_sync.clock import SYSTEM_CLOCK, Clock
from topstep_sync.http.watch import Watch, Watched


class Here(threading.local):
    """What this thread is waiting for."""

    watched: Watched | None = None


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

    keeper: Keeper

    def _get_conn(self, timeout: float | None = None) -> Any:
        connection: Any = super()._get_conn(timeout)
        keeper = self.keeper
        since = getattr(connection, "idle_since", None)
        if since is not None and keeper.now() - since > keeper.max_idle:
            connection.close()  # it connects anew when used
        watched = keeper.here.watched
        if watched is not None:
            watched.connection = connection
        return connection

    def _put_conn(self, conn: Any) -> None:
        keeper = self.keeper
        watched = keeper.here.watched
        if watched is not None and watched.connection is not None:
            keeper.watch.take_back(watched)
        if conn is not None:
            conn.idle_since = keeper.now()
        super()._put_conn(conn)


class KeptTlsPool(KeptPool, HTTPSConnectionPool):
    """A pool over TLS."""
