"""From what went wrong to the error that says so: statuses, bodies and the exceptions of requests and urllib3.

The one question that matters for money is whether the request can have reached the gateway; it is answered by
walking the causes of an exception, because requests wraps "name not found" and "reset after sending" alike.
"""

import email.utils
from collections.abc import Iterator, Mapping
from datetime import UTC
from typing import Any, Final, NamedTuple

import msgspec

from topstep_sync import codes, errors
from topstep_sync.errors import Category, Fate
from topstep_sync.http.routes import Safety, route
from topstep_sync.redact import redact

# 4xx are the caller's fault unless named here; 5xx are the server's. 52x are the proxies in front of it (Cloudflare).
TRANSIENT: Final = frozenset({408, 425, 429})
PERMANENT: Final = frozenset({501, 505, 506, 510, 511})

# A handshake that failed names one of these; any other TLS trouble may have come after the request was sent.
_HANDSHAKE: Final = ("ALERT", "HANDSHAKE", "WRONG_VERSION", "UNSUPPORTED_PROTOCOL", "NO_PROTOCOLS", "HTTP_REQUEST")

_DEPTH: Final = 16  # links of a chain of causes that are looked at; real ones have up to six
_SHOWN: Final = 200  # characters of a foreign body that go into a message

_ACTED: Final = "whether the gateway acted"

_ADVICE: Final[Mapping[int, str]] = {
    401: "the token was refused; log in again",
    403: "this user may not do that",
    404: "there is no such path; check base_url and the path's spelling",
    405: "the gateway's calls are POST, except GET /api/Status/ping",
    429: "more calls than the gateway allows; another program may use the same account",
}


class Body(NamedTuple):
    """What could be read of an error's body."""

    code: int | None = None
    message: str | None = None
    success: bool | None = None


def read_body(body: Any) -> Body:
    """The envelope's or ProblemDetails' words in *body*: bytes, text, a mapping or None. Never raises."""
    if isinstance(body, (bytes, bytearray, str)):
        try:
            decoded = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return Body(message=_excerpt(body))
    else:
        decoded = body
    if not isinstance(decoded, Mapping):
        return Body(message=_excerpt(body) if isinstance(body, (bytes, bytearray, str)) else None)
    code, success = decoded.get("errorCode"), decoded.get("success")
    return Body(
        code=code if isinstance(code, int) and not isinstance(code, bool) else None,
        message=_words(decoded),
        success=success if isinstance(success, bool) else None,
    )


def _words(decoded: Mapping[Any, Any]) -> str | None:
    for key in ("errorMessage", "detail", "title"):
        if isinstance(decoded.get(key), str):
            break
    else:
        return None
    text = decoded[key]
    fields = decoded.get("errors")
    if isinstance(fields, Mapping):
        text += " " + "; ".join(f"{name}: {what}" for name, what in list(fields.items())[:8])
    return redact(text[: 4 * _SHOWN])


def _excerpt(body: bytes | bytearray | str) -> str | None:
    text = body[:_SHOWN] if isinstance(body, str) else bytes(body[:_SHOWN]).decode("utf-8", "replace")
    return redact(" ".join(text.split())) or None


def retry_after(headers: Mapping[str, Any] | None, now: float) -> float | None:
    """Seconds of a Retry-After header, whether it holds a number or a date; None without, or when unreadable.

    Args:
        headers: of the reply.
        now: seconds since 1970, for a date.
    """
    value = str((headers.get("Retry-After") if headers else None) or "").strip()
    if value.isdecimal():
        return float(value[:9])
    date = http_date(value)
    return None if date is None else max(0.0, date - now)


def http_date(value: str | None) -> float | None:
    """A date as HTTP writes it, in seconds since 1970; None when it is none."""
    try:
        date = email.utils.parsedate_to_datetime(value or "")
        # "-0000" gives a date without a zone, which would be taken for local time.
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


def from_status(
    status: int, body: Any = None, *, endpoint: str = "", retry_after: float | None = None
) -> errors.APIError:
    """The error for a reply that is no success.

    Args:
        status: the HTTP status; 200 stands for an envelope with `success: false`.
        body: bytes, text or the decoded JSON.
        endpoint: the path, which decides what an error code means and whether a repetition is safe.
        retry_after: seconds the gateway asked to wait.
    """
    found = read_body(body)
    if 200 <= status < 300:
        return _from_envelope(status, found, endpoint)
    cls = _class_of(status)
    facts: dict[str, Any] = {
        "endpoint": endpoint or None,
        "status_code": status,
        "error_code": found.code,
        "error_message": found.message,
        "retry_after": retry_after,
    }
    if found.code is not None:
        facts["error_name"] = codes.code_name(endpoint, found.code)
    error = cls(_text(status, found, endpoint), **facts)
    _refine(error, status, endpoint)
    return error


def _class_of(status: int) -> type[errors.APIError]:
    if status == 401:
        return errors.AuthenticationError
    if status == 429:
        return errors.RateLimited
    transient = status in TRANSIENT or (status >= 500 and status not in PERMANENT)
    return errors.TransientError if transient else errors.PermanentError


def _refine(error: errors.APIError, status: int, endpoint: str) -> None:
    if status == 403:
        error.category = Category.AUTH
    elif status == 408:
        error.category = Category.TIMEOUT
    elif status >= 500:
        error.category = Category.SERVER
    if status == 409:
        error.fate = Fate.UNKNOWN  # in conflict with what exists; an order placed a moment ago, for one
    safe = error.fate is not Fate.UNKNOWN or route(endpoint).safety is Safety.READ
    error.retryable = isinstance(error, errors.TransientError) and safe


def _text(status: int, found: Body, endpoint: str) -> str:
    text = f"{endpoint or 'the gateway'}: HTTP {status}"
    if found.message:
        text += f" ({found.message})"
    advice = _ADVICE.get(status)
    if 300 <= status < 400:
        advice = "the gateway's API never redirects; check base_url, and that nothing stands in between"
    return f"{text}; {advice}" if advice else text


def _from_envelope(status: int, found: Body, endpoint: str) -> errors.APIError:
    if found.success is False or (found.success is None and found.code):
        return codes.failure(endpoint, found.code or 0, found.message)
    error = bad_reply(endpoint, found.message or "no envelope")
    error.status_code = status
    return error


def bad_reply(endpoint: str, why: str) -> errors.BadReply:
    """The error for a 200 whose body is not what the contract says: a proxy's login page, or half a record."""
    text = f"{endpoint or 'the gateway'}: the reply is not what the gateway's contract says ({redact(why)})"
    error = errors.BadReply(text, endpoint=endpoint or None, status_code=200)
    error.retryable = route(endpoint).safety is Safety.READ
    return error


######################################### exceptions of the transport #########################################


def causes(error: BaseException) -> Iterator[BaseException]:
    """*error* and everything it wraps, outermost first: arguments, `reason`, `__cause__`.

    Not `__context__`: for a call made in somebody's ``except`` block, that is what the caller is busy handling.
    """
    seen: set[int] = set()
    waiting: list[Any] = [error]
    while waiting and len(seen) < _DEPTH:
        found = waiting.pop(0)
        if not isinstance(found, BaseException) or id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        waiting += [*found.args, getattr(found, "reason", None), found.__cause__]


def from_exception(error: BaseException, endpoint: str = "", *, sent: bool | None = None) -> errors.RequestError | None:
    """The error for an exception of the transport; None for one that is no matter of the network.

    Args:
        sent: whether the connection stood, so that the request may have been written to it; `None`: not known.
            True: the reply is lost, whatever the exception is called: urllib3 takes a connection that a proxy ends
            without a reply for a proxy that was never reached. False: nothing was sent: a TLS handshake that takes too
            long has the name of a reply that does.
    """
    if isinstance(error, errors.RequestError):
        return error
    chain = list(causes(error))
    names = {cls.__name__ for link in chain for cls in type(link).__mro__}
    for kinds, cls, words in _RULES:
        if not names.isdisjoint(kinds) and not (sent and issubclass(cls, errors.ConnectFailed)):
            return _transport_error(*(_unsent(cls, words) if sent is False else (cls, words)), chain, endpoint)
    if not sent and "SSLError" in names and any(word in str(link).upper() for link in chain for word in _HANDSHAKE):
        return _transport_error(errors.TlsFailed, "no trusted TLS connection", chain, endpoint)
    if names.isdisjoint(_NETWORK):
        return None
    lost = (errors.ReplyLost, f"the connection broke; {_ACTED}")
    return _transport_error(*(_unsent(*lost) if sent is False else lost), chain, endpoint)


def _unsent(cls: type[errors.RequestError], words: str) -> tuple[type[errors.RequestError], str]:
    """What *cls* is where the connection did not stand yet."""
    if issubclass(cls, errors.ConnectFailed):
        return cls, words
    if issubclass(cls, errors.ReplyTimedOut):
        return errors.ConnectTimedOut, "no connection in time"
    return errors.ConnectFailed, "no connection"


def _transport_error(
    cls: type[errors.RequestError], words: str, chain: list[BaseException], endpoint: str
) -> errors.RequestError:
    detail = redact(str(chain[-1]) or type(chain[-1]).__name__)[:_SHOWN]
    after = " is not known" if issubclass(cls, errors.ReplyLost) else "; nothing was sent"
    error = cls(f"{endpoint or 'the gateway'}: {words}{after} ({detail})", endpoint=endpoint or None)
    if isinstance(error, errors.ReplyLost):
        error.retryable = route(endpoint).safety is Safety.READ
    error.request = getattr(chain[0], "request", None)
    return error


# By name, so that policy needs neither requests nor urllib3 nor a socket to talk about what they raise; and some of
# these classes do not exist in every version. The first rule that any link of the chain satisfies decides: what was
# never sent stands above what may have been.
_RULES: Final[tuple[tuple[frozenset[str], type[errors.RequestError], str], ...]] = (
    (frozenset({"ProxyError"}), errors.ProxyFailed, "the proxy did not let the call through"),
    (frozenset({"SSLCertVerificationError"}), errors.TlsFailed, "no trusted TLS connection"),
    (frozenset({"gaierror", "NameResolutionError"}), errors.ConnectFailed, "the host name could not be resolved"),
    (frozenset({"NewConnectionError"}), errors.ConnectFailed, "no connection"),
    (frozenset({"ConnectTimeout", "ConnectTimeoutError"}), errors.ConnectTimedOut, "no connection in time"),
    (frozenset({"ClosedPoolError", "EmptyPoolError"}), errors.ConnectFailed, "no connection to be had"),
    (frozenset({"ReadTimeout", "ReadTimeoutError", "TimeoutError"}), errors.ReplyTimedOut, f"no reply yet; {_ACTED}"),
    (frozenset({"ChunkedEncodingError", "IncompleteRead"}), errors.ReplyTruncated, f"half a reply came; {_ACTED}"),
    (frozenset({"ContentDecodingError", "DecodeError"}), errors.ReplyTruncated, f"the reply is garbled; {_ACTED}"),
)
_NETWORK: Final = frozenset({"ConnectionError", "ProtocolError", "HTTPException", "HTTPError", "SSLError", "Timeout"})
