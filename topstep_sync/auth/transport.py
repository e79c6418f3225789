"""One POST to the gateway, plain: the token manager's own way out, so that a refresh never needs a token itself.

Every connection is new. There are a handful of calls a day, and none may meet a socket that a fork shared.
"""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any, Final

import requests
from requests.adapters import HTTPAdapter

from topstep_sync.clock import Clock, Deadline
from topstep_sync.config import Config
from topstep_sync.errors import ConnectFailed, ConnectTimedOut, ReplyLost, ReplyTimedOut, RequestError
from topstep_sync.redact import Secret, SecretBytes, redact

Answer = tuple[int, Mapping[str, str], bytes]
Post = Callable[[str, bytes, str | None], Answer]
"""`post(path, body, bearer) -> (status, headers, body)`; raises a `RequestError` when there is no reply."""

MAX_REPLY: Final = 256 * 1024  # a token is 1-2 kB


class _Bearer(requests.auth.AuthBase):
    """Sets the header itself. Also keeps requests from putting a ``.netrc`` entry in its place."""

    def __init__(self, token: str | None) -> None:
        self._token = None if token is None else Secret(token)

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._token is not None:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class PlainPost:
    """A `Post` over a connection of its own.

    Args:
        settings: gives ``verify``, ``cert`` and ``proxies`` for each call; `None`: as the environment has them.
    """

    def __init__(self, config: Config, clock: Clock, settings: Callable[[], Mapping[str, Any]] | None = None) -> None:
        self._base = config.base_url
        self._timeout = (config.http.connect_timeout, config.http.read_timeout)
        self._total = config.http.connect_timeout + config.http.read_timeout
        self._clock = clock
        self._settings = settings

    def __call__(self, path: str, body: bytes, bearer: str | None) -> Answer:
        # Rebound, so that they do not show in a traceback's locals whatever they were.
        body, bearer = SecretBytes(body), bearer and Secret(bearer)
        failure: RequestError | None = None
        deadline = Deadline(self._total, self._clock)
        try:
            return self._send(path, body, bearer, deadline)
        except requests.RequestException as error:
            failure = _translate(path, error)
        # Raised out here: the frames of the HTTP libraries, which hold header and body in the open, stay behind.
        raise failure

    def _send(self, path: str, body: bytes, bearer: str | None, deadline: Deadline) -> Answer:
        with requests.Session() as session:
            session.trust_env = self._settings is None
            for scheme in ("https://", "http://"):
                session.mount(scheme, HTTPAdapter(max_retries=0))
            response = session.post(
                self._base + path,
                data=body,
                headers={"Content-Type": "application/json", "Accept": "application/json"},
                auth=_Bearer(bearer),
                timeout=self._timeout,
                allow_redirects=False,
                stream=True,
                **(self._settings() if self._settings else {}),
            )
            with contextlib.closing(response):
                return response.status_code, response.headers, self._read(path, response, deadline)

    def _read(self, path: str, response: requests.Response, deadline: Deadline) -> SecretBytes:
        """The whole body. Timeouts of sockets are per read, so a dripping reply is bounded here."""
        parts: list[SecretBytes] = []
        for part in response.iter_content(16 * 1024):
            parts.append(SecretBytes(part))
            if deadline.expired:
                raise ReplyTimedOut(f"{path}: the reply took longer than {self._total:.0f} s", endpoint=path)
            if sum(map(len, parts)) > MAX_REPLY:
                raise ReplyLost(f"{path}: the reply is larger than {MAX_REPLY} bytes", endpoint=path)
        return SecretBytes(b"".join(parts))


def _translate(path: str, error: requests.RequestException) -> RequestError:
    """*error* as one of this library's, without its request, its frames and its secrets."""
    if isinstance(error, RequestError):
        return error.with_traceback(None)
    facts: dict[str, Any] = {"endpoint": path, "attempts": 1}
    said = redact(str(error))
    if isinstance(error, requests.ConnectTimeout):
        return ConnectTimedOut(f"{path}: no connection in time ({said})", **facts)
    if isinstance(error, requests.ReadTimeout):
        return ReplyTimedOut(f"{path}: no reply in time ({said})", **facts)
    if isinstance(error, requests.ConnectionError) and _never_sent(error):
        return ConnectFailed(f"{path}: no connection ({said})", **facts)
    return ReplyLost(f"{path}: the reply was lost ({said})", **facts)


# What can only happen before the request is written. Neither "ProxyError" nor "SSLError" is among them: a proxy that
# loses the reply, and a record that is garbled, have these names, too.
_BEFORE: Final = (
    "NewConnectionError", "NameResolutionError", "ConnectTimeoutError", "Tunnel connection failed",
    "CERTIFICATE_VERIFY_FAILED", "HANDSHAKE_FAILURE", "WRONG_VERSION_NUMBER", "UNSUPPORTED_PROTOCOL", "HTTP_REQUEST",
)  # fmt: skip


def _never_sent(error: requests.ConnectionError) -> bool:
    said = repr(error)
    return any(word in said for word in _BEFORE)
