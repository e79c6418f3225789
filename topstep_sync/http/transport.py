"""From a prepared request to a reply with its body, over one pool: requests' own transport with the repetition cut out.

It ends in `HTTPAdapter.send`, whose own retries are off, so that tools which stand in for it keep working.
"""

from typing import Any, Final

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Timeout

from topstep_sync import errors
from topstep_sync.clock import SYSTEM_CLOCK, Clock, Deadline
from topstep_sync.config import HttpConfig
from topstep_sync.http.pool import Keeper
from topstep_sync.http.prepare import Prepared, Reply
from topstep_sync.http.watch import Watch

PIECE: Final = 64 * 1024  # bytes
POOLS: Final = 4  # one per set of TLS and proxy settings; more than one are rare


class Transport(HTTPAdapter):
    """Sends one attempt to one origin. Thread-safe."""

    def __init__(self, config: HttpConfig, clock: Clock = SYSTEM_CLOCK) -> None:
        self._http = config
        self._watch = Watch(clock)
        self._keeper = Keeper(self._watch, config.max_idle, clock)
        self._pool: tuple[Any, Any, Any, Any] | None = None  # the pool, and the settings it was found with
        super().__init__(pool_connections=POOLS, pool_maxsize=config.pool_size, max_retries=0, pool_block=False)

    def forked(self) -> None:
        """In a child process: no connection is shared with the parent, and nothing is waited for."""
        self._watch = Watch(self._keeper.clock)
        self._keeper = Keeper(self._watch, self._http.max_idle, self._keeper.clock)
        self._pool = None
        self.proxy_manager = {}
        self.init_poolmanager(POOLS, self._http.pool_size, block=False)

    def limits(self, timeout: Any, deadline: Deadline) -> Timeout:
        """The timeouts of one attempt: the caller's, else the configured; never past the deadline.

        Args:
            timeout: as requests takes it: seconds, a pair (connect, read), a `Timeout`, or None for the configured.
            deadline: of the whole call.

        Raises:
            DeadlineExceeded: it is over.
            ValueError: *timeout* is none of these; with requests' own words.
        """
        if isinstance(timeout, Timeout):
            connect, read = timeout.connect_timeout, timeout.read_timeout
        elif isinstance(timeout, tuple):
            if len(timeout) != 2:
                raise ValueError(f"Invalid timeout {timeout}. Pass a (connect, read) timeout tuple, or a single float")
            connect, read = timeout
        else:
            connect = read = timeout
        left = deadline.remaining()
        if left <= 0:
            raise errors.DeadlineExceeded("the time for this call is over; nothing was sent")
        connect = connect if isinstance(connect, (int, float)) else self._http.connect_timeout
        read = read if isinstance(read, (int, float)) else self._http.read_timeout
        return Timeout(connect=min(connect, left), read=min(read, left))

    def fetch(
        self, request: requests.PreparedRequest, stream: bool, limits: Timeout, deadline: Deadline, **tls: Any
    ) -> requests.Response:
        """The reply of one attempt, with its body in memory unless *stream*; the body of a stream has no deadline."""
        here = self._keeper.here
        here.sent = None
        watched = here.watched = self._watch.enter(deadline.at)
        try:
            response = super().send(request, stream=stream, timeout=limits, **tls)  # type: ignore[arg-type]
            if not stream:
                # Here, not in the caller: what breaks while the body comes in must break the attempt.
                response._content = self._body(response.raw)
                response._content_consumed = True  # type: ignore[attr-defined]
                if watched.cut:  # a body without a length looks whole when its connection ends
                    raise self._cut_off()
        except Exception as error:
            if watched.cut and not isinstance(error, errors.ReplyLost):
                raise (self._too_late() if here.sent is False else self._cut_off()) from error
            raise
        finally:
            watched.over, here.watched = True, None
            self._watch.leave(watched)
        return response

    @property
    def sent(self) -> bool | None:
        """Whether the last attempt of this thread may have left, as its connection knows it; None: it was not asked."""
        return self._keeper.here.sent

    def _body(self, raw: Any) -> bytes:
        """The whole body, unless it is larger than allowed."""
        most = self._http.max_reply_bytes
        # Piece by piece: a read of the whole copies large bodies once more than joining their pieces does.
        pieces = raw.stream(PIECE, decode_content=True) if hasattr(raw, "stream") else (raw.read(),)
        found, size = [], 0
        for piece in pieces:
            size += len(piece)
            if size > most:
                raw.close()
                raise errors.BadReply(f"the reply has more than {most} bytes; see HttpConfig.max_reply_bytes")
            found.append(piece)
        return found[0] if len(found) == 1 else b"".join(found)

    def _cut_off(self) -> errors.ReplyLost:
        if self._watch.closed:
            return errors.ReplyLost(
                "the session was closed before the reply came; whether the gateway acted is not known"
            )
        return errors.ReplyTimedOut("the time for this call passed before the whole reply came")

    def _too_late(self) -> errors.ConnectFailed:
        if self._watch.closed:
            return errors.ConnectFailed("the session was closed before there was a connection; nothing was sent")
        return errors.ConnectTimedOut("the time for this call passed before there was a connection; nothing was sent")

    def warm(self, request: requests.PreparedRequest, **tls: Any) -> int:
        """Idle connections have carried *request*, a ping, before they grow too old; at least one is open."""
        pool = self.get_connection_with_tls_context(request, tls["verify"], tls["proxies"], tls["cert"])
        timeout = self._http.connect_timeout
        count: int = pool.warm(request.path_url, request.headers, self._http.max_idle / 2, timeout)
        return count

    ########################################### what requests calls ###########################################

    def get_connection_with_tls_context(
        self, request: requests.PreparedRequest, verify: Any, proxies: Any = None, cert: Any = None
    ) -> Any:
        """The pool: found once, as long as the settings are the very same."""
        known = self._pool
        if known is not None and known[1] is verify and known[2] is cert and known[3] is proxies:
            return known[0]
        pool = super().get_connection_with_tls_context(request, verify, proxies=proxies, cert=cert)
        super().cert_verify(pool, request.url, verify, cert)  # type: ignore[no-untyped-call]
        self._pool = (pool, verify, cert, proxies)
        return pool

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """Done where the pool is found."""

    def request_url(self, request: requests.PreparedRequest, proxies: Any) -> str:
        if not proxies and isinstance(request, Prepared):
            return request.target
        return str(super().request_url(request, proxies))

    def build_response(self, req: requests.PreparedRequest, resp: Any) -> Reply:
        return Reply.of(req, resp, self)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._keeper.classes()

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager: Any = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = self._keeper.classes()
        return manager

    def close(self) -> None:
        self._pool = None
        self._watch.close()
        super().close()
