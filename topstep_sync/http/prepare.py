"""The short way from a call to bytes and from bytes to a reply, with the same results as requests' long one.

requests spends most of its time on what does not change between two calls to the same endpoint: parsing the URL,
merging headers, asking the environment for proxies, building cookie jars that stay empty. Here a URL is prepared once,
by requests itself, and kept as a template; what a reply may be asked for is made when it is asked for.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
import requests
from requests import cookies as jars
from requests.structures import CaseInsensitiveDict
from requests.utils import check_header_validity, get_encoding_from_headers

from topstep_sync.clock import Deadline
from topstep_sync.http.routes import Priority, Route, route

TEMPLATES: Final = 256
"""URLs kept ready; the gateway has 20."""

# Decimals go out as numbers; requests' own encoder refuses them.
_ENCODE: Final = msgspec.json.Encoder(decimal_format="number").encode
_DECODE: Final = msgspec.json.Decoder().decode


class Headers(CaseInsensitiveDict[Any]):
    """requests' own headers, quicker to copy and to walk, and counting their changes."""

    _store: Any  # key in lower case → (key, value)

    def __init__(self, data: Any = None, **more: Any) -> None:
        self.version = 0
        super().__init__(data, **more)

    def __setitem__(self, key: str, value: Any) -> None:
        self.version += 1
        super().__setitem__(key, value)

    def __delitem__(self, key: str) -> None:
        self.version += 1
        super().__delitem__(key)

    def copy(self) -> "Headers":
        twin = Headers.__new__(Headers)
        twin.version = 0
        twin._store = self._store.copy()
        return twin

    def items(self) -> Any:
        return list(self._store.values())

    def update(self, other: Any = (), /, **more: Any) -> None:
        if other or more:
            super().update(other, **more)


class Prepared(requests.PreparedRequest):
    """A prepared request that knows its route, and what its caller wants of it."""

    path: str = ""
    """The gateway's path, without the base URL and the query."""
    target: str = ""
    """What goes into the request line."""
    route: Route
    priority: Priority | None = None
    must_try: bool = False
    deadline: Deadline | None = None
    decoder: Any = None
    """Set by typed calls, with a method `decode`: garbage is noticed within the attempt, and can be fetched again."""

    @classmethod
    def of(cls, plain: requests.PreparedRequest, base: str) -> "Prepared":
        """*plain*, with its place at the gateway *base*."""
        made = cls()
        made.__dict__.update(plain.__dict__)
        made.path = path_of(made.url or "", base)
        made.target = plain.path_url
        made.route = route(made.path)
        return made


class Reply(requests.Response):
    """A `requests.Response` whose headers, cookies and encoding are made when somebody asks for them."""

    attempts: int = 1
    """How many times the request left this process."""
    wire_time: float = 0.0
    """Seconds of the last attempt alone; `elapsed` counts waits for permits and earlier attempts, too."""

    decoded: Any = None
    """What the decoder of a typed call made of the body."""

    @classmethod
    def of(cls, request: requests.PreparedRequest, raw: Any, adapter: Any) -> "Reply":
        """The reply of *request*, with the same attributes requests' own adapter would give it."""
        reply = cls.__new__(cls)
        state = reply.__dict__
        state.update(_BLANK)
        state["history"] = []
        state["status_code"] = getattr(raw, "status", None)
        state["raw"] = raw
        state["reason"] = raw.reason
        url = request.url
        state["url"] = url.decode() if isinstance(url, bytes) else url
        state["request"] = request
        state["connection"] = adapter
        return reply

    @property
    def headers(self) -> CaseInsensitiveDict[str]:
        found = self.__dict__.get("headers")
        if found is None:
            found = self.__dict__["headers"] = CaseInsensitiveDict(getattr(self.raw, "headers", {}))
        return found

    @headers.setter
    def headers(self, value: CaseInsensitiveDict[str]) -> None:
        self.__dict__["headers"] = value

    @property
    def encoding(self) -> str | None:
        state = self.__dict__
        if "encoding" not in state:
            state["encoding"] = get_encoding_from_headers(self.headers)
        return state["encoding"]  # type: ignore[no-any-return]

    @encoding.setter
    def encoding(self, value: str | None) -> None:
        self.__dict__["encoding"] = value

    @property
    def cookies(self) -> jars.RequestsCookieJar:
        found = self.__dict__.get("cookies")
        if found is None:
            found = self.__dict__["cookies"] = jars.RequestsCookieJar()
            if self.raw is not None:
                jars.extract_cookies_to_jar(found, self.request, self.raw)  # type: ignore[no-untyped-call]
        return found

    @cookies.setter
    def cookies(self, value: jars.RequestsCookieJar) -> None:
        self.__dict__["cookies"] = value

    def json(self, **kwargs: Any) -> Any:
        if not kwargs:
            try:
                return _DECODE(self.content)
            except (msgspec.DecodeError, UnicodeDecodeError, TypeError, RecursionError):
                pass  # NaN, another encoding, or no JSON at all: requests knows, and raises what people catch
        return super().json(**kwargs)


_BLANK: Final = {k: v for k, v in vars(requests.Response()).items() if k not in ("headers", "cookies", "encoding")}


def sets_cookies(raw: Any) -> bool:
    """Whether the reply *raw* of urllib3 carries cookies; True when in doubt."""
    headers = getattr(raw, "headers", None)
    return headers is None or "set-cookie" in headers


def encode_json(value: Any) -> bytes | None:
    """*value* as JSON; None where requests' own encoder must decide (NaN, which JSON has not, or odd types)."""
    try:
        body = _ENCODE(value)
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError):
        return None
    # NaN and infinities come out as null here, where requests raises; orders must not go out with a price of null.
    return body if b"null" not in body else None


class Templates:
    """Prepared requests of one session, by method and URL. Not locked: two threads may make the same one twice."""

    def __init__(self, base: str) -> None:
        self._base = base
        self._known: dict[tuple[str, str], tuple[int, Prepared]] = {}

    def make(
        self,
        session: requests.Session,
        method: str,
        url: str,
        headers: Mapping[str, Any] | None,
        body: bytes | None,
        *,
        typed: bool = True,
    ) -> Prepared | None:
        """A request ready to send, or None where requests must prepare it itself.

        Args:
            session: for its headers and hooks.
            headers: the call's own; they win.
            body: as it goes out.
            typed: whether it is JSON, which the headers then say.
        """
        own = session.headers
        if type(own) is not Headers:
            return None
        known = self._known.get((method, url))
        if known is None or known[0] != own.version:
            known = self._remember(session, method, url, own.version)
        model = known[1]
        made = Prepared.__new__(Prepared)
        made.__dict__.update(model.__dict__)
        made.headers = model.headers.copy()
        made.hooks = session.hooks
        if headers and not _merge(made.headers, headers.items()):
            return None
        if body is not None:
            if typed and "Content-Type" not in made.headers:
                made.headers["Content-Type"] = "application/json"
            made.body = body
            made.headers["Content-Length"] = str(len(body))
        elif method not in ("GET", "HEAD"):
            made.headers["Content-Length"] = "0"
        return made

    def _remember(self, session: requests.Session, method: str, url: str, version: int) -> tuple[int, Prepared]:
        """The template of *url*, as requests prepares it (without cookies and hooks, which change by themselves)."""
        made = Prepared.of(session.prepare_request(requests.Request(method, url, auth=unsigned)), self._base)
        made._cookies = None  # type: ignore[attr-defined]
        made.headers = Headers({k: v for k, v in made.headers.items() if k not in ("Content-Length", "Cookie")})
        if len(self._known) >= TEMPLATES:
            self._known.clear()
        known = self._known[method, url] = (version, made)
        return known


def _merge(target: CaseInsensitiveDict[Any], extra: Iterable[tuple[str, Any]]) -> bool:
    """*extra* is in *target* as requests merges it: None deletes. False where requests must decide."""
    for name, value in extra:
        if type(name) is not str:
            return False
        if value is None:
            target.pop(name, None)
        else:
            check_header_validity((name, value))
            target[name] = value
    return True


def path_of(url: str, base: str) -> str:
    """The gateway's path in *url*, without base URL, query and fragment."""
    path = urlsplit(url).path
    return path.removeprefix(urlsplit(base).path)


def unsigned(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """An authentication that signs nothing: it keeps netrc's password for the host from being sent to the gateway."""
    return request
