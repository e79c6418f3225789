"""The one place that knows everybody: a `requests.Session` for the gateway, with the typed rooms beside it.

What requests owns keeps its meaning (`stream`, `auth`, `hooks`, `params`, `headers`, `cookies`, `verify`, `cert`,
`proxies`, `adapters`, `trust_env`, `max_redirects`, and the methods). Calls to the gateway, by its URL or by a path
such as ``/api/Account/search``, go through the `ResilientAdapter`; calls to other hosts are requests' business.
"""

import logging
import threading
from collections.abc import Mapping
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final, NoReturn, Self, TypeVar

import msgspec
import requests
from requests.cookies import extract_cookies_to_jar
from requests.hooks import dispatch_hook

from topstep_sync import codes, errors
from topstep_sync.api.rooms import Rooms
from topstep_sync.auth.gateway_auth import GatewayAuth
from topstep_sync.auth.token_manager import TokenManager
from topstep_sync.clock import SYSTEM_CLOCK, Clock, Deadline
from topstep_sync.config import Config
from topstep_sync.http.adapter import ResilientAdapter
from topstep_sync.http.bearer import MISSING
from topstep_sync.http.classify import bad_reply
from topstep_sync.http.prepare import Headers, Prepared, Templates, encode_json, sets_cookies, unsigned
from topstep_sync.http.rate_limiter import RateLimiter
from topstep_sync.http.routes import Priority
from topstep_sync.messages import Reply as Envelope
from topstep_sync.models import Record, given

log = logging.getLogger("topstep_sync.session")

R = TypeVar("R", bound=Envelope)

# Tools that stand in for requests replace this method; where it is not requests' own any more, they get their way.
_STOCK_SEND: Final = requests.Session.send

_JSON: Final = {"Content-Type": "application/json"}


class Session(requests.Session):
    """A `requests.Session` for the gateway. Thread-safe in what it adds: one session may serve every thread.

    Args:
        user_name: platform login (not the e-mail address).
        api_key: key from TopstepX, Settings, API.
        config: a `Config` or a mapping; None: what the ``TOPSTEP_*`` variables describe.
        base_url: another gateway, such as a simulator.
        clock: where it gets its time from.

    A call without a timeout has the configured ones (connect 5 s, read 20 s); ``timeout=None`` means these, too.
    Whatever the timeouts, a call as a whole ends within `HttpConfig.total_timeout`.

    Raises:
        ConfigError: a setting is unknown or cannot work.
    """

    def __init__(
        self,
        user_name: str | None = None,
        api_key: str | None = None,
        *,
        config: Config | Mapping[str, Any] | None = None,
        base_url: str | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        super().__init__()
        given_here = {"user_name": user_name, "api_key": api_key, "base_url": base_url}
        changes = {name: value for name, value in given_here.items() if value is not None}
        found = Config.from_env() if config is None else Config.of(config)
        self.config: Final = found.replace(**changes) if changes else found
        self.headers = Headers(self.headers)
        self._clock = clock
        self._closed = threading.Event()
        self._service = GatewayAuth(self.config, clock=clock)
        self.tokens: Final = TokenManager(self.config, self._service, clock=clock)
        self.limiter: Final = RateLimiter(self.config, clock=clock)
        self._adapter = ResilientAdapter(
            self.config,
            tokens=self.tokens,
            limiter=self.limiter,
            can_login=lambda: self._service.can_login,
            clock=clock,
            closed=self._closed,
        )
        self._home = self.config.base_url + "/"
        self._templates = Templates(self.config.base_url)
        self._decoders: dict[type[Any], msgspec.json.Decoder[Any]] = {}
        self._environment: tuple[tuple[Any, ...], dict[str, Any]] | None = None
        self.mount(self._home, self._adapter)
        self._date: tuple[str | None, float] = (None, 0.0)
        self._furnish()

    def _furnish(self) -> None:
        rooms = Rooms(
            self.call,
            get=self._text,
            config=self.config,
            clock=self._clock,
            skew=self._skew,
            closed=self._closed,
        )
        self.accounts = rooms.accounts
        self.contracts = rooms.contracts
        self.history = rooms.history
        self.orders = rooms.orders
        self.positions = rooms.positions
        self.trades = rooms.trades
        self.status = rooms.status

    @classmethod
    def from_env(cls, **changes: Any) -> Self:
        """A session as the ``TOPSTEP_*`` variables describe it; *changes* are fields of `Config` and win over them.

        Raises:
            MissingCredentials: there is no user name or no API key.
            ConfigError: a variable names no setting, or its value does not fit.
        """
        clock = changes.pop("clock", SYSTEM_CLOCK)
        session = cls(config=Config.from_env(**changes), clock=clock)
        if not session._service.can_login:
            session.close()
            raise errors.MissingCredentials(MISSING)
        return session

    ############################################ the face of requests ############################################

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
        if requests.Session.send is not _STOCK_SEND or self.get_adapter(self._home) is not self._adapter:
            return super().send(request, **kwargs)
        return self._send_prepared(request, **kwargs)

    def _absolute(self, url: Any) -> Any:
        if type(url) is str and url[:1] == "/" and url[:2] != "//":
            return self.config.base_url + url
        return url

    def _prepare(self, method: str, url: Any, data: Any, headers: Any, json: Any) -> Prepared | None:
        """The short way to a prepared request; None where requests must go its own."""
        if type(url) is not str or not url.startswith(self._home) or self.auth is not None or self.params:
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

    ################################################ typed calls ################################################

    def call(
        self,
        path: str,
        request: Record | None,
        reply: type[R],
        *,
        priority: Priority | None = None,
        must_try: bool = False,
        timeout: float | None = None,
    ) -> R:
        """The reply of a successful call.

        Args:
            path: such as ``/api/Account/search``.
            request: the body; None for none.
            reply: what the body of the answer is.
            priority: who goes first where permits are scarce; None: as the path has it.
            must_try: pass an open breaker; for what reduces risk.
            timeout: seconds for the whole call; None: `HttpConfig.total_timeout`.

        Raises:
            APIError: the gateway answered, and not with success.
            RequestError: there is no answer; `fate` says what became of the request.
        """
        prepared = self._typed(path, None if request is None else msgspec.json.encode(request))
        prepared.priority, prepared.must_try = priority, must_try
        prepared.decoder = decoder = self._decoder(reply)
        prepared.deadline = Deadline(timeout or self.config.http.total_timeout, self._clock)
        response = self.send(prepared)
        self._date = (response.headers.get("Date"), self._clock.epoch())
        answer = self._answer(path, response, decoder)
        if not answer.success:
            raise self._refusal(path, response, answer)
        return answer

    def _text(self, path: str) -> str:
        reply = self.get(path)
        if reply.status_code != 200:
            error: errors.APIError = self._adapter.handler.classify_error(
                reply.status_code, reply.content, endpoint=path, headers=reply.headers
            )
            raise self._marked(error, reply)
        return reply.text

    def _skew(self) -> float:
        """Seconds the gateway's clock is ahead of this one, to the second; 0.0 before the first reply."""
        text, at = self._date
        try:
            return 0.0 if text is None else parsedate_to_datetime(text).timestamp() + 0.5 - at
        except ValueError:
            return 0.0

    def _typed(self, path: str, body: bytes | None) -> Prepared:
        url = self.config.base_url + path
        made = None if self.auth else self._templates.make(self, "POST", url, None, body)
        if made is None:
            plain = self.prepare_request(requests.Request("POST", url, data=body, headers=_JSON))
            made = Prepared.of(plain, self.config.base_url)
        return made

    def _decoder(self, reply: type[R]) -> "msgspec.json.Decoder[R]":
        found = self._decoders.get(reply)
        if found is None:
            found = self._decoders[reply] = msgspec.json.Decoder(reply)
        return found

    def _answer(self, path: str, response: requests.Response, decoder: "msgspec.json.Decoder[R]") -> R:
        if response.status_code != 200:
            error: errors.APIError = self._adapter.handler.classify_error(
                response.status_code, response.content, endpoint=path, headers=response.headers
            )
            raise self._marked(error, response)
        try:
            made = getattr(response, "decoded", None)
            return decoder.decode(response.content) if made is None else made
        except msgspec.MsgspecError as trouble:
            raise self._marked(bad_reply(path, str(trouble)), response) from None

    def _refusal(self, path: str, response: requests.Response, answer: Envelope) -> errors.APIError:
        message = answer.error_message
        error = codes.failure(path, answer.error_code, message if isinstance(message, str) else None)
        order_id = getattr(answer, "order_id", None)
        if isinstance(error, errors.OrderError) and given(order_id):
            error.order_id = order_id
        return self._marked(error, response)

    def _marked(self, error: errors.APIError, response: requests.Response) -> errors.APIError:
        error.response, error.request = response, response.request
        error.attempts = getattr(response, "attempts", 1)
        return error

    ################################################### the end ###################################################

    def close(self) -> None:
        """Every wait of this session has ended, and its threads and connections are gone. May be called twice."""
        self._closed.set()
        self.tokens.close()
        self.limiter.close()
        super().close()

    def __getstate__(self) -> NoReturn:
        raise TypeError("a Session holds a token and open connections and is not pickled; make one in each process")

    def __repr__(self) -> str:
        user = f"{self.config.user_name!r}, " if self.config.user_name else ""
        return f"Session({user}base_url={self.config.base_url!r})"
