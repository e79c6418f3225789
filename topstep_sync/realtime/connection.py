"""A hub connection that stays up (CONN-001): one thread, reconnects, fresh tokens, calls, subscriptions.

| attribute | written by | read by |
|---|---|---|
| `_state`, `_reason`, `_link` | the owner thread; `connect` and `disconnect` while there is none | anybody |
| `_outbox` | anybody | the owner thread |
| the socket | the owner thread | the owner thread |
"""

import atexit
import logging
import ssl
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal

from topstep_sync.checks import checked_url
from topstep_sync.clock import FOREVER, SYSTEM_CLOCK, Clock
from topstep_sync.config import USER_HUB_URL, Config, StreamConfig
from topstep_sync.errors import ConnectionLost, StreamError, StreamFailed
from topstep_sync.realtime import calls, signalr
from topstep_sync.realtime.dialing import Dialer
from topstep_sync.realtime.forks import REASON, survive
from topstep_sync.realtime.lifecycle import Event, Schedule, State, after_logout, step
from topstep_sync.realtime.link import Ended, Link, Sink
from topstep_sync.realtime.router import CallbackSink
from topstep_sync.realtime.subscriptions import Subscriptions, Want
from topstep_sync.realtime.tokens import token_source
from topstep_sync.realtime.waker import Interrupted, Waker
from topstep_sync.realtime.websocket import BufferedWebSocket

_log = logging.getLogger("topstep_sync.realtime")

JOIN: Final = 1.0  # seconds; the owner ends well within it, whatever it is doing


class SignalRConnectionManager:
    """One connection to one hub, kept up by a daemon thread. Thread-safe.

    Args:
        token_manager: gives the token, fresh for every attempt: a `TokenManager`, an object with `get_token()`, a
            function, a text, or `None` for a hub that wants none.
        event_router: called with the target and the list of arguments of everything the hub sends; or an object with
            such a method named `route`. Runs on a thread of its own.
        config: a `StreamConfig`, a mapping of its fields, or a whole `Config`.
        url: https address of the hub.
        name: how threads and logs call it.
        sink: instead of *event_router*, somebody who is told on the owner's thread.
        fast: a decoder for records of known shape (see `signalr`).
        tls: how to verify the hub; `None` for the system's authorities and certifi's.
        headers: more headers for the upgrade.
        bearer_in: where the token travels; the gateway's own samples use the query.
        any_url: whether *url* may be plain http to another machine, or carry a query. Tokens then travel in the open.
    """

    def __init__(
        self,
        token_manager: Any = None,
        event_router: Any = None,
        config: "StreamConfig | Config | Mapping[str, Any] | None" = None,
        *,
        url: str = USER_HUB_URL,
        name: str = "hub",
        clock: Clock = SYSTEM_CLOCK,
        sink: Sink | None = None,
        fast: signalr.FastDecoder | None = None,
        tls: ssl.SSLContext | None = None,
        headers: Mapping[str, str] | None = None,
        bearer_in: Literal["query", "header"] = "query",
        any_url: bool = False,
    ) -> None:
        self.config, self.name = StreamConfig.of(config), name
        self.url = url = url if any_url else checked_url(url, "url")
        self._clock, self._fast = clock, fast
        self._dialer = Dialer(url, name, token_source(token_manager), self.config, clock, tls, headers or {}, bearer_in)
        self._callbacks = CallbackSink(event_router, f"topstep-{name}-callbacks", clock) if sink is None else None
        self._sink: Sink = sink or self._callbacks  # type: ignore[assignment]
        self.subscriptions, self._outbox = Subscriptions(), calls.Outbox()
        self._lock = threading.Lock()  # one start or stop at a time: thread, waker; held while the thread ends
        self._waker: Waker | None = None
        self._thread: threading.Thread | None = None
        self._state = State.DISCONNECTED
        self._reason: str | None = None
        self._settled = threading.Event()  # set while CONNECTED, FAILED or DISCONNECTED
        self._link: Link | None = None
        self._logout_at = -FOREVER  # monotonic: when the gateway last said that another program took over
        self._stood = False  # whether it was ever established since `connect`
        self._gap_start: float | None = None  # of a gap that goes on
        self._sure = (clock.monotonic(), clock.epoch())  # of the last connection
        self.reconnects: list[float] = []
        """Monotonic times of the reconnects of the last hour."""
        self.faults = 0
        """How often the peer broke the protocol."""
        _alive.add(self)
        survive(self)

    ################################################ start and stop ################################################

    def connect(self, timeout: float | None = None) -> bool:
        """The connection is kept up from here on; whether it stands after at most *timeout* seconds.

        Args:
            timeout: `None` for the configured connect timeout, 0 to return at once.

        Raises:
            StreamFailed: it gave up for good; the message says why.
        """
        with self._lock:
            if self._waker is not None and self._waker.stopped:
                self._join()
            if self._thread is None or not self._thread.is_alive():
                if self._state is not State.FAILED:  # what was missed since it gave up is a gap like any other
                    self._stood, self._gap_start = False, None
                self._step(Event.CONNECT)
                self._settled.clear()
                self._waker = Waker(self._clock)
                self._thread = threading.Thread(target=self._run, name=f"topstep-{self.name}", daemon=True)
                self._thread.start()
        limit = self.config.connect_timeout if timeout is None else timeout
        self._clock.wait(self._settled, limit)
        if self._state is State.FAILED:
            raise StreamFailed(f"the {self.name} connection gave up: {self._reason}")
        return self._state is State.CONNECTED

    def hang_up(self) -> None:
        """The connection begins to end; `disconnect` sees it through."""
        if (waker := self._waker) is not None:
            waker.stop()

    def disconnect(self) -> None:
        """The connection is closed, politely if the hub listens, and the thread ends within a second; idempotent."""
        with self._lock:
            self.hang_up()
            self._join()
            if self._state is State.FAILED:
                self._step(Event.DISCONNECT)
        if self._callbacks is not None:
            self._callbacks.close()

    def _join(self) -> None:
        """The owner's thread has ended, unless it is the caller; it needs well below a second, and no lock of ours."""
        assert self._lock.locked()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(JOIN)

    close = disconnect

    def __enter__(self) -> "SignalRConnectionManager":
        self.connect()
        return self

    def __exit__(self, *exc: object) -> None:
        self.disconnect()

    ################################################ what it offers ################################################

    @property
    def state(self) -> State:
        """Where the connection is in its life."""
        return self._state

    @property
    def reason(self) -> str | None:
        """Why it is there, where there is a reason."""
        return self._reason

    @property
    def link(self) -> Link | None:
        """The open connection, for who wants its times; `None` while there is none."""
        return self._link

    @property
    def sure(self) -> tuple[float, float]:
        """What the hub sent before this moment, monotonic and in seconds since 1970, is here or never comes."""
        return self._sure if self._link is None else self._link.sure

    def subscribe(self, channel: str, callback: Callable[..., Any]) -> Callable[[], None]:
        """*callback* is called with the arguments of every invocation of *channel*, in any case of its letters.

        It runs on a thread of its own, after the callbacks of earlier invocations. Returns what takes it off again.
        """
        if self._callbacks is None:
            raise StreamError("this connection feeds a stream; subscribe there")
        return self._callbacks.on(channel, callback)

    on = subscribe

    def observe(self, callback: Callable[[State, str | None], Any]) -> Callable[[], None]:
        """*callback* is called with every new state and its reason. Returns what takes it off again."""
        if self._callbacks is None:
            raise StreamError("this connection feeds a stream; look at its events")
        return self._callbacks.observe(callback)

    def want(self, *wants: Want, holder: Any = None) -> threading.Event:
        """These calls are made now and after every reconnect; the event is set once the hub has answered them."""
        if self.subscriptions.add(wants, holder):
            self.wake()
        return self.subscriptions.watch(wants)

    def unwant(self, wants: Iterable[Want], holder: Any = None) -> None:
        """*holder* needs these no more; what nobody needs is taken back."""
        if self.subscriptions.remove(wants, holder):
            self.wake()

    def renew(self, want: Want) -> None:
        """A subscription that stands is taken back and made anew, for what the hub sends first."""
        if self.subscriptions.renew(want):
            self.wake()

    def send(self, target: str, *arguments: Any) -> None:
        """The hub is told; it will not answer.

        Raises:
            ConnectionLost: there is no connection.
        """
        self.post(signalr.invocation(target, arguments))

    def post(self, record: str) -> None:
        """A record is sent as it is; raises as `send` does."""
        self._require()
        self._outbox.texts.append(record)
        self.wake()

    def invoke(self, target: str, *arguments: Any, timeout: float | None = None) -> Any:
        """What the hub answers to *target*.

        Args:
            timeout: seconds; `None` for the configured one.

        Raises:
            HubError: the hub answered with an error, or not in time.
            ConnectionLost: there is no connection, or it ended first; nothing is sent twice.
        """
        return self.result(self.start_call(target, *arguments, timeout=timeout))

    def start_call(self, target: str, *arguments: Any, timeout: float | None = None, **options: Any) -> calls.Call:
        """A call on its way; *options* are those of `calls.Call`. With `on_item`, a streaming call."""
        if threading.current_thread() is self._thread:
            raise StreamError("the connection's own thread cannot wait for itself")
        signalr.invocation(target, arguments)  # what cannot be sent is refused here, not on the owner's thread
        self._require()
        limit = self.config.invoke_timeout if timeout is None else timeout
        call = calls.Call(target, arguments, self._clock.monotonic() + limit, **options)
        self._outbox.calls.append(call)
        self.wake()
        if self._link is None:
            self._outbox.fail(self._lost())
        return call

    def result(self, call: calls.Call) -> Any:
        """The answer to *call*, once it is there; raises as `invoke` does."""
        try:
            self._clock.wait(call.done, None)
        finally:
            if not call.done.is_set():
                self.cancel(call)
        if call.error is not None:
            raise call.error
        return call.result

    def cancel(self, call: calls.Call) -> None:
        """Nobody waits for *call* any more."""
        self._outbox.cancelled.append(call)
        self.wake()

    def call_soon(self, callback: Callable[..., Any], *arguments: Any) -> None:
        """*callback* runs on the callbacks' thread, after those already due."""
        if self._callbacks is not None:
            self._callbacks.call(callback, *arguments)

    def conflicted(self) -> None:
        """The gateway said that another program took over: if the connection ends now, come back later than usual."""
        self._logout_at = self._clock.monotonic()

    def _require(self) -> None:
        if self._state is not State.CONNECTED:
            raise self._lost()

    def _lost(self) -> ConnectionLost:
        return ConnectionLost(f"the {self.name} connection is {self._state}; nothing was sent")

    def wake(self) -> None:
        """The owner's thread looks around now."""
        if (waker := self._waker) is not None:
            waker.wake()

    ############################################## the owner's thread ##############################################

    def _run(self) -> None:
        waker = self._waker
        assert waker is not None
        try:
            self._keep_up(waker)
        except Interrupted:
            self._step(Event.DISCONNECT)
        except Exception as error:  # a bug of ours must not look like a quiet market
            _log.exception("! the thread of the %s connection failed", self.name)
            self._step(Event.GAVE_UP, f"internal error: {type(error).__name__}: {error}")
        finally:
            self._outbox.fail(self._lost())
            self.subscriptions.release()
            self._settled.set()
            waker.close()

    def _keep_up(self, waker: Waker) -> None:
        schedule = Schedule(self.config)
        while True:
            try:
                self._live(waker, schedule)
            except Ended as ended:
                ending, reason = ended.ending, ended.reason
            now = self._clock.monotonic()
            ending = after_logout(ending, now - self._logout_at)
            delay = schedule.after(ending, now, self._clock.random())
            if delay is None:
                _log.error("! the %s connection gave up: %s", self.name, reason)
                self._step(Event.GAVE_UP, reason)
                return
            _log.warning("~ %s: %s; next attempt in %.1f s", self.name, reason, delay)
            self._step(Event.LOST, reason)
            waker.sleep(self._clock.monotonic() + delay)

    def _live(self, waker: Waker, schedule: Schedule) -> None:
        """One connection, from the attempt to its end, which is raised."""
        ws = self._dialer.open(waker)
        try:
            self._serve(ws, waker, schedule)
        finally:
            ws.drop()

    def _serve(self, ws: BufferedWebSocket, waker: Waker, schedule: Schedule) -> None:
        link = Link(ws, waker, self._clock, self.config, self.subscriptions, self._outbox, self._sink, self._fast)
        polite = False
        try:
            self.subscriptions.fresh()
            link.handshake()
            schedule.up(self._clock.monotonic())
            self._link = link
            link.serve(self._established)
        except Interrupted:
            polite = True
            raise
        finally:
            self._link = None
            self.faults += link.faults
            self._sure = link.sure
            if self._stood and self._gap_start is None:
                self._gap_start = link.sure[1]
            link.end(polite)
            self._outbox.fail(ConnectionLost("the connection ended before the call was sent"))

    def _established(self) -> None:
        again, self._gap_start, self._stood = self._gap_start, None, True
        if again is not None:
            now = self._clock.monotonic()
            self.reconnects = [at for at in self.reconnects if now - at < 3600] + [now]
        self._step(Event.ESTABLISHED)
        self._sink.established(again, self._clock.epoch())

    def _step(self, event: Event, reason: str | None = None) -> None:
        state = step(self._state, event)
        if state is self._state and event is not Event.LOST:
            return
        self._state, self._reason = state, reason
        if state in (State.CONNECTED, State.FAILED, State.DISCONNECTED):
            self._settled.set()
        else:
            self._settled.clear()
        _log.info("= %s is %s%s", self.name, state, f": {reason}" if reason else "")
        self._sink.changed(state, reason)

    def forked(self) -> None:
        """In a child process: the thread is not here, and the connection is the parent's."""
        self._lock, self._settled = threading.Lock(), threading.Event()
        self._outbox, self.subscriptions = calls.Outbox(), Subscriptions()
        link, self._link, self._thread = self._link, None, None
        waker, self._waker = self._waker, None
        self._state, self._reason = State.DISCONNECTED, REASON
        if self._callbacks is not None:
            self._callbacks.forked()
        if link is not None:
            link.abandon()
        if waker is not None:
            waker.close()

    def __repr__(self) -> str:
        return f"SignalRConnectionManager({self.name!r}, state={self._state.value!r})"


# Daemon threads are killed in mid-sentence when the interpreter ends; a goodbye before that is quick.
_alive: "weakref.WeakSet[SignalRConnectionManager]" = weakref.WeakSet()


def _close_all() -> None:
    for manager in list(_alive):
        manager.disconnect()


atexit.register(_close_all)
