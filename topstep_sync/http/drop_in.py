"""A `requests.Session` that takes the short way to one origin, and requests' own to everywhere else.

What requests owns keeps its meaning: `stream`, `auth`, `hooks`, `params`, `headers`, `cookies`, `verify`, `cert`,
`proxies`, `adapters`, `trust_env`, `max_redirects`, and the methods. The short way is taken only where it gives the
same results; anything out of the ordinary goes requests' way, down to the same adapter.
"""

import copy
from datetime import timedelta
from typing import Any, Final

import requests
from requests.cookies import extract_cookies_to_jar
from requests.hooks import dispatch_hook

from topstep_sync.clock import SYSTEM_CLOCK, Clock
from topstep_sync.config import Config
from topstep_sync.http.adapter import ResilientAdapter
from topstep_sync.http.prepare import Headers, Prepared, Templates, encode_json, sets_cookies, unsigned

# Tools that stand in for requests replace this method; where it is not requests' own any more, they get their way.
_STOCK_SEND: Final = requests.Session.send


class DropInSession(requests.Session):
    """Requests to the gateway, by its URL or by a path, go through its adapter; other hosts are not touched."""

    def __init__(self) -> None:
        super().__init__()
        self.headers = Headers(self.headers)

    def _settle_at(self, config: Config, adapter: ResilientAdapter, clock: Clock = SYSTEM_CLOCK) -> None:
        """*adapter* serves the gateway from now on."""
        self._base = base = config.base_url
        self._total_timeout = config.http.total_timeout
        # With the slash: without it, the prefix would also match a host whose name only begins like the gateway's.
        self._home = base + "/"
        self._adapter = adapter
        self._clock = clock
        self._templates = Templates(base)
        self._environment: tuple[tuple[Any, ...], dict[str, Any]] | None = None
        self.mount(self._home, adapter)

    def request(  # type: ignore[override]
        self,
        method: str,
        url: Any,
        params: Any = None,
        data: Any = None,
        headers: Any = None,
        cookies: Any = None,
        files: Any = None,
        auth: Any = None,
        timeout: Any = None,
        allow_redirects: bool = True,
        proxies: Any = None,
        hooks: Any = None,
        stream: bool | None = None,
        verify: Any = None,
        cert: Any = None,
        json: Any = None,
    ) -> requests.Response:
        """As `requests.Session.request`; a *url* that begins with a single slash is a path of the gateway."""
        url = self._absolute(url)
        if not (params or files or cookies or auth or proxies or hooks) and verify is None and cert is None:
            prepared = self._prepare(method, url, data, headers, json)
            if prepared is not None:
                return self.send(prepared, timeout=timeout, allow_redirects=allow_redirects, stream=stream)
        return super().request(
            method, url, params, data, headers, cookies, files, auth, timeout, allow_redirects, proxies, hooks,
            stream, verify, cert, json,
        )  # fmt: skip

    def prepare_request(self, request: requests.Request) -> requests.PreparedRequest:
        """As requests does it; but a path is one of the gateway, and netrc's passwords are not for the gateway."""
        request = copy.copy(request)  # it is the caller's, and may be prepared again elsewhere
        request.url = self._absolute(request.url)
        if request.auth is None and self.auth is None and str(request.url).startswith(self._home):
            request.auth = unsigned
        return super().prepare_request(request)

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        if type(request) is not Prepared:
            return super().send(request, **kwargs)
        settings = self._settings()
        if kwargs.get("stream") is None:
            kwargs["stream"] = self.stream
        for name, value in settings.items():
            kwargs.setdefault(name, value)
        if requests.Session.send is not _STOCK_SEND or self.get_adapter(request.url or "") is not self._adapter:
            return super().send(request, **kwargs)
        return self._send_prepared(request, **kwargs)

    def _absolute(self, url: Any) -> Any:
        if type(url) is str and url[:1] == "/" and url[:2] != "//":
            return self._base + url
        return url

    def _prepare(self, method: str, url: Any, data: Any, headers: Any, json: Any) -> Prepared | None:
        """The short way to a prepared request; None where requests must go its own."""
        if type(url) is not str or not url.startswith(self._home) or self.params or not self._may_hurry():
            return None
        body: bytes | None = None
        if data:
            if not isinstance(data, (str, bytes)):
                return None
            body = data.encode() if isinstance(data, str) else data
        elif json is not None:
            body = encode_json(json)
            if body is None:
                return None
        made = self._templates.make(self, method, url, headers, body, typed=not data)
        if made is not None and self.cookies:
            made.prepare_cookies(self.cookies)
        return made

    def _may_hurry(self) -> bool:
        """Whether requests' own preparation would add nothing of the user's."""
        return self.auth is None and type(self).prepare_request is DropInSession.prepare_request

    def _settings(self) -> dict[str, Any]:
        """Proxies, CA bundle and client certificate of the gateway: asked of the environment once, not each time."""
        key = (self.trust_env, self.verify, self.cert, self.proxies)
        known = self._environment
        if known is None or known[0] != key:
            found = self.merge_environment_settings(self._home, {}, None, None, None)
            settings = {"proxies": found["proxies"], "verify": found["verify"], "cert": found["cert"]}
            known = self._environment = ((*key[:3], dict(self.proxies)), settings)
        return known[1]

    def reload_environment(self) -> None:
        """The proxies and CA bundles that the environment names are looked up again at the next call."""
        self._environment = None

    def _send_prepared(
        self, request: Prepared, *, allow_redirects: bool = True, stream: bool = False, **kwargs: Any
    ) -> requests.Response:
        """What `requests.Session.send` does, less what cannot happen: the gateway's adapter returns no redirects."""
        begun = self._clock.monotonic()
        reply = self._adapter.send(request, stream=stream, **kwargs)
        reply.elapsed = timedelta(seconds=self._clock.monotonic() - begun)
        if request.hooks.get("response"):
            reply = dispatch_hook("response", request.hooks, reply, stream=stream, **kwargs)  # type: ignore[no-untyped-call]
        if sets_cookies(reply.raw):
            extract_cookies_to_jar(self.cookies, request, reply.raw)  # type: ignore[no-untyped-call]
        return reply
