"""Everything this library raises.

::

    TopstepError
    ├── ConfigError (ValueError)                     a setting is unknown or out of range
    ├── InvalidRequest (ValueError)                  an argument is wrong; nothing was sent
    ├── MissingExtra (ImportError)                   an optional part is not installed
    ├── RequestError (requests.RequestException)     a call did not succeed
    │   ├── NotSent                                  refused here, nothing left this process
    │   │   ├── RateLimitTimeout (Timeout)           the wait for a permit would pass the deadline
    │   │   │   └── BudgetUnavailable                the shared budget is out of reach: nobody could count the call
    │   │   ├── CircuitOpen (ConnectionError)        the gateway failed too often just now
    │   │   ├── AuthQueueFull                        too many callers wait for a token
    │   │   ├── AuthUnavailable                      no token, and the next attempt is too far off
    │   │   ├── DeadlineExceeded (Timeout)           the total timeout passed before sending
    │   │   ├── BodyNotRewindable (UnrewindableBodyError)   a second attempt would send half a body
    │   │   ├── RiskRefused                          the daily guard forbids new risk
    │   │   ├── MissingCredentials (ConfigError)     nobody said who is calling
    │   │   └── SessionClosed                        the session is closed
    │   ├── ConnectFailed (ConnectionError)          name, route, refusal or TLS: never sent
    │   │   ├── ConnectTimedOut (ConnectTimeout)
    │   │   ├── TlsFailed (SSLError)                 the certificate or the handshake was refused
    │   │   └── ProxyFailed (ProxyError)             the proxy did not let the call through
    │   ├── ReplyLost (ConnectionError)              sent; the connection ended before the whole reply
    │   │   ├── ReplyTimedOut (ReadTimeout)          sent; no whole reply in time
    │   │   └── ReplyTruncated (ChunkedEncodingError, ContentDecodingError)  sent; half a reply came
    │   └── APIError (HTTPError)                     the gateway answered, and not with success
    │       ├── TransientError                       408 429 500 502 503 504 52x
    │       │   ├── RateLimited                      429
    │       │   └── BadReply (InvalidJSONError)      200, but not what the contract says
    │       └── PermanentError                       400 401 403 404 405 409 422, 3xx, and success:false
    │           ├── AuthenticationError              the credentials or the token were refused
    │           ├── AccountNotFound, ContractNotFound, OrderNotFound, PositionNotFound
    │           ├── BadBarRequest                    unit, unit number or limit of a bar request
    │           └── OrderError                       an order, its change or its cancellation
    │               ├── OrderRejected
    │               │   ├── DuplicateCustomTag, InsufficientFunds, OutsideTradingHours, BracketRejected
    │               │   └── AccountViolation, AccountRejected, ContractNotActive, InvalidCloseSize
    │               └── OrderPending                 the gateway does not know yet either: verify
    ├── OrderStateUnknown                            it may exist: look it up by its custom tag
    ├── OrderStillWorking (TimeoutError)             the wait for an order ended before the order did
    └── StreamError
        ├── HubError                                 the hub answered an invocation with an error
        ├── HandshakeError                           the hub refused the protocol
        ├── HubProtocolError                         the peer broke the protocol
        ├── ConnectionLost                           the connection ended while a call was in flight
        └── StreamFailed                             the connection gave up for good

Each says what became of the request (`fate`), whether the library may repeat it by itself (`retryable`),
and what kind of trouble it is (`category`); branch on these, never on text.
"""

from typing import Any

import requests

from topstep_sync.fault import Category as Category
from topstep_sync.fault import Fate as Fate
from topstep_sync.fault import TopstepError as TopstepError


class ConfigError(TopstepError, ValueError):
    """A setting is unknown or has a value that cannot work."""


class InvalidRequest(TopstepError, ValueError):
    """An argument is wrong; nothing was sent."""


class MissingExtra(TopstepError, ImportError):
    """An optional part of the library is not installed; the message says what to install."""


class RequestError(TopstepError, requests.RequestException):
    """A call did not succeed. Also a `requests.RequestException`, so existing handlers catch it."""

    request: Any = None
    response: Any = None


class NotSent(RequestError):
    """Refused by this library: nothing left the process."""


class RateLimitTimeout(NotSent, requests.Timeout):
    """The permit would come after the deadline, so the call was refused at once."""

    category = Category.RATE_LIMIT
    retryable = True
    wait_needed: float = 0.0
    """Seconds the permit would have taken."""


class BudgetUnavailable(RateLimitTimeout):
    """The store of the shared rate budget is out of reach, so nobody could count the call."""


class CircuitOpen(NotSent, requests.ConnectionError):
    """This class of calls failed too often just now; `retry_after` says when the next probe goes out."""

    category = Category.SERVER
    retryable = True
    last_error: str | None = None
    """What tripped the breaker."""


class AuthQueueFull(NotSent):
    """As many callers as allowed already wait for a token."""

    category = Category.AUTH
    retryable = True


class AuthUnavailable(NotSent):
    """There is no valid token, and none will come before the deadline; `retry_after` says when the next try is."""

    category = Category.AUTH
    retryable = True


class DeadlineExceeded(NotSent, requests.Timeout):
    """The total timeout of the call passed before it could be sent (again)."""

    category = Category.TIMEOUT
    retryable = True


class BodyNotRewindable(NotSent, requests.exceptions.UnrewindableBodyError):
    """The body is a stream that was read once; a second attempt would send half of it."""


class RiskRefused(NotSent):
    """The daily guard forbids new risk."""


class MissingCredentials(NotSent, ConfigError):
    """A token is needed, and there are no credentials to get one with."""

    category = Category.AUTH


class SessionClosed(NotSent):
    """The session was closed; make a new one."""


class ConnectFailed(RequestError, requests.ConnectionError):
    """No connection came about: name resolution, route, refusal or TLS. The request was never sent."""

    category = Category.NETWORK
    retryable = True


class ConnectTimedOut(ConnectFailed, requests.ConnectTimeout):
    """No connection within the connect timeout. The request was never sent."""

    category = Category.TIMEOUT


class TlsFailed(ConnectFailed, requests.exceptions.SSLError):
    """TLS did not come about: an untrusted or wrong certificate, or a refused handshake. The request was never sent."""

    retryable = False


class ProxyFailed(ConnectFailed, requests.exceptions.ProxyError):
    """The proxy could not be reached or did not let the call through. The request never reached the gateway."""


class ReplyLost(RequestError, requests.ConnectionError):
    """The connection ended before the whole reply was here. The gateway may have acted."""

    category = Category.NETWORK
    fate = Fate.UNKNOWN


class ReplyTimedOut(ReplyLost, requests.ReadTimeout):
    """No whole reply in time. The gateway may have acted, and may still act."""

    category = Category.TIMEOUT


class ReplyTruncated(ReplyLost, requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError):
    """The reply ended in its middle, or cannot be unpacked. The gateway has most probably acted."""


class APIError(RequestError, requests.HTTPError):
    """The gateway answered, and not with success."""

    category = Category.SERVER
    fate = Fate.REFUSED
    status_code: int = 0
    """The HTTP status."""
    error_code: int | None = None
    """The envelope's `errorCode`; its meaning depends on the endpoint."""
    error_name: str | None = None
    """The code's documented name at this endpoint, such as ``OrderRejected``."""
    error_message: str | None = None
    """The envelope's `errorMessage`; usually null."""


class TransientError(APIError):
    """408, 429, 5xx: the same call may succeed later. Whether it may be *resent* is what `fate` says."""

    fate = Fate.UNKNOWN


class RateLimited(TransientError):
    """429: more requests than the gateway allows."""

    category = Category.RATE_LIMIT
    fate = Fate.REFUSED


class BadReply(TransientError, requests.exceptions.InvalidJSONError):
    """A reply that is not what the contract says: not JSON, no envelope, or a field missing."""


class PermanentError(APIError):
    """Repeating the same call gives the same answer."""

    category = Category.CLIENT


class AuthenticationError(PermanentError):
    """The credentials or the token were refused; the message says what to do."""

    category = Category.AUTH


class AccountNotFound(PermanentError):
    """No such account for this user."""


class ContractNotFound(PermanentError):
    """No such contract, or not with this `live` flag."""


class OrderNotFound(PermanentError):
    """No such order on this account."""


class PositionNotFound(PermanentError):
    """No open position in this contract."""


class BadBarRequest(PermanentError):
    """The gateway refused the unit, the unit number or the limit of a bar request."""


class OrderError(PermanentError):
    """An order, its change or its cancellation did not go through."""

    order_id: int | None = None
    """The record the gateway kept of the refused order, where it names one."""


class OrderRejected(OrderError):
    """The gateway refused the order."""


class DuplicateCustomTag(OrderRejected):
    """The account already has an order with this custom tag."""


class InsufficientFunds(OrderRejected):
    """Not enough money or margin."""


class OutsideTradingHours(OrderRejected):
    """The market is closed for this contract."""


class BracketRejected(OrderRejected):
    """Bracket distances, signs or the account's bracket mode were refused."""


class AccountViolation(OrderRejected):
    """The account broke one of its rules and may not trade."""


class AccountRejected(OrderRejected):
    """This kind of account may not do that over the API."""


class ContractNotActive(OrderRejected):
    """The contract is not the active month any more."""


class InvalidCloseSize(OrderRejected):
    """A partial close of more than is open, or of nothing."""


class OrderPending(OrderError):
    """The gateway does not know the outcome yet, or no better than "unknown error": look the order up."""

    fate = Fate.UNKNOWN


class OrderStateUnknown(TopstepError):
    """It may have happened. An order: ask ``session.orders.verify(tag)`` before placing another. Else: read back."""

    category = Category.NETWORK
    fate = Fate.UNKNOWN
    tag: str = ""  # the custom tag it carries if it exists
    since: float = 0.0  # when it was first sent, in seconds since 1970
    last_error: str | None = None  # why the last look-up did not settle it


class OrderStillWorking(TopstepError, TimeoutError):
    """The wait is over and the order is not."""

    category = Category.TIMEOUT
    order: Any = None  # the order as it last stood; None if it was not to be seen


class StreamError(TopstepError):
    """Something about a hub connection."""

    category = Category.NETWORK


class HubError(StreamError):
    """The hub answered an invocation with an error."""

    category = Category.SERVER
    fate = Fate.REFUSED


class HandshakeError(StreamError):
    """The hub refused the protocol, or did not answer the handshake in time."""


class HubProtocolError(StreamError):
    """The peer sent what the protocol does not allow."""


class ConnectionLost(StreamError):
    """The connection ended while a call was in flight; whether the hub acted is not known."""

    fate = Fate.UNKNOWN


class StreamFailed(StreamError):
    """The connection gave up for good; the message says why."""
