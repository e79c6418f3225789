"""A drop-in for code written against signalrcore: change one import.

::

    from topstep_sync.compat import HubConnectionBuilder    # was: from signalrcore.hub_connection_builder import …

The builder *is* signalrcore's, so its configuration methods and `isinstance` checks go on working; `build()` gives a
connection with signalrcore's public calls on our own. Needs the extra ``signalrcore``.

What differs, each on purpose:

* It survives what signalrcore does not: resets, silence, a server that is away for a while, pings, odd records, and
  exceptions in callbacks.
* `start` returns once the hub has accepted the handshake, and raises `HubConnectionError` when there is no connection
  within 10 s. `stop` returns within a second, whatever the connection is doing.
* Callbacks run one after the other on a thread of their own. A slow one delays the later ones, not the connection.
* The token function is called for every attempt to connect, and the token is sent in that attempt's header only. What
  it raises comes out of `start`, as before; later it counts as a failed attempt.
* `send` and `invoke` raise `HubConnectionError` while there is no connection; nothing is dropped in silence. A call
  whose connection ends before the answer ends in `on_error`.
* `on_reconnect` comes with every attempt that was in vain and is followed by another, also before the first `on_open`.
* Targets match in any case of their letters, as in the official clients.
* There is no negotiation, and only WebSockets and JSON: other transports and MessagePack are refused by `build`.
* `configure_proxies` changes nothing (it did not for WebSockets before): proxies are those of the environment. Nor does
  `socket_trace`: what is traced would bear the token.
"""

import logging
import uuid
from collections.abc import Callable
from typing import Any, Final

from topstep_sync.errors import AuthenticationError, ConnectionLost, MissingExtra, StreamError
from topstep_sync.realtime.calls import Call
from topstep_sync.realtime.connection import SignalRConnectionManager
from topstep_sync.realtime.lifecycle import State

try:
    from signalrcore.hub.base_hub_connection import BaseHubConnection, InvocationResult
    from signalrcore.hub.errors import HubConnectionError
    from signalrcore.hub.handlers import StreamHandler
    from signalrcore.hub_connection_builder import HubConnectionBuilder as _Builder
    from signalrcore.messages.completion_message import CompletionMessage
    from signalrcore.messages.invocation_message import InvocationMessage
    from signalrcore.protocol.json_hub_protocol import JsonHubProtocol
    from signalrcore.subject import Subject
    from signalrcore.transport.reconnection import IntervalReconnectionHandler
    from signalrcore.types import HttpTransportType, HubProtocolEncoding
except ImportError as error:
    raise MissingExtra("this needs signalrcore: pip install 'topstep-sync[signalrcore]'") from error

__all__ = ["HubConnection", "HubConnectionBuilder", "HubConnectionError"]

_log = logging.getLogger("topstep_sync.compat")

_OVER: Final = (State.DISCONNECTED, State.FAILED)
_FOREVER: Final = 7 * 86400.0  # seconds; signalrcore's calls have no timeout
_WAIT: Final = 10.0  # seconds for `start`


class HubConnectionBuilder(_Builder):  # type: ignore[misc]
    """signalrcore's builder; what it builds runs on our connection."""

    def build(self) -> "HubConnection":
        """A connection that is ready to `start`.

        Raises:
            ValueError: MessagePack or another transport than WebSockets was asked for.
        """
        if self.preferred_transport not in (None, HttpTransportType.web_sockets):
            raise ValueError(f"{self.preferred_transport} is not supported; expected WebSockets")
        binary = self.preferred_protocol is HubProtocolEncoding.binary
        if binary or (self.protocol is not None and not isinstance(self.protocol, JsonHubProtocol)):
            raise ValueError("MessagePack is not supported; expected the JSON protocol")
        return HubConnection(
            self.hub_url,
            token=self.auth_function if self.has_auth_configured else None,
            headers=self.headers,
            ssl_context=self.ssl_context,
            settings=self._settings(),
        )

    def _settings(self) -> dict[str, Any]:
        """What `with_automatic_reconnect` asked for, in our words."""
        handler = self.reconnection_handler
        settings: dict[str, Any] = {"ping_interval": float(self.keep_alive_interval)}
        if handler is None:
            # As officially: without automatic reconnect a connection that is lost stays lost.
            return {**settings, "max_attempts": 0}
        if isinstance(handler, IntervalReconnectionHandler):
            delays = tuple(map(float, handler._intervals)) or (0.0,)
            return {**settings, "backoff_seconds": delays, "max_attempts": len(handler._intervals)}
        delays = (float(handler.sleep_time),)
        return {**settings, "backoff_seconds": delays, "max_attempts": handler.max_reconnection_attempts}


class HubConnection(BaseHubConnection):  # type: ignore[misc]
    """signalrcore's hub connection, as far as its users see it."""

    def __init__(
        self,
        url: str,
        *,
        token: Callable[[], str] | None,
        headers: dict[str, str],
        ssl_context: Any,
        settings: dict[str, Any],
    ) -> None:
        super().__init__(url, skip_negotiation=True, headers=headers, ssl_context=ssl_context)
        self._login = token
        self._starting = False
        self._refusal: Exception | None = None  # what the token function raised while `start` waited
        self._manager = SignalRConnectionManager(
            None if token is None else self._token,
            self._route,
            settings,
            url="http" + url.removeprefix("http").removeprefix("ws"),
            name="signalrcore",
            tls=ssl_context,
            headers=headers,
            bearer_in="header",
            any_url=True,
        )
        self._last = State.DISCONNECTED  # what the callbacks were last told
        self._manager.observe(self._observed)
        self.transport = _Transport(self._manager)

    def start(self) -> bool:
        """Connected; False when it was already.

        Raises:
            HubConnectionError: there is no connection; the message says why.
            Exception: whatever the token function raised.
        """
        if self._manager.state is State.CONNECTED:
            _log.warning("already connected")
            return False
        self._starting, self._refusal = True, None
        try:
            if self._manager.connect(timeout=_WAIT):
                return True
            reason = self._manager.reason
            words = f"no connection within {_WAIT:g} s{f': {reason}' if reason else ''}"
        except StreamError as error:
            words = str(error)
        finally:
            self._starting = False
        self._manager.disconnect()
        raise self._refusal or HubConnectionError(words)

    def _token(self) -> str:
        """The user's token; while `start` waits, what it raises is the end."""
        assert self._login is not None
        try:
            return self._login()
        except Exception as error:
            if not self._starting:
                raise
            self._refusal = error
            raise AuthenticationError("the token function failed") from error

    def stop(self) -> None:
        """Disconnected, within a second."""
        self._manager.disconnect()

    def send(
        self, method: str, arguments: Any, on_invocation: Any = None, invocation_id: str | None = None
    ) -> InvocationResult:
        """As `invoke`."""
        return self.invoke(method, arguments, on_invocation, invocation_id)

    def invoke(
        self, method: str, arguments: Any, on_invocation: Any = None, invocation_id: str | None = None
    ) -> InvocationResult:
        """The hub is asked; *on_invocation* gets its answer, and `on_error` its refusal.

        Raises:
            HubConnectionError: there is no connection.
            TypeError: *arguments* is neither a list nor a `Subject`.
        """
        if type(arguments) is not list and type(arguments) is not Subject:
            raise TypeError("Arguments of a message must be a list or subject")
        result = InvocationResult(invocation_id or str(uuid.uuid4()))
        if type(arguments) is Subject:
            arguments.connection, arguments.target = self, method
            arguments.start()
            result.invocation_id, result.message = arguments.invocation_id, arguments
            return result
        self._call(method, arguments, key=result.invocation_id, on_done=lambda call: self._done(call, on_invocation))
        result.message = InvocationMessage(result.invocation_id, method, arguments, headers={})
        return result

    def stream(self, event: str, event_params: list[Any]) -> StreamHandler:
        """A streaming call, made when the handler is subscribed to."""
        key = str(uuid.uuid4())
        handler = _Stream(event, key)

        def begin() -> None:
            soon = self._manager.call_soon
            self._call(
                event,
                event_params,
                key=key,
                on_item=lambda item: soon(handler.next_callback, item),
                on_done=lambda call: self._done(call, handler.complete_callback, handler.error_callback),
            )

        handler.begin = begin
        return handler

    def _call(self, method: str, arguments: list[Any], **options: Any) -> None:
        try:
            self._manager.start_call(method, *arguments, timeout=_FOREVER, **options)
        except ConnectionLost as error:
            raise HubConnectionError(f"Cannot connect to SignalR hub. Unable to transmit messages: {error}") from None

    def _done(self, call: Call, completed: Any, failed: Any = None) -> None:
        """On the connection's thread: hand the outcome over to the callbacks' thread."""
        if call.error is None:
            if completed is not None:
                self._manager.call_soon(completed, CompletionMessage(call.key, call.result, None))
            return
        message = CompletionMessage(call.key, None, str(call.error).removeprefix(f"{call.target}: "))
        self._manager.call_soon(self._callbacks.on_error, message)
        if failed is not None:
            self._manager.call_soon(failed, message)

    def _route(self, target: str, arguments: list[Any]) -> None:
        wanted = target.lower()
        for event, handlers in list(self.handlers.items()):
            if event.lower() == wanted:
                for handler in list(handlers):
                    self._manager.call_soon(handler, arguments)

    def _observed(self, state: State, reason: str | None) -> None:
        before, self._last = self._last, state
        if state is State.CONNECTED:
            self._callbacks.on_open()
        elif state is State.RECONNECTING:
            self._callbacks.on_reconnect()
        elif state in _OVER and before not in _OVER:
            self._callbacks.on_close()


class _Stream(StreamHandler):  # type: ignore[misc]
    """Starts its call when somebody listens, so that no item is lost."""

    begin: Callable[[], None]

    def subscribe(self, subscribe_callbacks: dict[str, Callable[..., Any]]) -> None:
        super().subscribe(subscribe_callbacks)
        self.begin()


class _Transport:
    """What signalrcore's `Subject`, and some users, ask of `connection.transport`."""

    def __init__(self, manager: SignalRConnectionManager) -> None:
        self._manager = manager
        self._protocol = JsonHubProtocol()

    def is_connected(self) -> bool:
        return self._manager.state is State.CONNECTED

    def is_running(self) -> bool:
        return self._manager.state not in (State.DISCONNECTED, State.FAILED)

    def send(self, message: Any) -> None:
        try:
            self._manager.post(self._protocol.encode(message))
        except ConnectionLost as error:
            raise HubConnectionError(str(error)) from None
