"""A hub connection that stays up (CONN-001): reconnects, fresh tokens, calls, subscriptions.

Its thread is in `owner`, one owner from each `connect` to the next `disconnect`. Nothing here waits under a lock, and
what a signal's handler calls in the middle of anything here works as if it came before or after.
"""

import atexit
import logging
import ssl
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal

from topstep_sync.checks import checked_url
from topstep_sync.clock import SYSTEM_CLOCK, Clock, Signal
from topstep_sync.config import USER_HUB_URL, Config, StreamConfig
from topstep_sync.errors import ConnectionLost, StreamError, StreamFailed
from topstep_sync.realtime import calls, signalr
from topstep_sync.realtime.calls import Call, Post
from topstep_sync.realtime.dialing import Dialer
from topstep_sync.realtime.forks import REASON, survive
from topstep_sync.realtime.lifecycle import State
from topstep_sync.realtime.link import Link, Sink
from topstep_sync.realtime.owner import Estate, Owner
from topstep_sync.realtime.router import CallbackSink
from topstep_sync.realtime.subscriptions import Subscriptions, Want
from topstep_sync.realtime.tokens import token_source

_log = logging.getLogger("topstep_sync.realtime")


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
        self._clock = clock
        self._callbacks = CallbackSink(event_router, f"topstep-{name}-callbacks", clock) if sink is None else None
        told: Sink = sink or self._callbacks  # type: ignore[assignment]
        dialer = Dialer(url, name, token_source(token_manager), self.config, clock, tls, headers or {}, bearer_in)
        sure = (clock.monotonic(), clock.epoch())
        self._estate = Estate(name, self.config, clock, dialer, told, fast, sure)
        self._lock = threading.RLock()  # guards which owner there is; a handler may come to it in the same thread
        self._owner: Owner | None = None
        self._reason: str | None = None  # why there is none
        _alive.add(self)
        survive(self)

    ################################################ start and stop ################################################

    def connect(self, timeout: float | None = None) -> bool:
        """The connection is kept up from here on; whether it stands after at most *timeout* seconds.

        Args:
            timeout: `None` for the configured connect timeout, 0 to return at once.

        Raises:
            StreamFailed: it gave up for good; the message says why.
            StreamError: the machine has no thread or no socket for it; nothing has changed.
        """
        owner = self._owner
        if owner is None or owner.over:
            try:
                owner = self._succeed(owner)
            except (OSError, RuntimeError) as error:
                words = f"the {self.name} connection cannot be started: {error}; end what uses threads or sockets"
                raise StreamError(words, retryable=True) from error
        self._clock.wait(owner.settled, self.config.connect_timeout if timeout is None else timeout)
        if owner.state is State.FAILED:
            raise StreamFailed(f"the {self.name} connection gave up: {owner.reason}")
        return owner.state is State.CONNECTED

    def _succeed(self, before: Owner | None) -> Owner:
        """Who owns the connection after *before*. Whatever is raised instead, it is *before* as it was."""
        if self._callbacks is not None:
            self._callbacks.open()
        new = Owner(self._estate, State.DISCONNECTED if before is None else before.legacy)
        chosen = False
        try:
            with self._lock:
                if self._owner is before:
                    self._owner, chosen = new, True
            if chosen:
                new.start()
        except BaseException:
            with self._lock:
                if self._owner is new:
                    self._owner = before
            new.call_off()
            raise
        if not chosen:
            new.call_off()
        return new if chosen else self._owner or new

    def hang_up(self) -> Owner | None:
        """The connection begins to end; `disconnect` sees it through, or `see_off` of whom this returns."""
        if (owner := self._owner) is not None:
            owner.stop()
        return owner

    @staticmethod
    def see_off(owner: Owner | None) -> None:
        """*owner*, who was hung up, has ended; another that came meanwhile goes on."""
        if owner is not None:
            owner.join()
            owner.dismiss()

    def disconnect(self) -> None:
        """The connection is closed, politely if the hub listens, and the thread ends within a second; idempotent."""
        self.see_off(self.hang_up())
        if self._callbacks is not None:
            self._callbacks.close()

    close = disconnect

    def __enter__(self) -> "SignalRConnectionManager":
        try:
            self.connect()
        except BaseException:
            self.disconnect()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.disconnect()

    ################################################ what it offers ################################################

    @property
    def state(self) -> State:
        """Where the connection is in its life."""
        return State.DISCONNECTED if (owner := self._owner) is None else owner.state

    @property
    def reason(self) -> str | None:
        """Why it is there, where there is a reason."""
        return self._reason if (owner := self._owner) is None else owner.reason

    @property
    def link(self) -> Link | None:
        """The open connection, for who wants its times; `None` while there is none."""
        return None if (owner := self._owner) is None else owner.link

    @property
    def sure(self) -> tuple[float, float]:
        """What the hub sent before this moment, monotonic and in seconds since 1970, is here or never comes."""
        return self._estate.sure if (link := self.link) is None else link.sure

    @property
    def subscriptions(self) -> Subscriptions:
        """What is asked of the hub, on this connection and on every later one."""
        return self._estate.subscriptions

    @property
    def reconnects(self) -> list[float]:
        """Monotonic times of the reconnects of the last hour."""
        return self._estate.reconnects

    @property
    def faults(self) -> int:
        """How often the peer broke the protocol."""
        return self._estate.faults

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

    def want(self, *wants: Want, holder: Any = None) -> Signal:
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
        """The hub is told, and will not answer: the record is with the operating system, or would come too late.

        On the connection's own thread it is only laid down, to be sent as soon as that thread has its next turn.

        Raises:
            ConnectionLost: there is no connection, or it ended first. Nothing is sent later.
        """
        self.post(signalr.invocation(target, arguments))

    def post(self, record: str) -> None:
        """A record is sent as it is; returns and raises as `send` does."""
        post = Post(record)
        owner = self._lay_down(post)
        if owner.current:
            return
        self._clock.wait(post.done, None)
        if post.error is not None:
            raise post.error

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
        if (owner := self._owner) is not None and owner.current:
            raise StreamError("the connection's own thread cannot wait for itself")
        signalr.invocation(target, arguments)  # what cannot be sent is refused here, not on the owner's thread
        limit = self.config.invoke_timeout if timeout is None else timeout
        call = Call(target, arguments, self._clock.monotonic() + limit, **options)
        self._lay_down(call)
        return call

    def _lay_down(self, asked: Call | Post) -> Owner:
        """*asked* is with the owner of the connection that stands now, and goes out on that one or on none."""
        owner = self._owner
        outbox = None if owner is None else owner.outbox
        if owner is None or outbox is None:
            raise ConnectionLost(f"the {self.name} connection is {self.state}; nothing was sent")
        outbox.put(asked)
        self.wake()
        return owner

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
        outbox = None if (owner := self._owner) is None else owner.outbox
        if outbox is not None:
            outbox.cancelled.append(call)
            self.wake()

    def call_soon(self, callback: Callable[..., Any], *arguments: Any) -> None:
        """*callback* runs on the callbacks' thread, after those already due."""
        if self._callbacks is not None:
            self._callbacks.call(callback, *arguments)

    def conflicted(self) -> None:
        """The gateway said that another program took over: if the connection ends now, come back later than usual."""
        self._estate.logout_at = self._clock.monotonic()

    def wake(self) -> None:
        """The owner's thread looks around now."""
        if (owner := self._owner) is not None:
            owner.wake()

    def forked(self) -> None:
        """In a child process: the thread is not here, and the connection is the parent's."""
        self._lock = threading.RLock()
        self._estate = replace(self._estate, subscriptions=Subscriptions(), turn=threading.Lock())
        owner, self._owner, self._reason = self._owner, None, REASON
        if self._callbacks is not None:
            self._callbacks.forked()
        if owner is not None:
            owner.abandon()

    def __repr__(self) -> str:
        return f"SignalRConnectionManager({self.name!r}, state={self.state.value!r})"


# Daemon threads are killed in mid-sentence when the interpreter ends; a goodbye before that is quick.
_alive: "weakref.WeakSet[SignalRConnectionManager]" = weakref.WeakSet()


def _close_all() -> None:
    managers = list(_alive)
    for manager in managers:
        manager.hang_up()  # all at once: a hub that does not listen takes its time
    for manager in managers:
        try:
            manager.disconnect()
        except BaseException:  # the others have their goodbye all the same
            _log.exception("! the %s connection was not closed", manager.name)


atexit.register(_close_all)
