"""One attempt at a hub: the token, asked for anew each time, and the upgrade that carries it."""

import logging
import ssl
from collections.abc import Callable, Mapping
from typing import Final

from topstep_sync.clock import Clock
from topstep_sync.config import StreamConfig
from topstep_sync.errors import AuthenticationError, SessionClosed
from topstep_sync.models import Token
from topstep_sync.realtime.lifecycle import Ending
from topstep_sync.realtime.link import Ended
from topstep_sync.realtime.opening import trusting_context
from topstep_sync.realtime.tokens import Tokens
from topstep_sync.realtime.waker import Interrupted, Waker
from topstep_sync.realtime.websocket import BufferedWebSocket, UpgradeRefused, open_websocket
from topstep_sync.redact import redact

_log = logging.getLogger("topstep_sync.realtime")

TOKEN_PATIENCE: Final = 60.0  # seconds for a token; a login may have to wait for a permit


class Dialer:
    """Opens connections to one hub. Belongs to one thread."""

    def __init__(
        self,
        url: str,
        name: str,
        tokens: Tokens,
        config: StreamConfig,
        clock: Clock,
        tls: ssl.SSLContext | None,
        headers: Mapping[str, str],
        bearer_in: str,
    ) -> None:
        self._url, self._name, self._tokens = url, name, tokens
        self._config, self._clock, self._tls, self._headers = config, clock, tls, dict(headers)
        self._in_header = bearer_in == "header"

    def open(self, waker: Waker) -> BufferedWebSocket:
        """An upgraded connection; the token is asked for here, and once more when the hub refuses it.

        Raises:
            Ended: there is none; whatever an attempt raises that nobody foresaw is a reason for another one, later.
            Interrupted: `waker.stop()` was called.
        """
        try:
            return self._open(waker)
        except (Ended, Interrupted):
            raise
        except OSError as error:
            raise Ended(Ending.LOST, f"no connection: {error or type(error).__name__}") from None
        except Exception as error:
            _log.exception("! %s: an attempt to connect failed", self._name)
            raise Ended(Ending.LOST, f"no connection: {type(error).__name__}: {redact(str(error))}") from None

    def _open(self, waker: Waker) -> BufferedWebSocket:
        if self._tls is None and self._url.startswith(("https", "wss")):
            self._tls = trusting_context()
        token = self._token(waker, self._tokens.token)
        try:
            return self._upgrade(waker, token)
        except UpgradeRefused as refused:
            if refused.status not in (401, 403) or token is None:
                raise Ended(Ending.LOST, str(refused)) from None
            _log.info("~ %s: the hub refused the token (%s); asking for a newer one", self._name, refused.status)
        stale = token
        token = self._token(waker, lambda: self._tokens.rejected(stale))
        try:
            return self._upgrade(waker, token)
        except UpgradeRefused as refused:
            hopeless = refused.status in (401, 403)
            words = f"{refused}, with a fresh token too" if hopeless else str(refused)
            raise Ended(Ending.HOPELESS if hopeless else Ending.LOST, words) from None

    def _token(self, waker: Waker, get: Callable[[], Token | None]) -> Token | None:
        at = self._clock.monotonic() + TOKEN_PATIENCE
        try:
            return waker.errand(get, at, f"{self._name}-token")
        except (AuthenticationError, SessionClosed) as error:
            raise Ended(Ending.HOPELESS, str(error)) from None
        except Interrupted:
            raise
        except BaseException as error:  # of the user's own function: a SystemExit there would end this thread only
            raise Ended(Ending.LOST, f"no token: {redact(str(error)) or type(error).__name__}") from None

    def _upgrade(self, waker: Waker, token: Token | None) -> BufferedWebSocket:
        at = self._clock.monotonic() + self._config.connect_timeout
        value, headers = None if token is None else token.value.reveal(), self._headers
        if value is not None and self._in_header:
            headers, value = {**headers, "Authorization": f"Bearer {value}"}, None
        limit, clock = self._config.max_message_bytes, self._clock
        return open_websocket(self._url, value, waker, at, clock, limit=limit, tls=self._tls, headers=headers)
